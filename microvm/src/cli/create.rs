//! `create` and `run`.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use microvm::runtime::{self, Instance, Options, Raw};
use microvm::{Accel, RootDisk};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use rustix::termios::tcgetwinsize;

use super::Global;

/// Boot a machine from a bundle; its process waits to be started
#[derive(clap::Args)]
pub(super) struct Create {
    #[command(flatten)]
    make: Make,
}

/// Create, start, wait and delete; the exit code is the workload's
#[derive(clap::Args)]
pub(super) struct Run {
    #[command(flatten)]
    make: Make,
    /// Return once the workload runs
    #[arg(short, long)]
    detach: bool,
    /// Leave the machine's state for `delete` when it has ended
    #[arg(long)]
    keep: bool,
    /// Accepted for engines: other processes' orphans are not adopted
    #[arg(long)]
    no_subreaper: bool,
}

/// What both take.
#[derive(clap::Args)]
struct Make {
    /// The machine's name
    id: String,
    /// The bundle: a folder with a config.json
    #[arg(short, long, value_name = "FOLDER", default_value = ".")]
    bundle: PathBuf,
    /// File to write the id of the machine's process to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Unix socket to send the workload's terminal to
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Refused but for 0: a guest's process has no descriptors of the host's
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Accepted for engines
    #[arg(long)]
    no_pivot: bool,
    /// Accepted for engines
    #[arg(long)]
    no_new_keyring: bool,
    /// The guest's kernel, a vmlinux or a bzImage [default: $LAB_VM_KERNEL, or the best that `lab kernel list` shows]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// A disk with the root file system in place of the bundle's folder; never written to
    #[arg(long, value_name = "FILE")]
    disk: Option<PathBuf>,
    /// Its file system
    #[arg(long, value_name = "TYPE", default_value = "erofs", requires = "disk")]
    fs_type: String,
    /// What runs the guest: kvm, tcg (QEMU's translator), or auto: kvm where there is a /dev/kvm
    #[arg(long, default_value = "kvm", value_parser = super::look::accel)]
    accel: Accel,
    /// Start from a snapshot in this folder, or leave one there for the next machine of the same kind
    #[arg(long, value_name = "FOLDER")]
    warm: Option<PathBuf>,
    /// A Unix socket, to be made, by which the host's programs reach those of the guest (vsock): say CONNECT PORT. Theirs reach
    /// whoever listens on SOCKET_PORT [default: annotation lab.vm.vsock]
    #[arg(long, value_name = "SOCKET")]
    vsock: Option<PathBuf>,
    /// A Unix socket, to be made, where GDB may connect: `target remote SOCKET`
    #[arg(long, value_name = "SOCKET")]
    gdb: Option<PathBuf>,
}

impl Make {
    fn create(self, global: &Global) -> Result<Instance> {
        if self.preserve_fds > 0 {
            let reason = "a descriptor is the host's kernel's, and the guest has a kernel of its own; use a volume, or --vsock";
            return Err(
                microvm::Error::Config { field: "--preserve-fds".into(), reason: reason.into() }.into()
            );
        }
        let fs_type = self.fs_type;
        let options = Options {
            root: global.root(),
            id: self.id,
            bundle: self.bundle,
            pid_file: self.pid_file,
            console_socket: self.console_socket.as_deref().map(connect).transpose()?,
            kernel: self.kernel,
            disk: self.disk.map(|path| RootDisk { path, fs_type }),
            accel: self.accel,
            warm: self.warm,
            vsock: self.vsock,
            gdb: self.gdb,
        };
        Ok(runtime::create(options)?)
    }
}

/// The socket that an engine wants a terminal sent to.
pub(super) fn connect(path: &Path) -> Result<UnixStream> {
    UnixStream::connect(path)
        .with_context(|| format!("cannot connect to the console socket {}", path.display()))
}

impl Create {
    pub(super) fn run(self, global: &Global) -> Result<()> {
        self.make.create(global).map(drop)
    }
}

impl Run {
    pub(super) fn run(self, global: &Global) -> Result<ExitCode> {
        let (detach, keep) = (self.detach, self.keep);
        let relay = self.make.console_socket.is_none();
        // Before the monitor is made: what arrives meanwhile is for it.
        let signals = (!detach).then(runtime::catch_signals).transpose()?;
        let instance = self.make.create(global)?;
        if let Err(error) = instance.start() {
            instance.delete(true)?;
            return Err(error.into());
        }
        let Some(signals) = signals else { return Ok(ExitCode::SUCCESS) };
        let terminal = relay && instance.spec()?.process.is_some_and(|process| process.terminal);
        let raw = terminal.then(Raw::set);
        let code = wait(&instance, &signals, terminal);
        drop(raw);
        if !keep {
            instance.delete(true)?;
        }
        Ok(ExitCode::from(code?))
    }
}

/// Waits for the monitor, our child, and passes signals on to it.
fn wait(instance: &Instance, signals: &SignalFd, terminal: bool) -> Result<u8> {
    let pid = Pid::from_raw(instance.state().pid).context("the monitor has no process")?;
    let monitor: OwnedFd =
        pidfd_open(pid, PidfdFlags::empty()).context("cannot watch the monitor (pidfd_open)")?;
    loop {
        let mut files =
            [monitor.as_fd(), signals.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let _ = poll(&mut files, None);
        if !files[0].revents().is_empty() {
            let ended = waitid(WaitId::PidFd(monitor.as_fd()), WaitIdOptions::EXITED)
                .context("cannot wait (waitid)")?;
            let ended = ended.context("the monitor ended without a status")?;
            let killed = ended.terminating_signal().map_or(125, |signal| 128 + signal as u8);
            return Ok(ended.exit_status().map_or(killed, |code| code as u8));
        }
        while let Ok(Some(info)) = signals.read_signal() {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGWINCH) => {
                    if let Some(size) = terminal.then(|| tcgetwinsize(io::stdin()).ok()).flatten() {
                        let _ = instance.resize(size.ws_row, size.ws_col);
                    }
                }
                Ok(
                    Signal::SIGCHLD | Signal::SIGPIPE | Signal::SIGURG | Signal::SIGTTIN | Signal::SIGTTOU,
                ) => {}
                _ => {
                    if let Some(signal) = rustix::process::Signal::from_named_raw(info.ssi_signo as i32) {
                        let _ = pidfd_send_signal(&monitor, signal);
                    }
                }
            }
        }
    }
}

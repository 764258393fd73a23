//! `lab-vm look`: a bundle's process in a guest of this very process, to look at closely.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use lab_clock::Mark;
use microvm::devices::serial::Console;
use microvm::{Accel, CreateOptions, Diagnostics, Error, Exit, Kernel, RootDisk, RootFs, Sandbox, Stdio};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Run a bundle in this process, to look at the guest more closely than an engine does; the exit code is the workload's
#[derive(clap::Args)]
pub(super) struct Args {
    /// The bundle: a folder with a config.json
    #[arg(short, long, value_name = "FOLDER", default_value = ".")]
    bundle: PathBuf,
    /// The guest's kernel: a vmlinux or a bzImage
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// A kernel module for the guest to load; may be given several times, in the order in which they are needed
    #[arg(long = "module", value_name = "FILE")]
    modules: Vec<PathBuf>,
    /// The root file system as a disk; never written to
    #[arg(long, value_name = "FILE")]
    disk: PathBuf,
    /// Its file system
    #[arg(long, value_name = "TYPE", default_value = "erofs")]
    fs_type: String,
    /// Memory in MiB
    #[arg(short, long, default_value_t = 128)]
    memory: u32,
    /// Number of vCPUs
    #[arg(long, default_value_t = 1)]
    cpus: u8,
    /// What runs the guest: kvm, tcg (QEMU's translator), or auto: kvm where there is a /dev/kvm
    #[arg(long, default_value = "kvm", value_parser = accel)]
    accel: Accel,
    /// Start from a snapshot in this folder, or leave one there for the next run of the same kind
    #[arg(long, value_name = "FOLDER")]
    warm: Option<PathBuf>,
    /// A Unix socket, to be made, for the guest's vsock
    #[arg(long, value_name = "SOCKET")]
    vsock: Option<PathBuf>,
    /// The guest kernel's console on standard error
    #[arg(long)]
    console: bool,
    #[command(flatten)]
    look: super::Look,
}

/// Signals that go on to the workload.
const FORWARDED: [Signal; 6] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

pub(super) fn run(args: Args, global: &super::Global) -> Result<ExitCode> {
    let timeline = super::timeline()?;
    let symbols = args.look.symbols()?;
    // Blocked before any thread is started, so that all threads have them blocked and only the descriptor gets them.
    let signals: SigSet = FORWARDED.into_iter().collect();
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;

    let options = CreateOptions {
        root: global.root(),
        id: format!("look-{}", std::process::id()),
        bundle: args.bundle,
        stdio: Stdio::Inherit,
        root_fs: RootFs::Disk(RootDisk { path: args.disk, fs_type: args.fs_type }),
        kernel: Kernel { image: args.kernel, modules: args.modules, release: String::new() },
        memory_mib: args.memory,
        vcpus: args.cpus,
        network: microvm::network::Network::default(),
        accel: args.accel,
        warm: args.warm,
        saved: None,
        vsock: args.vsock.map(Into::into),
        timeline: Some(timeline.clone()),
    };
    let diagnostics = Diagnostics {
        console: Console::new(args.console.then(|| Box::new(io::stderr()) as _)),
        command_line: args.look.append.clone(),
        profile: symbols.is_some(),
        explain: args.look.explain(),
        gdb: args.look.gdb.clone(),
        gdb_first: true,
    };
    let mut sandbox = microvm::create_with(options, diagnostics)?;
    let result = sandbox.start().and_then(|()| wait(&mut sandbox, &signals));
    timeline.mark(Mark::Exited);
    args.look.print(sandbox.vm(), &timeline, symbols.as_deref());
    sandbox.delete()?;
    Ok(match result? {
        Exit::Code(code) => ExitCode::from(code),
        Exit::Signal(signal) => ExitCode::from(128u8.saturating_add(signal as u8)),
    })
}

pub(super) fn accel(name: &str) -> Result<Accel, String> {
    match name {
        "auto" => Ok(Accel::Auto),
        "kvm" => Ok(Accel::Kvm),
        "tcg" => Ok(Accel::Tcg),
        _ => Err("kvm, tcg and auto are possible".into()),
    }
}

/// Waits for the workload, and passes signals on.
fn wait(sandbox: &mut Sandbox, signals: &SignalFd) -> Result<Exit, Error> {
    loop {
        let mut fds = [sandbox.exit_fd(), signals.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        // A failure can only be an interruption: both descriptors are good. Either way the loop looks again.
        let _ = poll(&mut fds, PollTimeout::NONE);
        if fds[0].any() == Some(true) {
            return sandbox.wait();
        }
        while let Ok(Some(signal)) = signals.read_signal() {
            sandbox.kill(signal.ssi_signo as i32)?;
        }
    }
}

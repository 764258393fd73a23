//! The second wall behind the trait: crate `microvm`, a virtual machine with a kernel of its own.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread;

use microvm::Diagnostics;
use microvm::explain::Explain;
use oci_spec::runtime::{LinuxResources, Process};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::Winsize;

use super::error::Context as _;
use super::limits::{Limits, MIB};
use super::place::Roots;
use super::request::Network;
use super::run::Creation;
use super::sandbox::{Exit, Inside, Machine, Resizer, Sandbox, Stdio};
use super::signals::{Ask, Signals};
use super::{Accelerator, Error, Request};
use crate::kernel;

/// Memory of a virtual machine without `-m`, in mebibytes: the kernel, its page tables and a small program.
const DEFAULT_MEMORY: u64 = 128;

/// Below this no Linux kernel of ours reaches its first process.
const LEAST_MEMORY: u64 = 32;

/// So many lines of the guest kernel's console are told.
const CONSOLE_LINES: usize = 1000;

/// The most vCPUs that the VMM gives a machine.
const MOST_VCPUS: u64 = 8;

/// Refuses what a virtual machine cannot do, before anything starts.
pub fn check(request: &Request) -> Result<(), Error> {
    let asked = memory(&request.limits);
    if asked < LEAST_MEMORY {
        return Err(Error::VmMemoryTooSmall { asked, least: LEAST_MEMORY });
    }
    if request.limits.pids.is_some_and(|pids| pids > 0) {
        let reason = "the guest's kernel has no control groups; its memory bounds its processes";
        return Err(Error::Unsupported { flag: "--pids-limit", runtime: "vm", reason });
    }
    let isolation = &request.isolation;
    let refuse = |flag, reason| Err(Error::Unsupported { flag, runtime: "vm", reason });
    match isolation.network {
        Network::Own => {}
        Network::Host => return refuse("--network host", "a machine has a network stack of its own"),
        Network::Join(_) => {
            return refuse("--network container:NAME", "a machine has a network stack of its own");
        }
    }
    if isolation.pid != Network::Own || isolation.ipc != Network::Own || isolation.uts != Network::Own {
        return refuse("--pid, --ipc and --uts", "its processes and names are its own kernel's");
    }
    if !isolation.devices.is_empty() {
        return refuse("--device", "the host's devices are not the machine's");
    }
    if isolation.privileged {
        return refuse("--privileged", "the machine's kernel is its own: there is nothing to open up");
    }
    Ok(())
}

/// Mebibytes of guest memory.
fn memory(limits: &Limits) -> u64 {
    limits.memory.map_or(DEFAULT_MEMORY, |bytes| bytes.div_ceil(MIB))
}

/// A workload in a virtual machine.
pub struct Vm {
    machine: microvm::Sandbox,
    /// What tells its root file system from all others.
    root: Vec<u8>,
    /// Whether GDB may connect already.
    gdb: Option<PathBuf>,
    /// Dropped after the machine: it lets the thread end that booted it.
    _boot: Sender<()>,
}

impl Vm {
    /// Boots the machine and prepares the workload, which waits to be started.
    pub fn create(creation: Creation<'_>) -> Result<Self, Error> {
        let request = creation.request;
        let choice = request.kernel.as_deref();
        let kernel =
            kernel::resolve(choice)?.ok_or_else(|| Error::NoKernel { choice: request.kernel.clone() })?;
        let disk = creation.store.root_disk(creation.image, creation.progress)?;
        let size = std::fs::metadata(&disk.path).context("look at", disk.path.display())?.len();
        let root = format!("{} {} {size}", creation.image.id(), disk.fs_type).into_bytes();
        let vcpus = request.limits.cpus.map_or(1, |cpus| cpus.whole().min(MOST_VCPUS));
        let options = microvm::CreateOptions {
            root: creation.roots.machines(),
            id: creation.id.to_owned(),
            bundle: creation.place.bundle().to_owned(),
            stdio: streams(creation.stdio),
            root_fs: microvm::RootFs::Disk(microvm::RootDisk {
                path: disk.path,
                fs_type: disk.fs_type.to_string(),
            }),
            kernel: microvm::Kernel {
                image: kernel.image,
                modules: kernel.module_files,
                release: kernel.meta.release,
            },
            memory_mib: u32::try_from(memory(&request.limits)).unwrap_or(u32::MAX),
            vcpus: vcpus as u8,
            accel: match request.accelerator {
                Accelerator::Auto => microvm::Accel::Auto,
                Accelerator::Kvm => microvm::Accel::Kvm,
                Accelerator::Tcg => microvm::Accel::Tcg,
            },
            network: creation.network,
            warm: request.warm.then(|| creation.roots.snapshots()),
            saved: request.saved.as_ref().map(|folder| microvm::Saved {
                path: folder.join(super::stored::saved::MACHINE),
                root: root.clone(),
            }),
            vsock: request.vsock.clone().map(Into::into),
            timeline: creation.timeline,
        };
        let explain = request.explain.then(|| Explain::new(Box::new(io::stderr())));
        let gdb = request.gdb.clone();
        let diagnostics = Diagnostics { explain, gdb: gdb.clone(), ..Diagnostics::default() };
        let (machine, boot) = boot(options, diagnostics, creation.signals)?;
        Ok(Self { machine, root, gdb, _boot: boot })
    }
}

/// Boots on a thread, since that takes seconds where there is no hardware virtualization, and gives up at an interrupt.
///
/// Then the thread is left to itself: it holds nothing but memory and descriptors, which end with this process, and the
/// machine's directory, which is removed. After a boot it stays until the machine is gone: a QEMU that it started dies with
/// the *thread* that started it (PR_SET_PDEATHSIG(2const)).
fn boot(
    options: microvm::CreateOptions,
    diagnostics: Diagnostics,
    signals: &mut Signals,
) -> Result<(microvm::Sandbox, Sender<()>), Error> {
    let (ended, end) = pipe_with(PipeFlags::CLOEXEC).context("make", "a pipe")?;
    let (give, result) = sync_channel(1);
    let (stay, until) = channel::<()>();
    let directory = options.root.join(&options.id);
    let thread = thread::Builder::new().name("boot".to_owned()).spawn(move || {
        let _ = give.send(microvm::create_with(options, diagnostics));
        drop(end);
        let _ = until.recv();
    });
    thread.context("start", "the thread that boots")?;
    loop {
        let mut files = [
            PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        match poll(&mut files, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.context("wait for", "the machine")?,
        };
        if !files[0].revents().is_empty() {
            let result = result.recv().map_err(io::Error::other).context("boot", "the machine")?;
            return Ok((result?, stay));
        }
        while let Some(ask) = signals.arrived() {
            if let Ask::Deliver(
                signal @ (nix::libc::SIGHUP | nix::libc::SIGINT | nix::libc::SIGQUIT | nix::libc::SIGTERM),
            ) = ask
            {
                let _ = std::fs::remove_dir_all(&directory);
                return Err(Error::Interrupted { signal });
            }
        }
    }
}

/// Removes what the machine of a killed process left: all else ended with that process.
pub fn clear(roots: &Roots, id: &str) {
    let _ = std::fs::remove_dir_all(roots.machines().join(id));
    let _ = std::fs::remove_file(roots.debugger(id));
}

impl Sandbox for Vm {
    fn start(&mut self) -> Result<(), Error> {
        Ok(self.machine.start()?)
    }

    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.machine.exit_fd()
    }

    fn wait(&mut self) -> Result<Exit, Error> {
        Ok(exit(self.machine.wait()?))
    }

    fn kill(&mut self, signal: i32) -> Result<(), Error> {
        Ok(self.machine.kill(signal)?)
    }

    fn resize(&mut self, _master: BorrowedFd<'_>, size: Winsize) -> Result<(), Error> {
        // The terminal that counts is the guest's own; the master here only carries its bytes.
        Ok(self.machine.resize(size.ws_row, size.ws_col)?)
    }

    fn pause(&mut self) -> Result<(), Error> {
        Ok(self.machine.pause()?)
    }

    fn resume(&mut self) -> Result<(), Error> {
        Ok(self.machine.resume()?)
    }

    fn exec(&mut self, process: Process, stdio: Stdio) -> Result<Box<dyn Inside>, Error> {
        Ok(Box::new(Added(self.machine.exec(&(&process).into(), streams(stdio))?)))
    }

    fn update(&mut self, _resources: &LinuxResources) -> Result<(), Error> {
        let reason = "a machine's memory and processors are fixed at its boot";
        Err(Error::Unsupported { flag: "update", runtime: "vm", reason })
    }

    fn pid(&self) -> Option<i32> {
        None
    }

    fn snapshot(&mut self, file: &Path) -> Result<(), Error> {
        Ok(self.machine.snapshot(file, &self.root)?)
    }

    fn debug(&mut self, socket: &Path) -> Result<(), Error> {
        self.machine.debug(socket)?;
        self.gdb = Some(socket.to_owned());
        Ok(())
    }

    fn machine(&self) -> Option<Machine> {
        Some(Machine {
            report: self.machine.report(),
            console: self.machine.console(CONSOLE_LINES),
            gdb: self.gdb.clone(),
        })
    }

    fn delete(self: Box<Self>) -> Result<(), Error> {
        Ok(self.machine.delete()?)
    }
}

/// A process that was added to a machine.
struct Added(microvm::Running);

impl Inside for Added {
    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.0.exit_fd()
    }

    fn wait(&mut self) -> Result<Exit, Error> {
        Ok(exit(self.0.wait()?))
    }

    fn pid(&self) -> Option<i32> {
        None
    }

    fn resizer(&self) -> Option<Resizer> {
        let resize = self.0.resizer();
        Some(Box::new(move |size| resize(size.ws_row, size.ws_col)))
    }
}

fn streams(stdio: Stdio) -> microvm::Stdio {
    match stdio {
        Stdio::Fds { stdin, stdout, stderr } => microvm::Stdio::Fds { stdin, stdout, stderr },
        Stdio::Console(socket) => microvm::Stdio::Console(socket),
    }
}

fn exit(exit: microvm::Exit) -> Exit {
    match exit {
        microvm::Exit::Code(code) => Exit::Code(code),
        microvm::Exit::Signal(signal) => Exit::Signal(signal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_memory_for_a_kernel_is_refused_with_what_is_needed() {
        let limits = Limits { memory: Some(16 * MIB), ..Limits::default() };
        let error = check(&Request { limits, ..Request::default() }).unwrap_err().to_string();
        assert!(error.contains("16 MiB") && error.contains("32 MiB"), "{error}");
    }

    #[test]
    fn guest_memory_is_what_m_says_in_whole_mebibytes() {
        assert_eq!(memory(&Limits::default()), DEFAULT_MEMORY);
        assert_eq!(memory(&Limits { memory: Some(64 * MIB + 1), ..Limits::default() }), 65);
    }
}

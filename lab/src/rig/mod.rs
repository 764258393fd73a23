//! The nested rig: a machine with hardware-like KVM, on any machine.
//!
//! Many laptops, classroom servers and CI machines have no `/dev/kvm`, or one with surprises. The rig is the reference
//! they share: QEMU *emulates* (TCG) an AMD processor with SVM, on it runs the distribution's own unmodified kernel, and
//! that kernel's `kvm-amd` gives a `/dev/kvm` with the semantics of hardware. Its times are those of an emulated CPU, so
//! they compare only with other times from the same rig; what works in it works on hardware.
//!
//! ```text
//!  host ─┬─ QEMU (TCG, EPYC + SVM) ── Debian's cloud kernel ── /dev/kvm (kvm-amd) ── our VMM ── guest kernel
//!        └─ virtiofsd: the host's file tree, read-only, under a tmpfs overlay
//! ```
//!
//! A command in the rig sees the host's files, the same paths, environment and working directory; what it writes is gone
//! afterwards. It also finds what the host may lack: pure cgroup v2 with every controller, and root's full capabilities.
//! PID 1 is a shell script over busybox, on purpose not our own guest init: a reference must not be made of what it checks.
//!
//! Reading order: [`Rig::run`] here, then `initramfs` (what the rig boots into), then `machine` (the two processes).

mod initramfs;
mod machine;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Kernel modules that the rig's PID 1 loads, in order of dependence; one that the kernel has built in is not there to
/// load. Transport, control ports, the host's files, then KVM; the last line is what containers and networks need.
pub const MODULES: &[&str] = &[
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_console",
    "fuse",
    "virtiofs",
    "overlay",
    "irqbypass",
    "ccp",
    "kvm",
    "kvm-amd",
    "loop",
    "tun",
    "llc",
    "stp",
    "bridge",
    "veth",
];

/// A rig: which kernel it boots and how large it is.
#[derive(Debug, Clone)]
pub struct Rig {
    /// The distribution's kernel (a bzImage).
    pub kernel: PathBuf,
    /// The folder with that kernel's modules (`lib/modules/RELEASE`).
    pub modules: PathBuf,
    /// Memory in MiB; at least 512.
    pub memory_mib: u32,
    /// Emulated CPUs; more than the host has only slows it down.
    pub cpus: u8,
    /// After this the rig is switched off and [`RigError::TimedOut`] returned.
    pub timeout: Duration,
    /// Show the rig's kernel messages on standard error.
    pub verbose: bool,
}

/// A command to run in the rig.
#[derive(Debug, Clone)]
pub struct RigCommand {
    /// Program and arguments; the program is looked up in the environment's `PATH`.
    pub argv: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory, a path of the host.
    pub cwd: PathBuf,
}

/// What can go wrong with the rig itself; the command's own failure is its exit code.
#[derive(Debug, thiserror::Error)]
pub enum RigError {
    /// A program that the rig is made of is not installed.
    #[error("rig: {program} is not installed: `apt-get install {package}`")]
    Missing {
        /// The program.
        program: &'static str,
        /// The Debian and Ubuntu package that has it.
        package: &'static str,
    },
    /// The kernel's folder lacks a module that the rig cannot do without.
    #[error("rig: no module {module} below {}: `lab kernel fetch` gets the distribution's kernel with its modules", .folder.display())]
    NoModule {
        /// The module's name.
        module: &'static str,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// A system call failed.
    #[error("rig: {step}: {source}")]
    Io {
        /// What was being done.
        step: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The command did not end in time.
    #[error("rig: nothing came back within {} s (`--timeout` sets the limit); the last console lines:\n{console}", .after.as_secs())]
    TimedOut {
        /// The limit.
        after: Duration,
        /// The end of the rig's console.
        console: String,
    },
    /// The machine ended without reporting the command's exit code.
    #[error("rig: the machine ended before the command did; the last console lines:\n{console}")]
    Died {
        /// The end of the rig's console.
        console: String,
    },
}

/// Puts the step's name on an I/O error.
fn during(step: impl Into<String>) -> impl FnOnce(io::Error) -> RigError {
    |source| RigError::Io { step: step.into(), source }
}

impl Rig {
    /// A rig of the size that the tests use, with this kernel.
    pub fn new(kernel: &Path, modules: &Path) -> Self {
        Self {
            kernel: kernel.to_owned(),
            modules: modules.to_owned(),
            memory_mib: 2048,
            cpus: 2,
            timeout: Duration::from_secs(300),
            verbose: false,
        }
    }

    /// Boots the rig, runs the command with its output passed through `stdout` and `stderr`, and returns its exit code
    /// (128 + n if signal n ended it). Nothing of the rig outlives this process, not even one killed by SIGKILL: its
    /// files are in memory, its socket has no name in the file system, and its children die with it.
    ///
    /// # Errors
    /// What kept the rig itself from running; see [`RigError`].
    pub fn run(
        &self,
        command: &RigCommand,
        stdout: &mut (dyn io::Write + Send),
        stderr: &mut (dyn io::Write + Send),
    ) -> Result<u8, RigError> {
        let initramfs = initramfs::write(&self.modules, command)?;
        machine::run(self, &initramfs, stdout, stderr)
    }
}

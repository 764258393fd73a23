//! What a sandbox is to be.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lab_clock::Timeline;

use super::saved::Saved;
use crate::agent::{RootDevice, Stdio};
use crate::devices::serial::Console;
use crate::explain::Explain;
use crate::kvm::Kvm;
use crate::network::Network;
use crate::sockets::VsockPath;

/// What the guest calls the first virtio-blk device.
const ROOT_DEVICE: &str = "/dev/vda";

/// Where the workload's root file system is.
#[derive(Clone, Debug)]
pub enum RootFs {
    /// On a disk of the image's: what the workload changes is in the guest's memory, and gone with it.
    Disk(RootDisk),
    /// In this directory of the host, below the bundle if it is relative: what the workload changes is there, at once. For KVM
    /// only.
    Directory(PathBuf),
}

impl RootFs {
    pub(super) fn device(&self) -> RootDevice<'_> {
        match self {
            Self::Disk(disk) => RootDevice::Disk { device: ROOT_DEVICE, fs_type: &disk.fs_type },
            Self::Directory(_) => RootDevice::Shared,
        }
    }

    pub(super) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Disk(_) => None,
            Self::Directory(path) => Some(path),
        }
    }
}

/// The image's root file system as a disk.
#[derive(Clone, Debug)]
pub struct RootDisk {
    /// The disk's file; it is never written to.
    pub path: PathBuf,
    /// Its file system, as mount(2) names it, for example `erofs`.
    pub fs_type: String,
}

/// The guest's kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// A `vmlinux` or a `bzImage`.
    pub image: PathBuf,
    /// Modules that PID 1 loads, in this order: for kernels that have virtio or the root's file system as modules.
    pub modules: Vec<PathBuf>,
    /// Its release, as `uname -r` prints it: for messages.
    pub release: String,
}

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accel {
    /// KVM where `/dev/kvm` can be used, otherwise QEMU.
    #[default]
    Auto,
    /// KVM or an error.
    Kvm,
    /// QEMU's translator (TCG): anywhere, slowly.
    Tcg,
}

/// What to create.
#[derive(Debug)]
pub struct CreateOptions {
    /// The folder below which the sandbox keeps its run-time files.
    pub root: PathBuf,
    /// The sandbox's name, unique below `root`.
    pub id: String,
    /// The bundle: a folder with a `config.json`.
    pub bundle: PathBuf,
    /// The workload's standard streams.
    pub stdio: Stdio,
    /// The root file system.
    pub root_fs: RootFs,
    /// The kernel.
    pub kernel: Kernel,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// vCPUs.
    pub vcpus: u8,
    /// Its network.
    pub network: Network,
    /// What runs it.
    pub accel: Accel,
    /// The folder of snapshots. With it, the sandbox starts from a snapshot of its kind (same kernel, disk, size and set-up,
    /// whatever the command) if there is one, and leaves one for the next if there is none. For KVM only.
    pub warm: Option<PathBuf>,
    /// The snapshot of a sandbox whose workload ran, to go on from: nothing is booted, and what the bundle says of the process is
    /// the snapshot's. For KVM only.
    pub saved: Option<Saved>,
    /// Where its programs and the host's reach each other by sockets. For KVM only.
    pub vsock: Option<VsockPath>,
    /// Where to mark the steps.
    pub timeline: Option<Arc<Timeline>>,
}

/// For looking at a guest more closely than its owner needs to.
#[derive(Default)]
pub struct Diagnostics {
    /// Where the kernel's console output goes, besides the tail that is always kept.
    pub console: Console,
    /// More words for the kernel command line.
    pub command_line: Vec<String>,
    /// Sample where the first vCPU is.
    pub profile: bool,
    /// Where the machine is explained, as it runs.
    pub explain: Option<Explain>,
    /// A Unix socket, to be made, where GDB may connect. For KVM only.
    pub gdb: Option<PathBuf>,
    /// The guest waits for GDB before its first instruction; one that starts from a snapshot does not.
    pub gdb_first: bool,
}

/// KVM where it can be used.
pub(crate) fn resolve(accel: Accel) -> Accel {
    match accel {
        Accel::Auto if Kvm::open().is_err() => Accel::Tcg,
        Accel::Auto => Accel::Kvm,
        chosen => chosen,
    }
}

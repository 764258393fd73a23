//! Everything that can go wrong, each with the operation, the object and the likely fix.

use std::io;
use std::path::PathBuf;

/// Why a virtual machine could not be made or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `/dev/kvm` cannot be opened.
    #[error("cannot open /dev/kvm: {source}; {}", fix_for_opening_kvm(.source))]
    OpenKvm {
        /// What `open(2)` said.
        source: io::Error,
    },
    /// KVM lacks something that the VMM needs.
    #[error(
        "this KVM lacks {what}; a kernel of 4.14 or later with KVM for x86-64 is needed, or use --accel tcg"
    )]
    KvmLacks {
        /// The missing capability.
        what: &'static str,
    },
    /// A KVM ioctl failed.
    #[error("{ioctl} failed: {source}")]
    Kvm {
        /// The ioctl, by its name in the KVM API.
        ioctl: &'static str,
        /// The errno.
        source: io::Error,
    },
    /// Guest memory cannot be had.
    #[error("cannot map {mib} MiB of guest memory: {reason}; give the VM less with -m")]
    Memory {
        /// The size asked for.
        mib: u32,
        /// What the system said.
        reason: String,
    },
    /// The VM's memory is too small for what must be in it.
    #[error("{mib} MiB are too little memory for this kernel: it needs at least {needed} MiB; raise -m")]
    MemoryTooSmall {
        /// The size asked for.
        mib: u64,
        /// The least that would do.
        needed: u64,
    },
    /// The VMM itself touched guest memory where there is none: the guest gave a wrong address.
    #[error("{what} is outside guest memory ({reason})")]
    GuestMemory {
        /// What was to be read or written.
        what: &'static str,
        /// The address error.
        reason: String,
    },
    /// A file cannot be opened, read or written.
    #[error("cannot {operation} {path}: {source}")]
    File {
        /// What was to be done, as a verb.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel file cannot be booted.
    #[error(
        "{path} is not a kernel that can be booted: {reason}; give a vmlinux (ELF) or a bzImage for x86-64"
    )]
    Kernel {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel command line does not fit.
    #[error("the kernel command line is longer than {max} bytes; give fewer devices or shorter options")]
    CommandLine {
        /// The limit.
        max: usize,
    },
    /// Two devices claim the same addresses.
    #[error("the window at {base:#x} of {len:#x} bytes is empty or overlaps another device's; see layout.rs")]
    BusOverlap {
        /// Its first address.
        base: u64,
        /// Its length.
        len: u64,
    },
    /// A device's back end cannot be set up.
    #[error("cannot set up the {device} device: {reason}")]
    Device {
        /// The device.
        device: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The guest, or the conversation with it, failed.
    #[error(transparent)]
    Agent(#[from] crate::agent::AgentError),
    /// A system call that should not fail did.
    #[error("cannot {operation}: {source}")]
    System {
        /// What was to be done.
        operation: &'static str,
        /// The errno.
        source: io::Error,
    },
}

impl Error {
    /// A failed KVM ioctl, for `map_err`.
    pub(crate) fn kvm(ioctl: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Kvm { ioctl, source: error.into() }
    }

    /// A failed file operation, for `map_err`.
    pub(crate) fn file(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { operation, path: path.into(), source }
    }

    /// A failed system call, for `map_err`.
    pub(crate) fn system<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::System { operation, source: error.into() }
    }
}

fn fix_for_opening_kvm(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "load the kvm_intel or kvm_amd module, enable virtualisation in the firmware, or use --accel tcg"
        }
        io::ErrorKind::PermissionDenied => {
            "add yourself to the group that owns it (usually kvm), or use --accel tcg"
        }
        _ => "check that KVM works on this machine, or use --accel tcg",
    }
}

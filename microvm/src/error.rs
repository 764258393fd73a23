//! Everything that can go wrong, each with the operation, the object and the likely fix.

use std::io;
use std::path::PathBuf;

use crate::agent::AgentError;
use crate::vcpu::End;

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
    /// A snapshot cannot be restored.
    #[error("the snapshot {path} cannot be used: {reason}; remove it and take it again")]
    Snapshot {
        /// Its file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A device's back end cannot be set up.
    #[error("cannot set up the {device} device: {reason}")]
    Device {
        /// The device.
        device: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The bundle cannot be used.
    #[error("{path}: {reason}; an OCI bundle needs a valid config.json")]
    Bundle {
        /// Its configuration.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A sandbox's id that is none.
    #[error("{id:?} is no sandbox id: use letters, digits and _ - + . and do not begin with a dot")]
    BadId {
        /// What was given.
        id: String,
    },
    /// A field of the configuration has a value that cannot be carried out.
    #[error("{field}: {reason}")]
    Config {
        /// The field, as a path.
        field: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A machine of this id exists.
    #[error("container {id} exists already; delete it first, or choose another id")]
    Exists {
        /// The id.
        id: String,
    },
    /// No machine of this id exists.
    #[error("container {id} does not exist below {}; `list` shows those that do", .root.display())]
    Missing {
        /// The id.
        id: String,
        /// The folder that was searched.
        root: PathBuf,
    },
    /// The operation does not fit the state that the machine is in.
    #[error("cannot {operation} container {id}: it is {status}")]
    State {
        /// What was asked for.
        operation: &'static str,
        /// The machine.
        id: String,
        /// The state it is in.
        status: String,
    },
    /// As [`Error::State`], where the machine itself says so.
    #[error("cannot {operation} the container: it is {status}")]
    Wrong {
        /// What was asked for.
        operation: &'static str,
        /// The state it is in.
        status: String,
    },
    /// A program of the engine failed.
    #[error("hooks.{kind}[{number}] ({}): {reason}", .path.display())]
    Hook {
        /// When it runs.
        kind: &'static str,
        /// Which of them.
        number: usize,
        /// The program.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The monitor says so.
    #[error("{message}")]
    Told {
        /// What.
        message: String,
        /// The exit code that goes with it.
        code: u8,
    },
    /// The monitor ended without a word.
    #[error("container {id}: its monitor died; was it killed, or is the host out of memory?")]
    MonitorDied {
        /// The machine.
        id: String,
    },
    /// There is no kernel to boot.
    #[error(
        "no kernel in {folders:?}; build one by `lab kernel build`, or name a file by --kernel or LAB_VM_KERNEL"
    )]
    NoKernel {
        /// Where one was looked for.
        folders: Vec<PathBuf>,
    },
    /// QEMU is needed and not there.
    #[error(
        "qemu-system-x86_64 is not installed; install the package qemu-system-x86, or use a machine with /dev/kvm"
    )]
    NoQemu,
    /// The guest ended before its workload did.
    #[error("the guest died: {}{}", describe(.how), last_words(.console))]
    GuestDied {
        /// How.
        how: End,
        /// The last lines of its console.
        console: Vec<String>,
    },
    /// The guest runs but its PID 1 does not answer.
    #[error("the guest did not come up within {seconds} s{}; give it more memory or another kernel", last_words(.console))]
    GuestSilent {
        /// How long we waited.
        seconds: u64,
        /// The last lines of its console.
        console: Vec<String>,
    },
    /// The conversation with the guest failed, or the guest could not do what was asked.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// A network device of the host could not be made.
    #[error("cannot make the network device {name}: {source}; {}", fix_for_tap(source))]
    Tap {
        /// Its name.
        name: String,
        /// Why not.
        source: io::Error,
    },
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
    /// The exit code by which docker tells such an error: 127 for a command that does not exist, 126 for one that cannot be
    /// executed, 125 for everything that is not the workload's doing.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Agent(error) => error.exit_code(),
            Self::Told { code, .. } => *code,
            _ => 125,
        }
    }

    /// The last lines of the guest's console, where the guest is to blame.
    pub fn console(&self) -> &[String] {
        match self {
            Self::GuestDied { console, .. } | Self::GuestSilent { console, .. } => console,
            _ => &[],
        }
    }

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

fn fix_for_tap(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "load the module tun",
        io::ErrorKind::PermissionDenied => "run as root, or without a network",
        _ => "remove the device of this name if it is no longer needed (ip link del)",
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

fn describe(end: &End) -> String {
    match end {
        End::Asked(_) => "it reset or powered off by itself, as a kernel does after a panic".into(),
        End::TripleFault => "triple fault (its kernel destroyed its own memory or tables)".into(),
        End::Stuck(stuck) => format!(
            "KVM cannot execute the instruction {:02x?} at {:#x}; build a kernel without it, or use --accel tcg",
            stuck.instruction, stuck.rip
        ),
        End::Refused(reason) => reason.clone(),
        End::Stopped => "it was stopped".into(),
    }
}

/// The most telling line of a console: why the kernel panicked, otherwise what came last.
fn last_words(console: &[String]) -> String {
    let panic = console.iter().find_map(|line| line.find("Kernel panic").map(|at| &line[at..]));
    match panic.or(console.last().map(String::as_str)) {
        Some(line) => format!("; its console said: {line}"),
        None => "; its console said nothing".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_guest_is_told_in_one_line_with_the_panic_if_there_was_one() {
        let console =
            ["[    1.0] Kernel panic - not syncing: no init", "[    1.1] Call Trace:"].map(String::from);
        let text = Error::GuestDied { how: End::TripleFault, console: console.into() }.to_string();
        assert!(
            text.contains("triple fault") && text.ends_with("Kernel panic - not syncing: no init"),
            "{text}"
        );
        assert!(!text.contains('\n'));
    }
}

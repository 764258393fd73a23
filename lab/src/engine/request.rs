//! What the user asked for, as data: filled by the flags of `lab run`, or from a stored container's configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::limits::Limits;

/// Which wall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runtime {
    /// Namespaces and control groups of the host's kernel.
    #[default]
    Container,
    /// A virtual machine with a kernel of its own.
    Vm,
}

impl Runtime {
    /// Both walls.
    pub const ALL: [Self; 2] = [Self::Container, Self::Vm];

    /// The name that flags and reports use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Vm => "vm",
        }
    }
}

/// By what a virtual machine's processor is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accelerator {
    /// KVM where there is one, else QEMU's emulation.
    #[default]
    Auto,
    /// `/dev/kvm`.
    Kvm,
    /// QEMU's TCG: emulation, for machines without `/dev/kvm`.
    Tcg,
}

/// One sandbox to run.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The image: a name or a digest.
    pub image: String,
    /// The command; empty takes the image's.
    pub command: Vec<String>,
    /// Replaces the image's ENTRYPOINT; an empty list leaves none.
    pub entrypoint: Option<Vec<String>>,
    /// Which wall.
    pub runtime: Runtime,
    /// `K=V`, or `K` to remove a variable of the image; resolved from `-e` and `--env-file` by [`super::process`].
    pub environment: Vec<String>,
    /// Replaces the image's WORKDIR.
    pub workdir: Option<String>,
    /// Replaces the image's USER.
    pub user: Option<String>,
    /// What it may use.
    pub limits: Limits,
    /// Whether standard input reaches the workload; else it reads from /dev/null.
    pub interactive: bool,
    /// Whether the workload has a terminal.
    pub terminal: bool,
    /// The name of the sandbox, for people.
    pub name: Option<String>,
    /// The host name; the first 12 digits of the id where not given.
    pub hostname: Option<String>,
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// Which kernel a virtual machine boots; the lab's choice where not given.
    pub kernel: Option<String>,
    /// By what a virtual machine's processor is run.
    pub accelerator: Accelerator,
    /// Whether a virtual machine starts from a snapshot of its kind, and leaves one for the next.
    pub warm: bool,
    /// The folder of a snapshot that a virtual machine goes on from, instead of booting.
    pub saved: Option<PathBuf>,
    /// The socket, to be made, by which the host's programs reach those in a virtual machine.
    pub vsock: Option<PathBuf>,
    /// The socket, to be made, where GDB may connect to a virtual machine.
    pub gdb: Option<PathBuf>,
    /// Whether a virtual machine is explained on standard error as it runs: its memory, its first registers, its exits.
    pub explain: bool,
    /// Whether nothing is said about progress.
    pub quiet: bool,
    /// What differs from the default isolation.
    pub isolation: Choices,
}

/// What a user may change about the default isolation of a container.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// Folders and files of the host, and tmpfs, to be seen inside. In this order.
    pub mounts: Vec<Extra>,
    /// Capabilities beside the default ones, as `NET_ADMIN`; `ALL` is all.
    pub cap_add: Vec<String>,
    /// Default capabilities that are taken away; `ALL` is all.
    pub cap_drop: Vec<String>,
    /// Every capability and device, nothing masked, no system call filter.
    pub privileged: bool,
    /// Name, soft and hard limit of getrlimit(2), as `nofile`.
    pub ulimits: Vec<(String, u64, u64)>,
    /// Settings below /proc/sys, by their names with dots.
    pub sysctls: BTreeMap<String, String>,
    /// Further groups of the user, by name or number.
    pub groups: Vec<String>,
    /// Bytes of /dev/shm.
    pub shm_size: Option<u64>,
    /// Which network.
    pub network: Network,
    /// Whose processes are seen.
    pub pid: Network,
    /// Whose System V objects and message queues are seen.
    pub ipc: Network,
    /// Whose host name it has.
    pub uts: Network,
    /// Whether the host's control groups are seen.
    pub host_cgroups: bool,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Further rules of the device control group, as `c 42:* rwm`.
    pub device_rules: Vec<String>,
    /// Whether set-user-id programs may gain rights.
    pub new_privileges: bool,
    /// Whether system calls are not filtered.
    pub seccomp_unconfined: bool,
    /// Which system calls are allowed, in docker's JSON; the default profile where not given.
    pub seccomp: Option<String>,
    /// The AppArmor profile.
    pub apparmor: Option<String>,
    /// Whether nothing of /proc and /sys is hidden or read-only.
    pub unmasked: bool,
    /// The program that is process 1 and has the command for a child.
    pub init: Option<PathBuf>,
    /// What the OOM killer adds to this container's badness.
    pub oom_score: Option<i32>,
    /// The NIS domain name.
    pub domain: Option<String>,
}

/// A mount that the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra {
    /// Where it is seen.
    pub target: String,
    /// The host's folder or file; none is a new tmpfs.
    pub source: Option<PathBuf>,
    /// Options of mount(8), as `ro`.
    pub options: Vec<String>,
}

/// A device of the host, or a folder of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The host's path.
    pub source: PathBuf,
    /// The path inside.
    pub target: PathBuf,
    /// What is allowed: letters of `rwm`, the last for mknod(2).
    pub rights: String,
}

/// The network namespace of a container, or its namespace of another kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// A new one.
    #[default]
    Own,
    /// The host's.
    Host,
    /// That of a process, by its file such as `/proc/PID/ns/net`.
    Join(PathBuf),
}

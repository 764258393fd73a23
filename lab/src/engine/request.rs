//! What the user asked for: the flags of `lab run`, as data. The command line fills it; later the daemon's API will.

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
    /// Replaces the image's ENTRYPOINT.
    pub entrypoint: Option<String>,
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
    /// Whether nothing is said about progress.
    pub quiet: bool,
}

//! What a caller says about a container beside its bundle.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use lab_clock::Timeline;

use crate::spec::Spec;

/// Where the workload's standard streams go.
#[derive(Debug, Default)]
pub enum Stdio {
    /// To the caller's own.
    #[default]
    Inherit,
    /// To these descriptors.
    Fds {
        /// Becomes descriptor 0.
        stdin: OwnedFd,
        /// Becomes descriptor 1.
        stdout: OwnedFd,
        /// Becomes descriptor 2.
        stderr: OwnedFd,
    },
    /// To a new terminal, whose master side is sent over this socket (SCM_RIGHTS, `unix(7)`), as with an engine's
    /// `--console-socket`. Needs `process.terminal` in the configuration.
    Console(UnixStream),
}

/// Where the root file system comes from.
#[derive(Clone, Debug, Default)]
pub enum RootFs {
    /// `root.path` of the bundle.
    #[default]
    Bundle,
    /// An overlay, mounted inside the container's own mount namespace: whatever happens, it cannot be left behind.
    Overlay {
        /// Read-only layers, the topmost first.
        lower: Vec<PathBuf>,
        /// Where the container's changes go.
        upper: PathBuf,
        /// Overlay's own scratch directory, empty, on the file system of `upper`.
        work: PathBuf,
    },
}

/// Who makes a container's cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cgroups {
    /// This runtime, as directories (`cgroups(7)`).
    #[default]
    Files,
    /// systemd, as a unit; `linux.cgroupsPath` then is `slice:prefix:name`.
    Systemd,
    /// Nobody: the container stays in the caller's, without limits.
    None,
}

/// Everything that [`create`](crate::create) needs to know.
#[derive(Debug)]
pub struct CreateOptions {
    /// The directory for state files, one subdirectory a container.
    pub root: PathBuf,
    /// The container's name, unique below `root`.
    pub id: String,
    /// The directory that holds `config.json`.
    pub bundle: PathBuf,
    /// What [`spec::load`](crate::spec::load) read there, if it did.
    pub config: Option<Spec>,
    /// The workload's standard streams.
    pub stdio: Stdio,
    /// The root file system.
    pub rootfs: RootFs,
    /// Where to mark the moments of the container's life.
    pub timeline: Option<Arc<Timeline>>,
    /// A file to write the first process's id to, as this process sees it.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on the workload keeps.
    pub preserve_fds: u32,
    /// Who makes the cgroup.
    pub cgroups: Cgroups,
    /// Whether the workload gets a session keyring of its own (`keyrings(7)`), or the caller's.
    pub new_keyring: bool,
    /// Where the host's root is a ramfs: move the root instead of `pivot_root(2)`.
    pub no_pivot: bool,
}

impl CreateOptions {
    /// The usual: streams of the caller, root file system of the bundle.
    pub fn new(root: impl Into<PathBuf>, id: impl Into<String>, bundle: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            id: id.into(),
            bundle: bundle.into(),
            config: None,
            stdio: Stdio::Inherit,
            rootfs: RootFs::Bundle,
            timeline: None,
            pid_file: None,
            preserve_fds: 0,
            cgroups: Cgroups::Files,
            new_keyring: true,
            no_pivot: false,
        }
    }
}

//! What can go wrong between host and guest.

use nix::errno::Errno;

/// Why a session, or a process in it, failed. Cheap to copy, because one reason may end several processes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The guest said something that the protocol does not allow.
    #[error("the guest broke the agent protocol: {what}; its init is not ours, or was taken over")]
    Protocol {
        /// The violation.
        what: String,
    },
    /// The guest's init speaks another version.
    #[error("the guest's init speaks version {theirs} of the agent protocol, not {ours}; rebuild the guest")]
    Version {
        /// Its version.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// The stream to the guest ended: the VM is gone, or its init is.
    #[error("the guest hung up")]
    HungUp,
    /// The guest did not say that it is up.
    #[error("the guest's init did not answer within {seconds} s; see the console's output")]
    Silent {
        /// How long we waited.
        seconds: u64,
    },
    /// The guest could not build the sandbox.
    #[error("the guest cannot set up the sandbox: {step}: {}", .errno.desc())]
    Setup {
        /// What it was doing, with its object.
        step: String,
        /// Why not.
        errno: Errno,
    },
    /// The command does not exist in the image.
    #[error(
        "exec {command:?}: executable file not found in $PATH or root file system (no such file or directory)"
    )]
    NotFound {
        /// The first argument.
        command: String,
    },
    /// The command is there but cannot be executed.
    #[error("exec {command:?}: {}", exec_reason(*.errno))]
    NotExecutable {
        /// The first argument.
        command: String,
        /// Why not.
        errno: Errno,
    },
    /// The guest could not prepare or start a process.
    #[error("the guest cannot start the process: {step}: {}", .errno.desc())]
    Process {
        /// What it was doing, with its object.
        step: String,
        /// Why not.
        errno: Errno,
    },
    /// The configuration asks for something that cannot be sent to the guest.
    #[error("config.json: {what}")]
    Config {
        /// What, and how to fix it.
        what: String,
    },
    /// The host's side failed.
    #[error("cannot {operation}: {}", .errno.desc())]
    System {
        /// What was to be done.
        operation: &'static str,
        /// Why not.
        errno: Errno,
    },
}

/// The reason in the words that engines look for: dockerd makes "permission denied" the exit code 126.
fn exec_reason(errno: Errno) -> String {
    match errno {
        Errno::EACCES => {
            "permission denied; is it a file, executable for process.user, and its mount not noexec?".into()
        }
        Errno::ENOEXEC => {
            "exec format error; it is no program for this machine, or a script without #! line".into()
        }
        errno => errno.desc().to_lowercase(),
    }
}

impl AgentError {
    /// The exit code that docker would give: 127 for a command that does not exist, 126 for one that cannot be
    /// executed, 125 for everything that is not the workload's doing.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            _ => 125,
        }
    }

    pub(super) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol { what: what.into() }
    }

    pub(super) fn config(what: impl Into<String>) -> Self {
        Self::Config { what: what.into() }
    }

    /// A failed system call, for `map_err`.
    pub(super) fn system<E: Into<std::io::Error>>(operation: &'static str) -> impl FnOnce(E) -> Self {
        move |error| {
            let errno = Errno::from_raw(error.into().raw_os_error().unwrap_or_default());
            Self::System { operation, errno }
        }
    }
}

//! What can go wrong, and whose fault it was.

use std::io;
use std::path::PathBuf;

/// An operation of the runtime that failed. Every message names the operation, the object and the likely fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bundle's `config.json` is missing or is not one.
    #[error("read {}: {reason}; a bundle is a directory with a config.json (OCI runtime specification)", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Why it could not be used.
        reason: String,
    },
    /// A field of `config.json` has a value that cannot be carried out.
    #[error("{field}: {reason}")]
    Config {
        /// The field, as a path: `process.capabilities.bounding[3]`.
        field: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The container id is not a usable name.
    #[error("container id {id:?}: use 1 to 128 letters, digits and the characters _ + - . (and not . or ..)")]
    Id {
        /// The id that was given.
        id: String,
    },
    /// A container of this id exists.
    #[error("container {id} exists already; delete it first, or choose another id")]
    Exists {
        /// The id.
        id: String,
    },
    /// No container of this id exists.
    #[error("container {id} does not exist below {}; `list` shows those that do", root.display())]
    Missing {
        /// The id.
        id: String,
        /// The state directory that was searched.
        root: PathBuf,
    },
    /// The operation does not fit the state the container is in.
    #[error("cannot {operation} container {id}: it is {status}")]
    State {
        /// What was asked for.
        operation: &'static str,
        /// The container.
        id: String,
        /// The state it is in.
        status: String,
    },
    /// The command is not in the container's root file system.
    #[error(
        "exec {command:?}: executable file not found in $PATH or root file system (no such file or directory)"
    )]
    NotFound {
        /// `process.args[0]`.
        command: String,
    },
    /// The command is there, but the kernel would not run it.
    #[error("exec {command:?}: {}", exec_reason(source))]
    NotExecutable {
        /// `process.args[0]`.
        command: String,
        /// What `execve(2)` said.
        source: io::Error,
    },
    /// A step of setting up or running the container failed.
    #[error("{step} {object}: {source}{hint}")]
    Step {
        /// The operation, in words.
        step: &'static str,
        /// What it was done to.
        object: String,
        /// What the kernel said.
        source: io::Error,
        /// The likely fix, beginning with "; ", or nothing.
        hint: &'static str,
    },
    /// The container's first process ended before the workload could begin, without a word (for example killed).
    #[error(
        "container {id}: its first process died during {during}; a memory limit below about 256 kB kills it too"
    )]
    Died {
        /// The container.
        id: String,
        /// What was going on.
        during: &'static str,
    },
    /// The exit status belongs to another process's child.
    #[error("container {id}: only the process that created it can read its exit status")]
    NotOurs {
        /// The container.
        id: String,
    },
}

/// The result of an operation of the runtime.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The exit code engines give this error: 127 for a command that does not exist, 126 for one that cannot be
    /// executed, 125 for everything that is not the workload's own doing.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::NotFound { .. } => 127,
            Error::NotExecutable { .. } => 126,
            _ => 125,
        }
    }

    pub(crate) fn config(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Config { field: field.into(), reason: reason.into() }
    }

    #[allow(clippy::needless_pass_by_value)] // names, numbers and displays of paths alike
    pub(crate) fn step(step: &'static str, object: impl ToString, source: impl Into<io::Error>) -> Self {
        Error::Step { step, object: object.to_string(), source: source.into(), hint: "" }
    }
}

/// The reason in the words that engines look for (dockerd makes "permission denied" the exit code 126), and the fix.
fn exec_reason(source: &io::Error) -> String {
    match source.raw_os_error() {
        Some(libc::EACCES) => {
            "permission denied; is it a file, executable for process.user, and its mount not noexec?"
                .to_owned()
        }
        Some(libc::ENOEXEC) => {
            "exec format error; it is no program for this machine, or a script without #! line".to_owned()
        }
        _ => source.to_string(),
    }
}

/// Adds the operation and the object to a system call's error.
pub(crate) trait Context<T> {
    fn context(self, step: &'static str, object: impl ToString) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, step: &'static str, object: impl ToString) -> Result<T> {
        self.map_err(|source| Error::step(step, object, source))
    }
}

//! What can go wrong before, while and after a workload runs, and which exit code tells it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::limits::LEAST_MEMORY;
use crate::paths;

/// An error of the engine. Its message is one line that names the thing and, where there is one, the fix.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The image could not be used.
    #[error(transparent)]
    Image(#[from] crate::image::Error),
    /// The container wall failed.
    #[error(transparent)]
    Container(#[from] container::Error),
    /// The guest's kernel could not be used.
    #[error(transparent)]
    Kernel(#[from] crate::kernel::Error),
    /// The virtual machine wall failed.
    #[error(transparent)]
    Vm(#[from] microvm::Error),
    /// There is no place for files.
    #[error(transparent)]
    Paths(#[from] paths::Error),

    /// Neither the image nor the user says what to run.
    #[error("image {image} has no command of its own: give one, `lab run {image} COMMAND`")]
    NoCommand {
        /// The image.
        image: String,
    },
    /// The command is the empty string.
    #[error("the command is empty: give the name of a program")]
    EmptyCommand,
    /// `-w` or WORKDIR is relative.
    #[error("working directory {path}: not an absolute path; begin it with /")]
    RelativeDirectory {
        /// The path.
        path: String,
    },
    /// `-e` or a line of `--env-file` has no name, or one with blanks.
    #[error("environment variable '{text}': not NAME=VALUE or NAME")]
    BadVariable {
        /// The text.
        text: String,
    },
    /// `--env-file` cannot be read.
    #[error("environment file {}: {source}", path.display())]
    EnvironmentFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// `--name` does not follow the rule.
    #[error("name '{name}': use 2 to 128 letters, digits and _ . - and begin with a letter or digit")]
    BadName {
        /// The name.
        name: String,
    },
    /// `--name` is taken.
    #[error("name {name} is in use by sandbox {id}; choose another or wait until that one ends")]
    NameInUse {
        /// The name.
        name: String,
        /// Whose it is.
        id: String,
    },
    /// `--hostname` does not follow the rule.
    #[error("host name '{name}': use 1 to 63 letters, digits and _ . -")]
    BadHostname {
        /// The name.
        name: String,
    },

    /// Another user than root in a container that is made without root.
    #[error(
        "user {uid}:{gid}: without root, a container has the one user 0:0, who is you outside; run it as root, or with --user 0:0"
    )]
    OnlyRoot {
        /// The user asked for.
        uid: u32,
        /// The group asked for.
        gid: u32,
    },

    /// `-m` is below the minimum.
    #[error("memory limit of {asked} bytes: the minimum memory limit is {} MiB, such as -m 64m", LEAST_MEMORY >> 20)]
    MemoryTooSmall {
        /// Bytes asked for.
        asked: u64,
    },
    /// `-m` is below what a guest's kernel needs.
    #[error(
        "memory of {asked} MiB: too little for a virtual machine, whose kernel lives in it too; the minimum is {least} MiB, \
         such as -m 128m"
    )]
    VmMemoryTooSmall {
        /// Mebibytes asked for.
        asked: u64,
        /// Mebibytes needed.
        least: u64,
    },
    /// `--memory-swap` without `-m`.
    #[error("--memory-swap limits memory and swap together: give -m as well")]
    SwapWithoutMemory,
    /// `--memory-swap` below `-m`.
    #[error("--memory-swap counts memory and swap together, so it cannot be less than -m")]
    SwapBelowMemory,
    /// `--cpus` out of range.
    #[error("--cpus: the range is from 0.01 to {online}, as this machine has {online} CPUs")]
    CpusOutOfRange {
        /// CPUs of this machine.
        online: u64,
    },
    /// A flag that this wall cannot honour.
    #[error("{flag} does not work with --runtime {runtime} yet: {reason}")]
    Unsupported {
        /// The flag.
        flag: &'static str,
        /// The wall.
        runtime: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// No kernel for virtual machines is at hand.
    #[error("no guest kernel {}: `lab kernel fetch` takes the distribution's, `lab kernel build` makes the lean one", choice.as_deref().unwrap_or("at hand"))]
    NoKernel {
        /// Which one was asked for.
        choice: Option<String>,
    },
    /// `-it` where standard input is no terminal.
    #[error("the input device is not a terminal; leave out -t, or run it from a terminal")]
    NoTerminal,

    /// What was asked for makes no sense.
    #[error("{message}")]
    Bad {
        /// What, and what would make sense.
        message: String,
    },
    /// There is no such object.
    #[error("No such {kind}: {name}")]
    Missing {
        /// What kind of object.
        kind: &'static str,
        /// As it was asked for.
        name: String,
    },
    /// It does not fit the state that something is in.
    #[error("{message}")]
    Conflict {
        /// What is in the way, and what would help.
        message: String,
    },
    /// It is not allowed as things stand.
    #[error("{message}")]
    Forbidden {
        /// What is in the way.
        message: String,
    },
    /// It is so already.
    #[error("{message}")]
    Already {
        /// What is so.
        message: String,
    },
    /// The workload's command does not exist or cannot be executed; told by a monitor.
    #[error("{message}")]
    Command {
        /// Which command, and why not.
        message: String,
        /// 127 or 126.
        code: u8,
    },
    /// The monitor of a container failed.
    #[error("{message}")]
    Monitor {
        /// What it said.
        message: String,
    },
    /// The engine's state cannot be read or written.
    #[error("the engine's state, {}: {source}", path.display())]
    State {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// A part of the bundle could not be put together.
    #[error("write the bundle: {0}")]
    Bundle(#[from] oci_spec::OciSpecError),
    /// The bundle could not be written as JSON.
    #[error("write the bundle's config.json: {0}")]
    Json(#[from] serde_json::Error),
    /// A system call failed.
    #[error("{step} {object}: {source}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// To what.
        object: String,
        /// Why not.
        source: io::Error,
    },
    /// The user ended it before the workload began.
    #[error("interrupted before the workload began")]
    Interrupted {
        /// By this signal.
        signal: i32,
    },
}

impl Error {
    /// The exit code that tells this error: 127 for a command that is not there, 126 for one that cannot be executed, 125
    /// for everything that is not the workload's affair; docker's convention.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Container(error) => error.exit_code(),
            Self::Vm(error) => error.exit_code(),
            Self::Interrupted { signal } => (128 + signal) as u8,
            Self::Command { code, .. } => *code,
            _ => 125,
        }
    }

    /// The last lines of the guest's console, where the guest is to blame.
    pub fn console(&self) -> &[String] {
        match self {
            Self::Vm(error) => error.console(),
            _ => &[],
        }
    }

    /// What was asked for makes no sense.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::Bad { message: message.into() }
    }

    /// Something is in the way.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::Conflict { message: message.into() }
    }

    /// It is not allowed as things stand: docker's code 403.
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::Forbidden { message: message.into() }
    }

    /// There is no container of this name or id.
    pub(crate) fn no_container(name: &str) -> Self {
        Self::Missing { kind: "container", name: name.to_owned() }
    }

    /// An operation on an object that failed.
    pub(crate) fn io(
        step: &'static str,
        object: impl std::fmt::Display,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io { step, object: object.to_string(), source: source.into() }
    }
}

/// Adds the operation and the object to a system call's error.
pub(crate) trait Context<T> {
    fn context(self, step: &'static str, object: impl std::fmt::Display) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, step: &'static str, object: impl std::fmt::Display) -> Result<T, Error> {
        self.map_err(|source| Error::io(step, object, source))
    }
}

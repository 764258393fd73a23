//! Why a lesson could not be graded. What is wrong with the student's program is no error: it is a verdict.

use std::fmt::Display;
use std::io;
use std::path::Path;

use thiserror::Error as ThisError;

/// Why a lesson could not be started, checked or exported.
#[derive(Debug, ThisError)]
pub enum Error {
    /// There is no such lesson.
    #[error("no lesson '{name}'; `lab lesson list` shows them")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The folder has no program to check.
    #[error("no {path}: `lab lesson start {lesson}` makes it")]
    NoProgram {
        /// Where it was looked for.
        path: String,
        /// The lesson.
        lesson: String,
    },
    /// The folder for a lesson has something in it.
    #[error("{path} is there already; name another folder: `lab lesson start {lesson} FOLDER`")]
    Exists {
        /// The folder.
        path: String,
        /// The lesson.
        lesson: String,
    },
    /// A lesson's texts are not what they should be: a mistake in the book.
    #[error("lesson '{lesson}': {reason}")]
    Texts {
        /// The lesson.
        lesson: String,
        /// What is wrong.
        reason: String,
    },
    /// An operation of the system failed.
    #[error("cannot {operation} {object}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// What the system said.
        source: io::Error,
    },
    /// The compiler cannot be run.
    #[error("cannot run rustc: {0}; install Rust (rustup.rs) or set RUSTC to its path")]
    NoCompiler(io::Error),
    /// The course's own helper does not compile here.
    #[error("the course's helper does not compile with this rustc: {0}")]
    Helper(String),
    /// The sandbox could not be made.
    #[error("cannot make the lesson's sandbox: {0}")]
    Sandbox(#[from] container::Error),
    /// Its specification could not be written.
    #[error("cannot write the lesson's sandbox: {0}")]
    Spec(#[from] oci_spec::OciSpecError),
    /// The grader's virtual machine could not be made.
    #[error("cannot make the lesson's virtual machine: {0}; `lab doctor` says what /dev/kvm lacks")]
    Machine(#[from] microvm::Error),
    /// No place for data.
    #[error(transparent)]
    Place(#[from] crate::paths::Error),
    /// A result cannot be read.
    #[error("{path} is no result of a lesson: {reason}; remove it and check again")]
    Result {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// Names what was tried on what.
pub(super) trait Context<T> {
    fn context(self, operation: &'static str, object: impl Display) -> Result<T, Error>;

    fn at(self, operation: &'static str, path: &Path) -> Result<T, Error>
    where
        Self: Sized,
    {
        self.context(operation, path.display())
    }
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, operation: &'static str, object: impl Display) -> Result<T, Error> {
        self.map_err(|source| Error::Io { operation, object: object.to_string(), source: source.into() })
    }
}

//! What can go wrong with kernels, and what would help.

use std::io;
use std::path::{Path, PathBuf};

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{action} {}: {source}", .path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no place for the cache.
    #[error(transparent)]
    NoPlace(#[from] crate::paths::Error),
    /// No kernel source on this machine.
    #[error(
        "no kernel source below /usr/src: `apt-get install linux-source`, or name a tree's archive with --source"
    )]
    NoSource,
    /// The file given as source is not a kernel's source.
    #[error("{} is no archive of a kernel's source: expected linux-source-VERSION.tar.xz, .bz2 or .gz", .0.display())]
    NotSource(PathBuf),
    /// A program could not be started.
    #[error("cannot start {program}: {source}; `apt-get install {package}`")]
    Program {
        /// The program.
        program: &'static str,
        /// The package that has it.
        package: &'static str,
        /// Why it did not start.
        source: io::Error,
    },
    /// A program failed.
    #[error("{step} failed: {message}; all of its output is in {}", .log.display())]
    Failed {
        /// What was being done.
        step: &'static str,
        /// The first line that says why.
        message: String,
        /// Where the rest is.
        log: PathBuf,
    },
    /// Options of the fragment that this source did not take.
    #[error(
        "this kernel source does not take {options}: its version needs other options than the fragment has"
    )]
    NotTaken {
        /// The options, joined.
        options: String,
    },
    /// Ctrl-C.
    #[error("interrupted; what was done so far is kept: the same command goes on from there")]
    Interrupted,
    /// Another process is building.
    #[error("another `lab kernel` is at work in {}: wait for it to end", .0.display())]
    Busy(PathBuf),
    /// Packages could not be installed.
    #[error("cannot install {packages}: {reason}; as root: `apt-get install {packages}`")]
    Install {
        /// The packages, joined.
        packages: String,
        /// What stood in the way.
        reason: String,
    },
    /// The distribution's package lists have no kernel of this flavour.
    #[error(
        "no package of a {0} here: `apt-get update` refreshes the package lists; flavours are cloud, virtual, generic"
    )]
    NoStock(String),
    /// A kernel package that a guest cannot be made from.
    #[error("{package} has no {what}: another flavour may, see `lab kernel fetch --help`")]
    Incomplete {
        /// The package.
        package: String,
        /// What it lacks.
        what: String,
    },
    /// The kernel cannot be unpacked.
    #[error(transparent)]
    Image(#[from] microvm::Error),
    /// No kernel of that name.
    #[error("no kernel {0}: `lab kernel list` shows those at hand, `lab kernel build` makes one")]
    Unknown(String),
    /// More than one kernel of that name.
    #[error("{0} means more than one kernel: use the hash that `lab kernel list` shows")]
    Ambiguous(String),
    /// A kernel in the cache is incomplete.
    #[error("the cached kernel {} is damaged ({reason}): remove the folder and build again", .path.display())]
    Damaged {
        /// Its folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    /// Puts the operation and the file on an I/O error.
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

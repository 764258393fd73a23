//! What can go wrong with an image, said in one line: the operation, the object, and what would help.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::digest::Digest;

/// The result of this module's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an image could not be stored, found, unpacked or made a disk.
#[derive(Debug, Error)]
pub enum Error {
    /// No image has this name or id.
    #[error(
        "unable to find image '{name}' locally; `lab images` lists those at hand, `lab image load FILE` adds one"
    )]
    NotFound {
        /// As it was asked for.
        name: String,
    },
    /// What is to be pushed is not here.
    #[error("an image does not exist locally with the tag: {name}")]
    NotHere {
        /// As it was asked for.
        name: String,
    },
    /// Several images' ids begin like this.
    #[error("'{prefix}' is the beginning of {count} image ids; give more digits")]
    Ambiguous {
        /// As it was asked for.
        prefix: String,
        /// How many images it could mean.
        count: usize,
    },
    /// The name breaks the rules for image names.
    #[error("invalid image name '{name}': {reason}; a name is [HOST[:PORT]/]REPOSITORY[:TAG], lower case")]
    Name {
        /// As it was given.
        name: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// A digest is not `sha256:` and 64 hexadecimal digits.
    #[error("'{0}' is no digest: sha256: and 64 hexadecimal digits are expected")]
    Digest(String),
    /// Content does not have the digest by which it is known.
    #[error(
        "{object}: its content is damaged: expected {expected}, got {actual}; fetch or save the image again"
    )]
    Mismatch {
        /// What was read.
        object: String,
        /// The digest it is known by.
        expected: Digest,
        /// The digest of what was read.
        actual: Digest,
    },
    /// A blob that the image needs is not in what was loaded.
    #[error("the image lacks blob {digest} ({role}); save it again, completely")]
    MissingBlob {
        /// The blob.
        digest: Digest,
        /// What the image needs it for.
        role: &'static str,
    },
    /// A file is not what it should be.
    #[error("{object}: {reason}")]
    Malformed {
        /// The file, blob or entry.
        object: String,
        /// What is wrong with it, and what would help.
        reason: String,
    },
    /// An image for other machines only.
    #[error("the image is for {offered}, not for this machine ({wanted}); save it with --platform {wanted}")]
    Platform {
        /// This machine's platform.
        wanted: String,
        /// The platforms that the image has.
        offered: String,
    },
    /// `--platform` makes no sense.
    #[error("platform '{text}': OS/ARCHITECTURE[/VARIANT] is expected, such as linux/amd64")]
    BadPlatform {
        /// As it was given.
        text: String,
    },
    /// A registry refused or failed.
    #[error("{message}")]
    Registry {
        /// How it is to be taken.
        refused: Refused,
        /// What it said, and what would help.
        message: String,
    },
    /// Nobody waits for it any more.
    #[error("given up, for nobody waits for it any more")]
    Cancelled,
    /// A layer's entry would lead out of the layer, or makes no sense.
    #[error("layer {layer}: entry '{entry}' refused: {reason}")]
    Entry {
        /// The layer's digest.
        layer: Digest,
        /// The entry's path.
        entry: String,
        /// Why.
        reason: String,
    },
    /// An image is in use by a sandbox.
    #[error(
        "image {image} is in use by a running sandbox; stop it first (its name can be removed with --force)"
    )]
    InUse {
        /// The image.
        image: String,
    },
    /// An id that means an image with names in several repositories.
    #[error(
        "image {image} is referenced in multiple repositories ({count} names); remove them one by one, or use --force"
    )]
    Names {
        /// The image, as it was asked for.
        image: String,
        /// How many names it has.
        count: usize,
    },
    /// The user that the image or the command line names is not in the image.
    #[error("unable to find user {user}: no matching entries in the image's {file}")]
    User {
        /// As it was given.
        user: String,
        /// Where it was looked for.
        file: &'static str,
    },
    /// The system refused.
    #[error("{action} {}: {source}{}", path.display(), hint(source))]
    Io {
        /// What was being done, as a verb in -ing.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// How a registry's refusal is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such image.
    Missing,
    /// It may not be had, or there is none: registries do not say which.
    Denied,
    /// The name and password are wrong.
    Credentials,
    /// The registry or the way to it failed.
    Failed,
}

/// What helps against the usual refusals.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space, or set LAB_HOME to a disk that has it"
        }
        io::ErrorKind::PermissionDenied => {
            "; run as the user who owns it, or set LAB_HOME to a folder of yours"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; set LAB_HOME to a folder that can be written",
        _ => "",
    }
}

impl Error {
    /// For `map_err`: names the operation and the file.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { action, path: path.as_ref().to_owned(), source: source.into() }
    }

    pub(crate) fn malformed(object: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Malformed { object: object.into(), reason: reason.to_string() }
    }
}

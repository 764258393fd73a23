//! Images: from a file that someone saved to the directories and disks that sandboxes run from.
//!
//! ```text
//!   OCI layout, docker save ──► load ──► Store: blobs by digest, names ──► resolve ──► Image
//!   a registry ──► registry::pull ─────────┤                                             │
//!   lab's own programs ──► embedded ───────┘                                             │
//!                                                      ┌─────────────────────────────────┤
//!                                            layer_dirs (unpack)                  root_disk (disk)
//!                                            overlay's lower directories          one EROFS file
//!                                                 the container                 the virtual machine
//! ```
//!
//! Reading order:
//! 1. [`Digest`] and [`Reference`]: what content and names are.
//! 2. [`Store`]: where they lie, and how several processes share them without a daemon.
//! 3. `load`: how they get there from a file; [`registry`]: from another machine, and to it.
//! 4. `layer`: a layer as a stream of judged entries; then its two uses, `unpack` and `disk`.
//!    `bootable`: both an image and a kernel as a disk for a machine without the lab.
//! 5. [`embedded`]: the image that needs no loading.
//! 6. [`Image`] and [`users`]: what an image says about how it is to be run.

mod bootable;
mod compression;
mod config;
mod digest;
mod disk;
pub mod embedded;
mod error;
mod layer;
mod load;
pub(crate) mod pack;
mod progress;
mod reference;
pub mod registry;
mod save;
mod store;
pub(crate) mod tar;
mod unpack;
pub mod users;

pub use bootable::Bootable;
pub(crate) use compression::decompress as plain_of;
pub use config::{Image, Layer};
pub use digest::Digest;
pub use disk::RootDisk;
pub use error::{Error, Refused, Result};
pub(crate) use layer::check as check_layer;
pub use load::Loaded;
pub(crate) use load::{Platforms, architecture};
pub use progress::{Progress, Step};
pub use reference::Reference;
pub(crate) use store::Removal;
pub use store::{Nameless, Removed, Store, Summary, Target};
pub use unpack::Rights;
pub(crate) use unpack::remove_tree;

/// A stream without its compression, whichever that is.
pub(crate) fn plain<'a>(input: impl std::io::Read + Send + 'a) -> std::io::Result<impl std::io::Read + 'a> {
    plain_of(std::io::BufReader::with_capacity(256 * 1024, input))
}

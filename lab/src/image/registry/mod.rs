//! Registries: images from and to another machine, by the OCI distribution specification.
//!
//! ```text
//!   pull  name ─► manifest ─► (index: the one for this platform) ─► configuration, layers ─► Store, under the name
//!                  verified                                          those not here, three at once, each resumed
//!   push  Store ─► layers (those not there: mounted from another repository, or sent) ─► configuration ─► manifest
//! ```
//!
//! Reading order: `session.rs`, one conversation with a registry, and what its refusals mean; `credentials.rs`, whose name
//! and secret it is given; `pull.rs` with `fetch.rs`, one blob that may come in parts; `push.rs`.
//!
//! The protocol is oci-client's. What is ours is what a store needs beside it: nothing is fetched twice, nothing half
//! fetched is lost, nothing is kept whose digest is not what the manifest says.

mod credentials;
mod fetch;
mod pull;
mod push;
mod session;

pub use credentials::{Credentials, DockerConfig};
pub(crate) use fetch::forget_partial;
pub use pull::{Pulled, Wanted};
pub use push::Pushed;
pub(crate) use push::media_type;
pub use session::{log_in, tags};

/// Hears how a pull or a push goes on; both come from one thread.
pub trait Listener {
    /// Something happened. False where nobody listens any more: then the transfer is given up.
    fn hear(&self, news: &News<'_>) -> bool;
}

/// A piece of news, in docker's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News<'a> {
    /// Whose: the first digits of a layer's digest, or a tag. None where it is about the whole.
    pub id: Option<&'a str>,
    /// What happened.
    pub status: &'a str,
    /// How many bytes are done, and of how many.
    pub progress: Option<(u64, u64)>,
}

/// Nobody listens, and the transfer goes on.
impl Listener for () {
    fn hear(&self, _news: &News<'_>) -> bool {
        true
    }
}

/// Several layers are transferred at once: docker's numbers.
const PARALLEL_DOWNLOADS: usize = 3;
const PARALLEL_UPLOADS: usize = 5;

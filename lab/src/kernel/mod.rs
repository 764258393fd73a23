//! Guest kernels: where they come from, where they are kept, which one a virtual machine boots.
//!
//! ```text
//!  linux-source-* ──► source ──► recipe ──► build ──┐
//!  (package)         (unpack,   (fragment, (make)   ├──► cache: kernels/HASH/{vmlinux, config, modules/, meta.json}
//!                     patch)     patches)           │                 │
//!  linux-image-* ───► fetch (unpack, modules) ──────┘                 └──► resolve: explicit, selected, built, fetched
//! ```
//!
//! Two kinds. The *lean* kernel is built here from the distribution's source package with our fragment and patches
//! (`microvm/guest/kernel/`); all it needs is built in. The *stock* kernel is the distribution's own, as it ships: its
//! virtio drivers are modules, which the guest's init loads.
//!
//! Reading order: `recipe` (what makes a lean kernel, and its hash), `fragment` (the configuration and its check),
//! `source`, `build`; then `packages`, `fetch`, `modules`; then `cache`.

mod build;
mod cache;
mod error;
mod fetch;
mod fragment;
mod modules;
mod packages;
mod recipe;
mod source;

pub use build::{Built, build};
pub use cache::{Kernel, Meta, Origin, list, resolve, select, selected};
pub use error::Error;
pub use fetch::fetch;
pub use packages::{Packages, install, missing_for_build};
pub use recipe::FRAGMENT;

/// What a long step tells whoever shows it. The library itself prints nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A step began, or something worth a line happened.
    Step(&'a str),
    /// So much of the step is done.
    Progress {
        /// Units done.
        done: u64,
        /// Units in all, as far as is known.
        total: u64,
    },
}

/// Who is told.
pub type Listener<'a> = &'a mut dyn FnMut(Event<'_>);

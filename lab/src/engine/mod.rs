//! The engine: from what the user asked for to a workload behind a wall, and its exit code.
//!
//! ```text
//!   request ─► run ─┬─► image store (layers, configuration)
//!                   ├─► bundle  ◄── process · limits · isolation
//!                   ├─► place       (directories and lock of one sandbox)
//!                   ├─► trait Sandbox ──┬── container   crate `container`
//!                   │                   └── vm          crate `microvm`
//!                   └─► stdio · terminal · signals      (while it runs)
//! ```
//!
//! Reading order: `run.rs` tells the story. `bundle.rs` writes the only thing that both walls are given, and [`Sandbox`] the
//! only way in which they are spoken to: a third wall would be one more implementation of it. All this takes no thread
//! and no daemon: a run is a straight line in one process, which is what makes it quick.
//!
//! Such a run removes its state at its end, with `--rm` or without. Containers that live on their own, whose process may be
//! waited for by another than the one that started it, are [`stored`]'s, each with a [`monitor`]; [`build`] makes images.
//!
//! Networks: [`stored::networks`] knows who has which address; `bridge.rs` and `nat` make devices and rules of that; `passt.rs`
//! does without them; the monitor's `dns` and `ports` answer for names and let others in.

mod bridge;
pub mod build;
mod bundle;
pub mod client;
mod container;
mod devices;
mod error;
pub(crate) mod glob;
pub mod id;
mod isolation;
pub mod limits;
pub mod moment;
pub mod monitor;
mod nat;
mod passt;
mod place;
pub mod process;
pub mod request;
mod run;
mod sandbox;
mod seccomp;
mod signals;
mod stdio;
pub mod stored;
mod terminal;
mod vm;

pub use error::Error;
pub use request::{Accelerator, Request, Runtime};
pub use run::run;
pub use sandbox::{Exit, Inside, Sandbox, Stdio};

/// What the course's sandboxes share with the engine's: a place that is cleared if its owner is killed.
pub(crate) mod course {
    pub(crate) use super::bundle::write as write_bundle;
    pub(crate) use super::id::new as new_id;
    pub(crate) use super::isolation::every_capability;
    pub(crate) use super::place::{Place, Roots};
    pub(crate) use super::run::clear_abandoned;
}

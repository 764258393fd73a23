//! Measuring: the same work through both walls, on one clock, so that the figures would survive a reviewer.
//!
//! ```text
//!            plan: seeded order                 memory: N idle sandboxes
//!                  │                                     │
//!   session ───────┴── child: fresh `lab run --marks` ───┘
//!      │                        │
//!      └──► record ◄── raw samples, environment ──► store (JSON)
//!              │
//!              └──► summary = stats + phases + warnings ──► crate::report
//! ```
//!
//! The protocol:
//! - **One clock.** Every moment is read from the host's `CLOCK_MONOTONIC`; a run begins just before its `lab run` process
//!   is spawned, so that the start of the process counts, as it would for any other container runtime or VMM.
//! - **The same end mark.** `execve(2)` of the workload succeeded, and its exit status reached the host; not "the guest
//!   booted" for one wall and "the process ended" for the other.
//! - **Interleaved**, block-randomised, by a stored seed ([`plan`]); a first run of each wall warms the page cache and is
//!   stored, but not summed up.
//! - **Nothing discarded.** Every sample is in the [`record`], the failed ones too, and each figure is computed from them.
//! - **Never without its origin.** A VM's record holds by what it was run, or cannot be read at all ([`store`]).
//!
//! Reading order: [`plan`], [`child`], [`session`], [`record`], [`phases`], [`stats`], [`summary`], [`warnings`], [`memory`],
//! [`environment`], [`inside`], [`store`]. Then [`mod@bench`], which runs the [`experiments`], among them some of other
//! programs ([`peers`]), and [`effect`], which tells whether two series differ.

pub mod bench;
pub mod child;
pub mod effect;
pub mod environment;
pub mod experiments;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod inside;
pub mod memory;
pub mod peers;
pub mod phases;
pub mod plan;
pub mod record;
pub mod session;
pub mod stats;
pub mod store;
pub mod summary;
pub mod walls;
pub mod warnings;

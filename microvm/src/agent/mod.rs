//! The host's side of the conversation with the guest's PID 1.
//!
//! The wire protocol (crate `guest_wire`) runs over one stream, whatever it is made of: a socket pair to our VMM's
//! virtio-console, or a Unix socket to QEMU's. This module turns an OCI configuration into its messages, and moves the
//! bytes of processes' standard streams.
//!
//! ```text
//!   Spec ──flatten──▶ Setup, Exec            host's stdin ──▶┐
//!                          │                                 │ Data, within the guest's window
//!   Session ──commands──▶ Pump (one thread) ◀──frames──▶ Channel ◀──▶ guest
//!      ▲                   │                                 │ Data, within our window
//!      └──── status ───────┘                host's stdout ◀──┘
//! ```
//!
//! Read in this order: [`Session`], what a caller can do; [`flatten`], which parts of a configuration a guest needs;
//! `pump`, the conversation; `process`, one process's streams and windows; `channel`, frames; `stdio`, what the host
//! offers as standard streams; `kept`, a conversation in a snapshot.
//!
//! The guest is hostile: each frame is bounded, each window enforced, each message checked against what was asked. The
//! first violation ends the session, and every process of it with that reason.

mod channel;
mod error;
pub mod flatten;
mod kept;
mod process;
mod pump;
mod session;
mod stdio;
#[cfg(test)]
mod tests;

pub use error::AgentError;
pub use flatten::RootDevice;
pub use session::{Exit, Halted, ProcessId, Session};
pub use stdio::Stdio;
pub(crate) use stdio::pseudo_terminal;

//! A class: one archive for all laptops, and a server on the local network that shows the book and collects results.
//!
//! ```text
//!   lab classroom pack ──▶ class.tar ──▶ 30 laptops ── lab lesson send ──▶ lab classroom serve
//!   programs, kernels, book                                               /book  /results (with the token)
//! ```
//!
//! [`pack`] needs no network, nor does what it packs. [`serve`] is small on purpose: it reads one request a connection, with a
//! limit for each of its parts, and serves files of one folder; [`page`] shows the results; [`send`] is the student's side.

pub mod http;
pub mod pack;
pub mod page;
pub mod send;
pub mod serve;

//! The course: lessons that grade themselves on the student's own machine, without any network.
//!
//! ```text
//!   book/lessons/NAME             lab lesson start          the student's folder
//!   texts, skeleton, ... ───────────────────────────────▶   src/main.rs
//!        (in this binary)                                      │ lab lesson check
//!                                                              ▼
//!                      compile ──▶ sandbox: our own container, ids mapped, few rights and little of everything
//!                      rustc         │ the student's program        ┌────────────────────────────────┐
//!                                    │   └─ the task, which waits ◀─┤ the grader looks from outside: │
//!                                    └──────────────────────────────┤ /proc, mountinfo, guest memory │
//!                                                                   └───────────────┬────────────────┘
//!                                    report ◀── graph of checks ◀── verdicts ◀──────┘
//! ```
//!
//! Reading order:
//! 1. [`texts`]: what a lesson says, in English and Spanish. [`catalogue`]: the lessons.
//! 2. [`workspace`]: what the student gets. [`compile`], [`sandbox`]: how the student's program is run.
//! 3. [`look`]: a process seen from outside; [`machine`]: a virtual machine that the student builds or serves.
//! 4. [`lessons`]: one file a lesson, from what was seen to verdicts.
//! 5. [`mod@check`]: a check from the student's file to a [`report`].
//! 6. [`draw`]: pictures of the sandboxes that run. [`classroom`]: for whoever teaches.
//!
//! Secrets (exit codes, texts, addresses) are drawn for each run, so an answer cannot be printed by heart.

pub mod catalogue;
pub mod check;
pub mod classroom;
pub mod compile;
pub mod draw;
mod error;
pub mod lessons;
pub mod look;
pub mod machine;
pub mod report;
pub mod sandbox;
pub mod texts;
pub mod workspace;

pub use catalogue::{LESSONS, Lesson, find};
pub use check::check;
pub use error::Error;
pub use texts::Language;

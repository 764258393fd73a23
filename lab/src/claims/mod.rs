//! Four claims that every introduction to containers makes, decided by what this machine measures.
//!
//! ```text
//!  gather: measure::session (start-up, memory) ─┐
//!          the same, VM restored from a snapshot ├─► Gathered ──► judge ──► Claim: evidence, verdict,
//!          measure::inside (what is seen inside) │                  ▲              when it flips
//!          sizes of the stores' files ───────────┘               verdict (rules)
//! ```
//!
//! Reading order: [`verdict`], the rules; [`judge`], which figures they are given; [`gather()`], where these come from.
//! [`stored`]: the same from the experiments of a stored bench, without running anything.
//! No verdict is written down anywhere: without figures a claim is undecided, and a VM's figures never go without what
//! they were obtained by.

#[cfg(test)]
pub(crate) mod fixtures;
mod gather;
mod judge;
pub mod stored;
pub mod verdict;

use serde::Serialize;

pub use gather::gather;
pub use judge::judge;

use crate::measure::inside::View;
use crate::measure::record::{Obtained, Record};
use verdict::{Sizes, Verdict};

/// The value of `schema`.
pub const SCHEMA: &str = "lab-claims";
/// The value of `version`.
pub const VERSION: u32 = 1;

/// A whole result, as it is stored: the claims, and under them everything that they follow from.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// Always [`VERSION`].
    pub version: u32,
    /// The claims.
    pub claims: Vec<Claim>,
    /// What they follow from.
    pub gathered: Gathered,
}

/// All that was measured; each part may be missing, and then says why.
#[derive(Clone, Debug, Serialize)]
pub struct Gathered {
    /// Start-up and memory through both walls, as `lab compare` measures them, with all raw samples.
    pub comparison: Record,
    /// Start-up of the VM restored from a snapshot, in runs of their own after the comparison.
    pub restored: Option<Record>,
    /// What the host sees of itself.
    pub host: Result<View, String>,
    /// What a workload in a container sees.
    pub container: Result<View, String>,
    /// What a workload in a VM sees.
    pub vm: Result<View, String>,
    /// The bytes of the image's layers.
    pub layers: Result<u64, String>,
    /// What each wall needs on another machine.
    pub sizes: Result<Sizes, String>,
}

/// One claim and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Claim {
    /// In a word.
    pub name: &'static str,
    /// In a sentence.
    pub sentence: &'static str,
    /// By what the VM was run: no verdict and no figure travels without it.
    pub vm_by: Obtained,
    /// The figures.
    pub evidence: Vec<Evidence>,
    /// How it came out.
    pub verdict: Verdict,
    /// Under which conditions it comes out otherwise, and what the figures do not show.
    pub flips: Vec<String>,
}

/// One figure in every place where it was taken.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Evidence {
    /// What it is.
    pub name: String,
    /// On the host itself.
    pub host: Option<Figure>,
    /// In a container.
    pub container: Option<Figure>,
    /// In a VM.
    pub vm: Option<Figure>,
    /// How it was obtained.
    pub how: String,
}

/// A figure with its unit.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// A time.
    Milliseconds(f64),
    /// A size.
    Bytes(i64),
    /// A number of things.
    Count(usize),
    /// So many times another figure.
    Times(f64),
    /// A name.
    Text(String),
}

//! The result of a comparison, as it is stored: what was asked, where it ran, every raw sample, and nothing that
//! cannot be computed again from these.
//!
//! # The schema, version 1
//! One JSON object. `schema` is `"lab-comparison"`, `version` is `1`; a reader refuses what it does not know.
//!
//! | key | meaning |
//! |---|---|
//! | `lab`, `created`, `reproduce` | version of the lab; UTC time (RFC 3339); the command line that makes such a result again, seed included |
//! | `ended` | `{"state":"complete"}`, or `{"state":"interrupted","reason":…}`: then there are fewer samples than planned |
//! | `plan` | image, digest, command, runs a wall, seed, memory limit |
//! | `environment` | the machine ([`Environment`]) |
//! | `walls[]` | one object a wall: `wall`, `obtained` (how the VM was run: never absent), `unavailable` (why there are no samples), `kernel`, `samples[]`, `memory` |
//! | `walls[].samples[]` | `sequence` (its place in the whole order), `warmup`, `spawned`, `marks` and `ended` (nanoseconds on the host's `CLOCK_MONOTONIC`), `exit`, `outcome`, `load` |
//! | `summary` | the printed figures, for other programs; this program computes them again and never reads them |
//!
//! Marks are those of [`lab_clock::Mark`], by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::environment::Environment;
use super::memory::Memory;
use super::plan::Wall;
use super::summary::Summary;
use lab_clock::{Mark, Nanos};

/// The value of `schema`.
pub const SCHEMA: &str = "lab-comparison";
/// The value of `version`.
pub const VERSION: u32 = 1;

/// A whole result; see the module's table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Always [`VERSION`].
    pub version: u32,
    /// Version of the lab that measured.
    pub lab: String,
    /// When, in UTC (RFC 3339).
    pub created: String,
    /// The command line that makes such a result again.
    pub reproduce: Vec<String>,
    /// Whether all of the plan was carried out.
    pub ended: Ended,
    /// What was asked.
    pub plan: Plan,
    /// The machine.
    pub environment: Environment,
    /// The walls asked for, measured or not.
    pub walls: Vec<WallRecord>,
    /// The figures, for other programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
}

/// Whether all of the plan was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Ended {
    /// Yes.
    Complete,
    /// No: there is less than was asked for.
    Interrupted {
        /// Why.
        reason: String,
    },
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The image's name.
    pub image: String,
    /// The image's digest, where it could be resolved.
    pub digest: Option<String>,
    /// The command; empty for the image's own.
    pub command: Vec<String>,
    /// Runs a wall, without the warm-up.
    pub runs: u32,
    /// What the order of the runs came from.
    pub seed: u64,
    /// The memory limit passed to both walls, as it was written.
    pub memory: Option<String>,
}

/// All that was measured through one wall.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WallRecord {
    /// Which.
    pub wall: Wall,
    /// By what it was run; no figure is printed without it.
    pub obtained: Obtained,
    /// Why there are no samples, where there are none.
    pub unavailable: Option<String>,
    /// The kernel under the workload: the host's for a container, the guest's for a VM.
    pub kernel: Option<KernelRecord>,
    /// Every run, the failed and the warm-up ones too.
    pub samples: Vec<Sample>,
    /// Where memory was measured.
    pub memory: Option<Memory>,
}

/// By what a wall's processes were executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum Obtained {
    /// By the host's own kernel: containers.
    HostKernel,
    /// By KVM.
    Kvm {
        /// What stands behind it, as a probe found out.
        backing: Backing,
    },
    /// By QEMU's translator, in software.
    Tcg,
    /// By nothing: the wall could not be used at all.
    Nothing,
}

/// What stands behind `/dev/kvm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backing {
    /// VT-x or AMD-V, on the bare machine.
    Hardware,
    /// VT-x or AMD-V inside a virtual machine: every exit takes a detour over the outer hypervisor.
    Nested,
    /// No hardware: kernel-mode guest code is emulated instruction by instruction.
    Software,
}

impl Obtained {
    /// In a few words, for a table's heading.
    pub const fn label(self) -> &'static str {
        match self {
            Obtained::HostKernel => "host kernel",
            Obtained::Kvm { backing: Backing::Hardware } => "KVM, hardware",
            Obtained::Kvm { backing: Backing::Nested } => "KVM, nested",
            Obtained::Kvm { backing: Backing::Software } => "KVM, not hardware-backed",
            Obtained::Tcg => "TCG, software emulation",
            Obtained::Nothing => "not available",
        }
    }

    /// Whether its times are those that a VM has on ordinary hardware.
    pub const fn is_representative(self) -> bool {
        matches!(self, Obtained::HostKernel | Obtained::Kvm { backing: Backing::Hardware })
    }
}

/// A kernel, so that another machine can tell whether it has the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelRecord {
    /// As `uname -r` says inside.
    pub release: String,
    /// Where it came from: the lab's lean build, the distribution's, the host.
    pub origin: String,
    /// The digest of its file, for guests.
    pub digest: Option<String>,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Its place in the order of all runs, both walls together.
    pub sequence: u32,
    /// Whether it was the wall's warm-up, which the summary leaves out.
    pub warmup: bool,
    /// Just before the `lab run` process was spawned.
    pub spawned: Nanos,
    /// When that process had ended.
    pub ended: Nanos,
    /// The marks in between, by name.
    pub marks: BTreeMap<String, Nanos>,
    /// The exit code of `lab run`, which is the workload's own.
    pub exit: Option<i32>,
    /// Whether it counts.
    pub outcome: Outcome,
    /// The load average (1 minute) when it began.
    pub load: f64,
}

/// Whether a run counts, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Outcome {
    /// The workload ran and ended.
    Ok,
    /// It did not.
    Failed {
        /// What `lab run` said last.
        message: String,
    },
    /// The user stopped it.
    Interrupted,
}

impl Sample {
    /// The moment of a mark.
    pub fn mark(&self, mark: Mark) -> Option<Nanos> {
        self.marks.get(mark.name()).copied()
    }

    /// Whether the summary counts it.
    pub fn counts(&self) -> bool {
        !self.warmup && self.outcome == Outcome::Ok
    }
}

impl WallRecord {
    /// The runs that the summary counts.
    pub fn counted(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(|sample| sample.counts())
    }

    /// The runs that did not succeed, each with its message.
    pub fn failures(&self) -> impl Iterator<Item = (&Sample, &str)> {
        self.samples.iter().filter_map(|sample| match &sample.outcome {
            Outcome::Failed { message } => Some((sample, message.as_str())),
            _ => None,
        })
    }
}

impl Record {
    /// The record of one wall.
    pub fn wall(&self, wall: Wall) -> Option<&WallRecord> {
        self.walls.iter().find(|record| record.wall == wall)
    }
}

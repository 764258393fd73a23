//! The result of a bench, as it is stored: every raw value, and how each was obtained.
//!
//! # The schema, version 1
//! One JSON object. `schema` is `"lab-bench"`, `version` is `1`; a reader refuses what it does not know.
//!
//! | key | meaning |
//! |---|---|
//! | `lab`, `created`, `reproduce` | version of the lab; UTC time (RFC 3339); the command line that makes such a result again, seed included |
//! | `ended` | `{"state":"complete"}`, or `{"state":"interrupted","reason":…}` |
//! | `seed`, `quick`, `image`, `digest`, `pinned`, `pinned_vcpus`, `pinned_load` | what the order came from; whether it was the short form; the image; the CPUs that measured processes, their vCPUs, and clients were held to |
//! | `environment` | the machine ([`Environment`]) |
//! | `baseline` | milliseconds of fork(2), execve(2) and exit of a static program: by it, machines are set beside each other |
//! | `subjects[]` | who was measured: `name`, `title`, `obtained` (never absent), `version`, `unavailable` (why there is nothing of it) |
//! | `experiments[]` | `name`, `metrics[]` (`name`, `label`, `unit`, `better`), `runs[]`, `absent[]` |
//! | `experiments[].runs[]` | `sequence`, `subject`, `variant`, `warmup`, `began` and `ended` (nanoseconds of the host's `CLOCK_MONOTONIC`), `load`, `outcome`, `command`, `values[]`, `facts`, `marks` |
//! | `experiments[].runs[].values[]` | `metric`, `x` (the number of sandboxes, for slopes), `samples`: every value, in the metric's unit |

use std::collections::BTreeMap;

use lab_clock::Nanos;
use serde::{Deserialize, Serialize};

use crate::measure::environment::Environment;
use crate::measure::record::{Ended, Obtained, Outcome};

/// The value of `schema`.
pub const SCHEMA: &str = "lab-bench";
/// The value of `version`.
pub const VERSION: u32 = 1;

/// A whole result; see the module's table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bench {
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
    /// Whether all was carried out.
    pub ended: Ended,
    /// What the order of the runs came from.
    pub seed: u64,
    /// Whether it was the short form.
    pub quick: bool,
    /// The image's name.
    pub image: String,
    /// Its digest, where it could be resolved.
    pub digest: Option<String>,
    /// The CPUs that measured processes were held to; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pinned: Vec<usize>,
    /// Those that vCPUs were held to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pinned_vcpus: Vec<usize>,
    /// Those that clients of servers behind a wall were held to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pinned_load: Vec<usize>,
    /// The machine.
    pub environment: Environment,
    /// Milliseconds of fork, exec and exit of a static program, one value a run.
    pub baseline: Vec<f64>,
    /// Who was measured.
    pub subjects: Vec<SubjectRecord>,
    /// What was measured.
    pub experiments: Vec<ExperimentRecord>,
}

/// One that was measured, or could not be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubjectRecord {
    /// A word: `host`, `container`, `vm`, `restored`, or a peer's program.
    pub name: String,
    /// As reports have it.
    pub title: String,
    /// By what its processes were executed; no figure is printed without it.
    pub obtained: Obtained,
    /// The program's version, or the kernel under the workload.
    pub version: Option<String>,
    /// Why there is nothing of it, where there is nothing.
    pub unavailable: Option<String>,
}

/// One experiment and all of its runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExperimentRecord {
    /// Its name on the command line.
    pub name: String,
    /// What its values are.
    pub metrics: Vec<MetricRecord>,
    /// Every run, in the order in which they were made.
    pub runs: Vec<Run>,
    /// Who was left out of it, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<Absent>,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricRecord {
    /// A word.
    pub name: String,
    /// As reports have it.
    pub label: String,
    /// Its unit.
    pub unit: Unit,
    /// Which way is better.
    pub better: Better,
}

/// A unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Milliseconds.
    Milliseconds,
    /// Nanoseconds.
    Nanoseconds,
    /// Bytes.
    Bytes,
    /// Mebibytes a second.
    MibPerSecond,
    /// So many a second.
    PerSecond,
    /// A number of things.
    Count,
    /// A ratio.
    Times,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// Less is.
    Lower,
    /// More is.
    Higher,
    /// Neither: it is to be looked at.
    Neither,
}

/// One who takes no part in an experiment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absent {
    /// The subject.
    pub subject: String,
    /// Why.
    pub reason: String,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its place in the order of all runs of its experiment.
    pub sequence: u32,
    /// Who was measured.
    pub subject: String,
    /// In which variation; empty where there is one only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Whether it was a warm-up: stored, but kept out of the figures.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warmup: bool,
    /// When it began.
    pub began: Nanos,
    /// When it had ended.
    pub ended: Nanos,
    /// The load average (1 minute) when it began.
    pub load: f64,
    /// Whether it counts.
    pub outcome: Outcome,
    /// The command that was measured.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub command: String,
    /// What was measured.
    pub values: Vec<Values>,
    /// What was seen that is no number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
    /// The moments of the run, by name, where it is one run of `lab run`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub marks: BTreeMap<String, Nanos>,
}

/// The values of one metric in one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Values {
    /// The metric's name.
    pub metric: String,
    /// Where on the horizontal axis they belong, for slopes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<f64>,
    /// Each value, in the metric's unit.
    pub samples: Vec<f64>,
}

impl Run {
    /// Whether the figures count it.
    pub fn counts(&self) -> bool {
        !self.warmup && self.outcome == Outcome::Ok
    }
}

impl Bench {
    /// One that was measured.
    pub fn subject(&self, name: &str) -> Option<&SubjectRecord> {
        self.subjects.iter().find(|subject| subject.name == name)
    }

    /// One experiment.
    pub fn experiment(&self, name: &str) -> Option<&ExperimentRecord> {
        self.experiments.iter().find(|experiment| experiment.name == name)
    }
}

impl ExperimentRecord {
    /// The counted runs of a subject in a variation.
    pub fn counted<'a>(&'a self, subject: &'a str, variant: &'a str) -> impl Iterator<Item = &'a Run> {
        self.runs.iter().filter(move |run| run.counts() && run.subject == subject && run.variant == variant)
    }

    /// Every subject with its variation, in the order in which they were first run.
    pub fn cases(&self) -> Vec<(&str, &str)> {
        let mut cases: Vec<(&str, &str)> = Vec::new();
        for run in &self.runs {
            let case = (run.subject.as_str(), run.variant.as_str());
            if !cases.contains(&case) {
                cases.push(case);
            }
        }
        // The order of the runs is random, that of a report must not be.
        cases.sort_by_key(|&(subject, variant)| (place(subject), subject, variant));
        cases
    }

    /// A metric.
    pub fn metric(&self, name: &str) -> Option<&MetricRecord> {
        self.metrics.iter().find(|metric| metric.name == name)
    }
}

/// The lab's own before its peers.
fn place(subject: &str) -> usize {
    const OWN: [&str; 6] = ["host", "container", "vm", "restored", "disk", "tcg"];
    OWN.iter().position(|own| *own == subject).unwrap_or(OWN.len())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::measure::record::Backing;

    /// One metric's only value.
    pub fn values(metric: &str, value: f64) -> Vec<Values> {
        vec![Values { metric: metric.into(), x: None, samples: vec![value] }]
    }

    /// A synthetic result: start-up of both walls with so many runs, and a slope of memory.
    pub fn bench(runs: u32) -> Bench {
        let subject = |name: &str, title: &str, obtained| SubjectRecord {
            name: name.into(),
            title: title.into(),
            obtained,
            version: None,
            unavailable: None,
        };
        let run = |sequence: u32, subject: &str, values| Run {
            sequence,
            subject: subject.into(),
            variant: String::new(),
            warmup: false,
            began: 1_000_000 * u64::from(sequence),
            ended: 1_000_000 * u64::from(sequence) + 900_000,
            load: 0.1,
            outcome: Outcome::Ok,
            command: format!("lab run --runtime {subject} lab hello"),
            values,
            facts: BTreeMap::new(),
            marks: BTreeMap::new(),
        };
        let metric = |name: &str, unit| MetricRecord {
            name: name.into(),
            label: name.into(),
            unit,
            better: Better::Lower,
        };
        let start = |sequence: u32| {
            let spread = 1.0 + f64::from(sequence * 7 % 11) / 50.0;
            let (who, base) = if sequence.is_multiple_of(2) { ("container", 9.0) } else { ("vm", 2000.0) };
            run(sequence, who, values("first-output", base * spread))
        };
        let grown = |sequence: u32, who: &str, each: f64| {
            let at = |x: u32| Values {
                metric: "memory".into(),
                x: Some(f64::from(x)),
                samples: vec![each * f64::from(x) + f64::from(x * 7 % 3) * 1e4],
            };
            run(sequence, who, (1..=6).map(at).collect())
        };
        Bench {
            schema: SCHEMA.into(),
            version: VERSION,
            lab: "0.1.0".into(),
            created: "2026-01-02T03:04:05Z".into(),
            reproduce: ["lab", "bench", "--seed", "42"].map(String::from).into(),
            ended: Ended::Complete,
            seed: 42,
            quick: true,
            image: "lab:latest".into(),
            digest: None,
            pinned: Vec::new(),
            pinned_vcpus: Vec::new(),
            pinned_load: Vec::new(),
            environment: Environment::synthetic(),
            baseline: (0..20).map(|run| 0.5 + f64::from(run % 5) / 100.0).collect(),
            subjects: vec![
                subject("container", "container", Obtained::HostKernel),
                subject("vm", "VM", Obtained::Kvm { backing: Backing::Software }),
            ],
            experiments: vec![
                ExperimentRecord {
                    name: "startup".into(),
                    metrics: vec![metric("first-output", Unit::Milliseconds)],
                    runs: (0..2 * runs).map(start).collect(),
                    absent: Vec::new(),
                },
                ExperimentRecord {
                    name: "density".into(),
                    metrics: vec![metric("memory", Unit::Bytes)],
                    runs: vec![grown(0, "container", 1e6), grown(1, "vm", 4e7)],
                    absent: vec![Absent { subject: "restored".into(), reason: "no snapshot".into() }],
                },
            ],
        }
    }
}

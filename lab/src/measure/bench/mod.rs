//! Benches: the field's experiments, each through every wall there is.
//!
//! ```text
//!   experiments/*.rs: Experiment ── cases ──► session: seeded order ──► run ──► samples
//!                                     ▲                                          │
//!            subjects: host, container, VM, peers                             record ──► store (JSON)
//!                                                                                │
//!                                                          summary: figures ◄────┘──► crate::report
//! ```
//!
//! Reading order: this file, [`crate::measure::experiments`], [`subjects`], [`pin`], [`session`], [`record`], [`summary`], [`store`],
//! [`compare`], [`pool`].

pub mod compare;
pub mod pin;
pub mod pool;
pub mod record;
pub mod session;
pub mod store;
pub mod subjects;
pub mod summary;

use std::collections::BTreeMap;

use lab_clock::Nanos;

use record::{Better, MetricRecord, Unit, Values};
use session::Site;

/// One of the field's experiments: a file of `crate::measure::experiments`.
pub trait Experiment: Sync {
    /// What it asks, and what its answer is worth.
    fn about(&self) -> &About;
    /// What its values are.
    fn metrics(&self) -> &'static [Metric];
    /// Who is measured, in which variations.
    fn cases(&self, site: &Site<'_>) -> Vec<Case>;
    /// How often each case is run, in the short form and in the long.
    fn rounds(&self, quick: bool) -> u32;
    /// Whether a first run of each case is a warm-up, stored but not counted.
    fn warms_up(&self) -> bool {
        false
    }
    /// Makes one run.
    ///
    /// # Errors
    /// What went wrong, in a line.
    fn run(&self, site: &Site<'_>, case: &Case) -> Result<Seen, String>;
}

/// What an experiment asks, and what its answer is worth.
#[derive(Debug)]
pub struct About {
    /// Its name on the command line.
    pub name: &'static str,
    /// The question.
    pub question: &'static str,
    /// How it is answered.
    pub method: &'static str,
    /// What the figures do not show.
    pub blind_spot: &'static str,
    /// What the literature found.
    pub papers: &'static [Paper],
}

/// A published figure.
#[derive(Debug)]
pub struct Paper {
    /// Where it stands.
    pub source: &'static str,
    /// What it says.
    pub says: &'static str,
    /// The metric beside whose values it is drawn, with the value in that metric's unit.
    pub line: Option<(&'static str, f64)>,
}

/// What a value is.
#[derive(Debug)]
pub struct Metric {
    /// A word.
    pub name: &'static str,
    /// As reports have it.
    pub label: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// Which way is better.
    pub better: Better,
}

impl Metric {
    /// One of which less is better.
    pub const fn less(name: &'static str, label: &'static str, unit: Unit) -> Self {
        Self { name, label, unit, better: Better::Lower }
    }

    /// One of which more is better.
    pub const fn more(name: &'static str, label: &'static str, unit: Unit) -> Self {
        Self { name, label, unit, better: Better::Higher }
    }

    /// One that is only to be looked at.
    pub const fn shown(name: &'static str, label: &'static str, unit: Unit) -> Self {
        Self { name, label, unit, better: Better::Neither }
    }

    /// As it is stored.
    pub fn record(&self) -> MetricRecord {
        MetricRecord {
            name: self.name.into(),
            label: self.label.into(),
            unit: self.unit,
            better: self.better,
        }
    }
}

/// One subject in one variation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The subject's name.
    pub subject: String,
    /// The variation; empty where there is one only.
    pub variant: String,
}

impl Case {
    /// In the only variation there is.
    pub fn of(subject: &str) -> Self {
        Self::with(subject, "")
    }

    /// In this variation.
    pub fn with(subject: &str, variant: &str) -> Self {
        Self { subject: subject.into(), variant: variant.into() }
    }
}

/// What one run saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The command that was measured.
    pub command: String,
    /// What was measured.
    pub values: Vec<Values>,
    /// What was seen that is no number.
    pub facts: BTreeMap<String, String>,
    /// The moments of the run.
    pub marks: BTreeMap<String, Nanos>,
}

impl Seen {
    /// Adds one value.
    pub fn value(&mut self, metric: &str, value: f64) {
        self.at(metric, None, value);
    }

    /// Adds one value at a place on the horizontal axis.
    pub fn at(&mut self, metric: &str, x: Option<f64>, value: f64) {
        match self.values.iter_mut().find(|values| values.metric == metric && values.x == x) {
            Some(values) => values.samples.push(value),
            None => self.values.push(Values { metric: metric.into(), x, samples: vec![value] }),
        }
    }

    /// Adds what is no number.
    pub fn fact(&mut self, name: &str, text: impl Into<String>) {
        self.facts.insert(name.into(), text.into());
    }
}

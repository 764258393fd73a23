//! The figures of a comparison: computed from the raw samples, here and nowhere else.

use lab_clock::Mark;
use serde::{Deserialize, Serialize};

use super::phases::{self, PhaseMedian, milliseconds};
use super::plan::Wall;
use super::record::{Record, Sample, WallRecord};
use super::stats::{Ratio, Stats};
use super::warnings::{self, Warning};

/// What is timed, always from the moment just before `lab run` is spawned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// To the workload's first instruction.
    ToFirstInstruction,
    /// To the workload's exit.
    ToExit,
    /// To the end of the `lab run` process: everything is given back.
    WholeRun,
}

impl Metric {
    /// All, in the order of a report.
    pub const ALL: [Metric; 3] = [Metric::ToFirstInstruction, Metric::ToExit, Metric::WholeRun];

    /// Its row's heading.
    pub const fn label(self) -> &'static str {
        match self {
            Metric::ToFirstInstruction => "start → first instruction",
            Metric::ToExit => "start → workload's exit",
            Metric::WholeRun => "start → all given back",
        }
    }

    /// What it means, in a sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Metric::ToFirstInstruction => {
                "From just before the lab run process is spawned until execve(2) of the workload succeeded, inside \
                 whichever wall. The fairest start-up figure: the same end mark in both walls."
            }
            Metric::ToExit => "The same start, until the host has learnt the workload's exit status.",
            Metric::WholeRun => {
                "The same start, until the lab run process has ended: mounts, cgroup, guest memory and all are given back."
            }
        }
    }

    /// Its value in a run, in milliseconds.
    pub fn of(self, sample: &Sample) -> Option<f64> {
        let end = match self {
            Metric::ToFirstInstruction => sample.mark(Mark::Executed)?,
            Metric::ToExit => sample.mark(Mark::Exited)?,
            Metric::WholeRun => sample.ended,
        };
        Some(milliseconds(sample.spawned, end))
    }
}

/// All figures of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// One row a metric.
    pub metrics: Vec<MetricSummary>,
    /// The phases of each measured wall.
    pub phases: Vec<WallPhases>,
    /// What a reader must know before believing the figures.
    pub warnings: Vec<Warning>,
}

/// One metric in both walls, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricSummary {
    /// Which.
    pub metric: Metric,
    /// One entry for each wall that has samples.
    pub walls: Vec<WallStats>,
    /// VM over container, where both have samples.
    pub ratio: Option<Ratio>,
}

/// One metric in one wall.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WallStats {
    /// Which wall.
    pub wall: Wall,
    /// By what it was run: no figure travels without it.
    pub obtained: String,
    /// The figures.
    #[serde(flatten)]
    pub stats: Stats,
}

/// The phases of one wall.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WallPhases {
    /// Which wall.
    pub wall: Wall,
    /// By what it was run.
    pub obtained: String,
    /// The medians.
    pub medians: Vec<PhaseMedian>,
}

impl MetricSummary {
    /// The figures of a wall.
    pub fn wall(&self, wall: Wall) -> Option<&Stats> {
        self.walls.iter().find(|entry| entry.wall == wall).map(|entry| &entry.stats)
    }
}

/// A metric's values in one wall, in the order of the runs.
pub fn values(record: &Record, wall: Wall, metric: Metric) -> Vec<f64> {
    let samples = record.wall(wall).into_iter().flat_map(WallRecord::counted);
    samples.filter_map(|sample| metric.of(sample)).collect()
}

impl Summary {
    /// Computes all figures from the record's raw samples.
    pub fn of(record: &Record) -> Self {
        Self {
            metrics: Metric::ALL.iter().map(|&metric| metric_summary(record, metric)).collect(),
            phases: record
                .walls
                .iter()
                .filter(|wall| wall.counted().next().is_some())
                .map(|wall| WallPhases {
                    wall: wall.wall,
                    obtained: wall.obtained.label().into(),
                    medians: phases::medians(wall.counted()),
                })
                .collect(),
            warnings: warnings::of(record),
        }
    }

    /// The row of a metric.
    pub fn metric(&self, metric: Metric) -> Option<&MetricSummary> {
        self.metrics.iter().find(|row| row.metric == metric)
    }
}

fn metric_summary(record: &Record, metric: Metric) -> MetricSummary {
    let seed = record.plan.seed;
    let walls = record.walls.iter().filter_map(|wall| {
        let stats = Stats::of(&values(record, wall.wall, metric), seed)?;
        Some(WallStats { wall: wall.wall, obtained: wall.obtained.label().into(), stats })
    });
    let ratio = Ratio::of(&values(record, Wall::Vm, metric), &values(record, Wall::Container, metric), seed);
    MetricSummary { metric, walls: walls.collect(), ratio }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::super::record::Outcome;
    use super::*;

    #[test]
    fn warm_ups_and_failed_runs_are_stored_but_not_counted() {
        let mut record = fixtures::record(8);
        let all = record.wall(Wall::Container).unwrap().samples.len();
        assert_eq!(all, 9);
        assert_eq!(values(&record, Wall::Container, Metric::ToExit).len(), 8);
        record.walls[0].samples[4].outcome = Outcome::Failed { message: "no".into() };
        assert_eq!(values(&record, Wall::Container, Metric::ToExit).len(), 7);
        assert_eq!(record.wall(Wall::Container).unwrap().samples.len(), all);
    }

    #[test]
    fn every_metric_is_later_than_the_one_before() {
        let summary = Summary::of(&fixtures::record(8));
        for wall in Wall::BOTH {
            let medians: Vec<_> = summary.metrics.iter().map(|row| row.wall(wall).unwrap().median).collect();
            assert!(medians.is_sorted(), "{medians:?}");
        }
        assert!(summary.metric(Metric::ToExit).unwrap().ratio.unwrap().value > 1.0);
    }

    #[test]
    fn a_machine_without_one_wall_still_gives_the_other() {
        let record = fixtures::without(fixtures::record(8), Wall::Vm);
        let summary = Summary::of(&record);
        assert_eq!(summary.phases.len(), 1);
        assert!(summary.metrics.iter().all(|row| row.ratio.is_none() && row.walls.len() == 1));
    }

    #[test]
    fn every_figure_names_what_it_was_obtained_by() {
        let json = serde_json::to_value(Summary::of(&fixtures::record(8))).unwrap();
        for row in json["metrics"].as_array().unwrap() {
            assert_eq!(row["walls"][1]["obtained"], "KVM, not hardware-backed");
        }
    }
}

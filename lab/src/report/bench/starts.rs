//! The starts of a bench as `lab compare` has them, for what draws them step by step.

use crate::measure::bench::record::{Bench, ExperimentRecord, Run};
use crate::measure::plan::Wall;
use crate::measure::record::{Outcome, Sample, WallRecord};

/// The warm starts of each wall of the lab, as `lab compare` has them.
pub(super) fn walls(bench: &Bench, experiment: &ExperimentRecord) -> Vec<WallRecord> {
    [("container", Wall::Container), ("vm", Wall::Vm)]
        .into_iter()
        .filter_map(|(name, wall)| {
            let samples: Vec<Sample> = experiment
                .counted(name, "warm cache")
                .filter(|run| !run.marks.is_empty())
                .filter_map(sample)
                .collect();
            let obtained = bench.subject(name)?.obtained;
            let record =
                WallRecord { wall, obtained, unavailable: None, kernel: None, samples, memory: None };
            (!record.samples.is_empty()).then_some(record)
        })
        .collect()
}

/// A run as `lab compare` has it: the whole run's time is among its values.
fn sample(run: &Run) -> Option<Sample> {
    let whole = run.values.iter().find(|values| values.metric == "whole")?.samples.first()?;
    let last = run.marks.values().max()?;
    let first = run.marks.values().min()?;
    // The spawn lies so long before the mark as the value tells.
    let instruction =
        run.values.iter().find(|values| values.metric == "first-instruction")?.samples.first()?;
    let spawned = run.marks.get("executed")?.checked_sub((instruction * 1e6) as u64)?.min(*first);
    Some(Sample {
        sequence: run.sequence,
        warmup: false,
        spawned,
        ended: (spawned + (whole * 1e6) as u64).max(*last),
        marks: run.marks.clone(),
        exit: Some(0),
        outcome: Outcome::Ok,
        load: run.load,
    })
}

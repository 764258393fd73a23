//! Two results beside each other: the same metric of the same subject, before and after, or on two machines.
//!
//! Two machines differ in everything at once. What they do most alike is fork, exec and exit of one small static program; so
//! each result carries that as its baseline, and times are compared as multiples of it where the machines differ.

use super::record::{Bench, Better, ExperimentRecord, Unit};
use super::summary::{self, is_time};
use crate::measure::effect::{Effect, Floor};
use crate::measure::stats::{LEAST_FOR_INTERVAL, Ratio, median};

/// Two results beside each other.
#[derive(Clone, Debug)]
pub struct Difference {
    /// By how much the second machine is slower at fork and exec, where times are divided by it.
    pub normalised: Option<f64>,
    /// What a reader must know.
    pub remarks: Vec<String>,
    /// One row for each metric that both have.
    pub rows: Vec<Row>,
}

/// One metric in both.
#[derive(Clone, Debug)]
pub struct Row {
    /// The experiment.
    pub experiment: String,
    /// The subject and its variation.
    pub case: String,
    /// The metric's label.
    pub metric: String,
    /// Its unit.
    pub unit: Unit,
    /// By what each was obtained.
    pub obtained: (&'static str, &'static str),
    /// Medians.
    pub medians: (f64, f64),
    /// Second over first, after normalising.
    pub ratio: Option<Ratio>,
    /// Whether it counts.
    pub effect: Option<Effect>,
    /// What to call it.
    pub verdict: Verdict,
}

/// What became of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It got better.
    Better,
    /// It got worse.
    Worse,
    /// It is another, and neither is better.
    Different,
    /// No difference above the noise.
    Same,
    /// The two were not obtained by the same means: they cannot be compared.
    Incomparable,
    /// Too few runs to tell.
    TooFew,
}

impl Verdict {
    /// In a word.
    pub const fn label(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Different => "different",
            Verdict::Same => "no difference",
            Verdict::Incomparable => "not comparable",
            Verdict::TooFew => "too few runs",
        }
    }
}

/// Compares two results.
pub fn difference(first: &Bench, second: &Bench) -> Difference {
    let (here, there) = (median(&first.baseline), median(&second.baseline));
    let machine = |bench: &Bench| (bench.environment.cpu.clone(), bench.environment.kernel.clone());
    let other_machine = machine(first) != machine(second);
    let known = here > 0.0 && there > 0.0;
    let normalised = (other_machine && known).then(|| there / here);
    let mut remarks = Vec::new();
    if other_machine && !known {
        remarks
            .push("the machines differ, and not both results have a baseline: times are as they were".into());
    }
    if first.digest != second.digest {
        remarks.push("the two ran different images".into());
    }
    if first.environment.build != second.environment.build {
        remarks.push("one was measured by a debug build of the lab".into());
    }
    let rows = first.experiments.iter().filter_map(|experiment| {
        let other = second.experiment(&experiment.name)?;
        Some(rows((first, experiment), (second, other), normalised))
    });
    Difference { normalised, remarks, rows: rows.flatten().collect() }
}

fn rows(
    (first, before): (&Bench, &ExperimentRecord),
    (second, after): (&Bench, &ExperimentRecord),
    normalised: Option<f64>,
) -> Vec<Row> {
    let mut rows = Vec::new();
    for metric in &before.metrics {
        let Some(other) = after.metric(&metric.name).filter(|other| other.unit == metric.unit) else {
            continue;
        };
        let divisor = if is_time(metric.unit) { normalised.unwrap_or(1.0) } else { 1.0 };
        let (old, new) = (summary::rows(first, before, metric), summary::rows(second, after, other));
        for old in &old {
            let same = |new: &&summary::Row<'_>| (new.subject, new.variant) == (old.subject, old.variant);
            let Some(new) = new.iter().find(same) else { continue };
            let values: Vec<f64> = new.values.iter().map(|value| value / divisor).collect();
            let effect = Effect::between(&old.values, &values, Floor::default(), first.seed);
            let obtained = |bench: &Bench| {
                bench.subject(old.subject).map_or("unknown", |subject| subject.obtained.label())
            };
            let obtained = (obtained(first), obtained(second));
            let few = old.values.len().min(values.len()) < LEAST_FOR_INTERVAL;
            rows.push(Row {
                experiment: before.name.clone(),
                case: summary::case(old.subject, old.variant),
                metric: metric.label.clone(),
                unit: metric.unit,
                obtained,
                medians: (old.stats.median, new.stats.median),
                ratio: Ratio::of(&values, &old.values, first.seed),
                verdict: match effect {
                    _ if obtained.0 != obtained.1 => Verdict::Incomparable,
                    _ if few => Verdict::TooFew,
                    Some(effect) if effect.counts => direction(metric.better, effect.difference),
                    _ => Verdict::Same,
                },
                effect,
            });
        }
    }
    rows
}

fn direction(better: Better, difference: f64) -> Verdict {
    match better {
        Better::Lower if difference < 0.0 => Verdict::Better,
        Better::Higher if difference > 0.0 => Verdict::Better,
        Better::Neither => Verdict::Different,
        _ => Verdict::Worse,
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::bench;
    use super::*;
    use crate::measure::record::Obtained;

    /// All values of start-up times this.
    fn scaled(mut bench: Bench, by: f64) -> Bench {
        for run in &mut bench.experiments[0].runs {
            for values in &mut run.values {
                values.samples.iter_mut().for_each(|value| *value *= by);
            }
        }
        bench
    }

    #[test]
    fn the_same_result_twice_differs_nowhere() {
        let difference = difference(&bench(10), &bench(10));
        assert_eq!(difference.rows.len(), 2);
        assert!(difference.rows.iter().all(|row| row.verdict == Verdict::Same), "{difference:?}");
        assert!(difference.normalised.is_none() && difference.remarks.is_empty());
    }

    #[test]
    fn a_slower_build_is_worse_and_a_faster_one_better() {
        let verdicts = |by| {
            difference(&bench(12), &scaled(bench(12), by))
                .rows
                .iter()
                .map(|row| row.verdict)
                .collect::<Vec<_>>()
        };
        assert_eq!(verdicts(1.5), [Verdict::Worse; 2]);
        assert_eq!(verdicts(0.6), [Verdict::Better; 2]);
        assert_eq!(verdicts(1.001), [Verdict::Same; 2]);
    }

    #[test]
    fn a_machine_half_as_fast_at_fork_and_exec_is_expected_to_take_twice_as_long() {
        let mut slow = scaled(bench(12), 2.0);
        slow.environment.cpu = Some("Slow CPU".into());
        slow.baseline.iter_mut().for_each(|value| *value *= 2.0);
        let difference = difference(&bench(12), &slow);
        assert!((difference.normalised.unwrap() - 2.0).abs() < 1e-9);
        assert!(difference.rows.iter().all(|row| row.verdict == Verdict::Same), "{difference:?}");
    }

    #[test]
    fn what_was_not_obtained_alike_is_not_compared() {
        let mut other = scaled(bench(12), 0.1);
        other.subjects[1].obtained = Obtained::Tcg;
        let difference = difference(&bench(12), &other);
        assert_eq!(difference.rows[1].verdict, Verdict::Incomparable);
        assert_eq!(difference.rows[0].verdict, Verdict::Better);
    }

    #[test]
    fn three_runs_tell_nothing() {
        assert!(
            difference(&bench(3), &scaled(bench(3), 5.0))
                .rows
                .iter()
                .all(|row| row.verdict == Verdict::TooFew)
        );
    }
}

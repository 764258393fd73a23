//! Figures of a bench, computed from its raw samples, here and nowhere else.
//!
//! A run holds several values where a program in the sandbox took them (batches), and one where a run is the value. Quantiles
//! are those of all values. An interval of the median rests on the medians of the runs where there are enough runs; else on the
//! batches, and then says nothing of how runs differ: [`Row::interval_of_runs`] tells which.

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::record::{Bench, ExperimentRecord, MetricRecord, Unit};
use super::subjects::{CONTAINER, HOST};
use crate::measure::effect::{Effect, Floor};
use crate::measure::stats::{Interval, LEAST_FOR_INTERVAL, Ratio, Stats, median};

/// One metric of one subject in one variation.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// The subject's name.
    pub subject: &'a str,
    /// The variation.
    pub variant: &'a str,
    /// All values, in the order in which they were taken.
    pub values: Vec<f64>,
    /// The median of each run.
    pub runs: Vec<f64>,
    /// The figures.
    pub stats: Stats,
    /// Whether the interval is that of the runs' medians.
    pub interval_of_runs: bool,
    /// To the subject that the others are set beside; none for itself.
    pub ratio: Option<Ratio>,
    /// The same as a test.
    pub effect: Option<Effect>,
}

/// A line through points, and how well it is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Slope {
    /// By how much the value changes for one more.
    pub slope: f64,
    /// Its 95 % interval; none with fewer than three places.
    pub interval: Option<Interval>,
    /// The value at nought.
    pub start: f64,
    /// The points.
    pub points: Vec<(f64, f64)>,
}

/// The rows of a metric; those with values only.
pub fn rows<'a>(bench: &'a Bench, experiment: &'a ExperimentRecord, metric: &MetricRecord) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'a>> = Vec::new();
    for (subject, variant) in experiment.cases() {
        let runs = runs(experiment, subject, variant, &metric.name);
        let values: Vec<f64> = runs.iter().flatten().copied().collect();
        let Some(mut stats) = Stats::of(&values, bench.seed) else { continue };
        let runs: Vec<f64> = runs.iter().map(|values| median(values)).collect();
        let interval_of_runs = runs.len() >= LEAST_FOR_INTERVAL;
        if interval_of_runs {
            stats.interval = Stats::of(&runs, bench.seed).and_then(|stats| stats.interval);
        }
        rows.push(Row { subject, variant, values, runs, stats, interval_of_runs, ratio: None, effect: None });
    }
    compare(&mut rows, bench.seed);
    rows
}

/// Sets all beside the container, or the host where there is none, in the same variation.
fn compare(rows: &mut [Row<'_>], seed: u64) {
    let base = if rows.iter().any(|row| row.subject == CONTAINER) { CONTAINER } else { HOST };
    let bases: Vec<(String, Vec<f64>)> = rows
        .iter()
        .filter(|row| row.subject == base)
        .map(|row| (row.variant.to_owned(), row.values.clone()))
        .collect();
    for row in rows.iter_mut().filter(|row| row.subject != base) {
        let of = |variant: &str| bases.iter().find(|(name, _)| name == variant).map(|(_, values)| values);
        let first = of(row.variant).or_else(|| (bases.len() == 1).then(|| &bases[0].1));
        if let Some(first) = first {
            row.ratio = Ratio::of(&row.values, first, seed);
            row.effect = Effect::between(first, &row.values, Floor::default(), seed);
        }
    }
}

/// The values of each counted run.
fn runs(experiment: &ExperimentRecord, subject: &str, variant: &str, metric: &str) -> Vec<Vec<f64>> {
    let of_run = |run: &super::record::Run| {
        let values = run.values.iter().filter(|values| values.metric == metric && values.x.is_none());
        values.flat_map(|values| values.samples.iter().copied()).collect::<Vec<_>>()
    };
    experiment.counted(subject, variant).map(of_run).filter(|values| !values.is_empty()).collect()
}

/// The slope of a metric that was taken at several places, by least squares.
pub fn slope(experiment: &ExperimentRecord, subject: &str, variant: &str, metric: &str) -> Option<Slope> {
    let values = experiment.counted(subject, variant).flat_map(|run| &run.values);
    let points: Vec<(f64, f64)> = values
        .filter(|values| values.metric == metric)
        .flat_map(|values| {
            let x = values.x;
            values.samples.iter().filter_map(move |&value| Some((x?, value)))
        })
        .collect();
    line_through(points)
}

/// Ordinary least squares; its interval takes the residuals for normal (Student's t with n − 2 degrees of freedom).
fn line_through(points: Vec<(f64, f64)>) -> Option<Slope> {
    let n = points.len() as f64;
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(&|point| point.0), mean(&|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if points.is_empty() || spread <= 0.0 {
        return None;
    }
    let slope = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / spread;
    let start = y - slope * x;
    let residuals: f64 = points.iter().map(|point| (point.1 - start - slope * point.0).powi(2)).sum();
    let interval = (points.len() >= 3).then(|| {
        let error = (residuals / (n - 2.0) / spread).sqrt();
        let t = StudentsT::new(0.0, 1.0, n - 2.0).map_or(f64::INFINITY, |t| t.inverse_cdf(0.975));
        Interval { low: slope - t * error, high: slope + t * error }
    });
    Some(Slope { slope, interval, start, points })
}

/// What a reader must know before believing a figure of an experiment.
pub fn warnings(bench: &Bench, experiment: &ExperimentRecord) -> Vec<String> {
    let mut found = Vec::new();
    for run in &experiment.runs {
        if let crate::measure::record::Outcome::Failed { message } = &run.outcome {
            let text = format!("a run of {} failed: {message}", case(&run.subject, &run.variant));
            if !found.contains(&text) {
                found.push(text);
            }
        }
    }
    for metric in &experiment.metrics {
        for row in rows(bench, experiment, metric) {
            let name = || format!("{}, {}", case(row.subject, row.variant), metric.label);
            let far = crate::measure::stats::outliers(&row.values).len();
            if far > 0 && row.values.len() >= LEAST_FOR_INTERVAL {
                found.push(format!(
                    "{far} of {} values lie far off (they count): {}",
                    row.values.len(),
                    name()
                ));
            }
            if let Some((first, second)) = crate::measure::warnings::drift(&row.runs) {
                let unit = metric.unit;
                found.push(format!(
                    "drift from {} to {}: {}",
                    crate::report::figures::quantity(first, unit),
                    crate::report::figures::quantity(second, unit),
                    name()
                ));
            }
        }
    }
    found
}

/// A subject and its variation in words.
pub fn case(subject: &str, variant: &str) -> String {
    if variant.is_empty() { subject.into() } else { format!("{subject}, {variant}") }
}

/// Whether machines' values of this unit are set beside each other by their fork-and-exec time.
pub fn is_time(unit: Unit) -> bool {
    matches!(unit, Unit::Milliseconds | Unit::Nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{bench, values};
    use super::*;

    #[test]
    fn quantiles_are_of_all_values_and_intervals_of_the_runs() {
        let bench = bench(8);
        let experiment = bench.experiment("startup").unwrap();
        let metric = experiment.metric("first-output").unwrap();
        let rows = rows(&bench, experiment, metric);
        assert_eq!(rows.iter().map(|row| row.subject).collect::<Vec<_>>(), ["container", "vm"]);
        assert_eq!(rows[0].values.len(), 8);
        assert!(rows[0].interval_of_runs && rows[0].stats.interval.is_some());
        assert!(rows[1].ratio.unwrap().value > 100.0 && rows[1].effect.unwrap().counts);
        assert!(rows[0].ratio.is_none());
    }

    #[test]
    fn a_known_line_is_found_and_its_interval_holds_the_true_slope() {
        let noise = [0.3, -0.2, 0.1, -0.4, 0.2, 0.0, -0.1, 0.1];
        let points = noise.iter().zip(1..).map(|(noise, x)| (f64::from(x), 5.0 + 2.0 * f64::from(x) + noise));
        let line = line_through(points.collect()).unwrap();
        let interval = line.interval.unwrap();
        assert!((line.slope - 2.0).abs() < 0.1 && (line.start - 5.0).abs() < 0.4, "{line:?}");
        assert!(interval.low < 2.0 && 2.0 < interval.high && interval.high - interval.low < 0.3, "{line:?}");
        assert_eq!(line_through(vec![(1.0, 2.0)]), None);
        assert_eq!(line_through(vec![]), None);
    }

    #[test]
    fn failed_runs_and_far_values_are_told() {
        let mut bench = bench(12);
        let runs = &mut bench.experiments[0].runs;
        runs[3].outcome = crate::measure::record::Outcome::Failed { message: "no such thing".into() };
        let index = runs.iter().rposition(|run| run.subject == "container").unwrap();
        runs[index].values = values("first-output", 900.0);
        let warnings = warnings(&bench, &bench.experiments[0]);
        assert!(warnings.iter().any(|text| text.contains("no such thing")), "{warnings:?}");
        assert!(warnings.iter().any(|text| text.contains("lie far off")), "{warnings:?}");
    }
}

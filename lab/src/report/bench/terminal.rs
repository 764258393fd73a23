//! A bench in a terminal: a table for each metric, slopes, facts, who was absent, and what to be wary of.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::{against, label, spark, starts};
use crate::measure::bench::record::{Bench, ExperimentRecord, MetricRecord};
use crate::measure::bench::summary::{self, Row};
use crate::measure::experiments;
use crate::measure::record::{Ended, Obtained};
use crate::measure::stats::{Interval, median};
use crate::report::figures;
use crate::report::table::Table;
use crate::report::terminal::wrap;
use crate::report::waterfall;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const WARNING: Style = AnsiColor::Yellow.on_default();

/// Writes it for a terminal of this width. Escapes for colours are in it: print it through `anstream`.
pub fn render(bench: &Bench, width: usize) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{BOLD}{}{BOLD:#}\n", headline(bench));
    for (name, value) in environment(bench) {
        let _ = writeln!(text, "{DIM}{name:>12}{DIM:#}  {}", figures::plain(&value));
    }
    text.push('\n');
    for warning in warnings(bench) {
        paragraph(&mut text, WARNING, "warning", &warning, width);
    }
    for experiment in &bench.experiments {
        text.push('\n');
        one(&mut text, bench, experiment, width);
    }
    let _ = writeln!(text, "\n{DIM}{}{DIM:#}", wrap(LEGEND, width.max(40)).join("\n"));
    text
}

const LEGEND: &str = "Median with its 95 % bootstrap interval: of the runs' medians from six runs on, else of the values. ×: the median \
                      by that of the container; ≈: no difference above the noise (permutation test, p < 0.05; at least 5 % apart); ?: too few \
                      values to tell. n: values, and of how many runs where a run has several.";

/// What was run, in a line.
pub fn headline(bench: &Bench) -> String {
    let names: Vec<_> = bench.experiments.iter().map(|experiment| experiment.name.as_str()).collect();
    let quick = if bench.quick { ", the short form" } else { "" };
    format!("{}: {}{quick} (seed {})", figures::plain(&bench.image), names.join(", "), bench.seed)
}

/// The machine, as names and values.
pub fn environment(bench: &Bench) -> Vec<(&'static str, String)> {
    let mut rows = crate::report::machine_rows(&bench.environment);
    let baseline = median(&bench.baseline);
    if baseline > 0.0 {
        rows.push((
            "fork + exec",
            format!("{} (median of {})", figures::time(baseline), bench.baseline.len()),
        ));
    }
    let held =
        [("held to", &bench.pinned), ("vCPUs to", &bench.pinned_vcpus), ("load to", &bench.pinned_load)];
    for (what, cpus) in held.into_iter().filter(|(_, cpus)| !cpus.is_empty()) {
        let cpus: Vec<_> = cpus.iter().map(ToString::to_string).collect();
        rows.push((what, format!("CPU {}", cpus.join(", "))));
    }
    for subject in &bench.subjects {
        let version = subject.version.as_ref().map_or_else(String::new, |version| format!(", {version}"));
        let by = match (&subject.unavailable, subject.obtained) {
            (Some(reason), _) => format!("absent: {reason}"),
            (None, obtained) => format!("{}{version}", obtained.label()),
        };
        rows.push(("measured", format!("{}: {by}", subject.title)));
    }
    rows.push(("lab", format!("{} ({} build), {}", bench.lab, bench.environment.build, bench.created)));
    rows
}

/// What a reader must know of the whole.
pub fn warnings(bench: &Bench) -> Vec<String> {
    let mut found = Vec::new();
    if let Ended::Interrupted { reason } = &bench.ended {
        found.push(format!("The bench was {reason}: what is here was measured until then."));
    }
    let mut ways: Vec<Obtained> = bench.subjects.iter().map(|subject| subject.obtained).collect();
    ways.dedup();
    found.extend(crate::measure::warnings::of_ways(&ways).into_iter().map(|warning| warning.text));
    found.extend(crate::measure::warnings::of_machine(&bench.environment).into_iter().map(|it| it.text));
    found
}

fn one(text: &mut String, bench: &Bench, experiment: &ExperimentRecord, width: usize) {
    let about = experiments::find(&experiment.name).map(crate::measure::bench::Experiment::about);
    let question = about.map_or("", |about| about.question);
    let _ = writeln!(text, "{BOLD}{}{BOLD:#} · {question}", experiment.name);
    if experiment.runs.iter().any(|run| !run.values.is_empty()) {
        for metric in &experiment.metrics {
            let rows = summary::rows(bench, experiment, metric);
            if !rows.is_empty() {
                text.push_str(&table(bench, metric, &rows).render(width));
            }
            slopes(text, bench, experiment, metric);
        }
    }
    if experiment.name == "startup" {
        let walls = starts::walls(bench, experiment);
        let runs: Vec<_> = walls.iter().filter_map(waterfall::Run::median_of).collect();
        text.push_str(&waterfall::draw(&runs, width));
    }
    for absent in &experiment.absent {
        paragraph(text, DIM, "absent", &format!("{}: {}", absent.subject, absent.reason), width);
    }
    for (case, fact) in facts(bench, experiment) {
        paragraph(text, DIM, "seen", &format!("{case}: {fact}"), width);
    }
    for warning in summary::warnings(bench, experiment) {
        paragraph(text, WARNING, "warning", &warning, width);
    }
}

fn table(bench: &Bench, metric: &MetricRecord, rows: &[Row<'_>]) -> Table {
    let mut table = Table::new([metric.label.as_str(), "median [95 %]", "p90", "p99", "×", "n", ""]);
    for row in rows {
        let (title, obtained) = label(bench, row.subject, row.variant);
        let quantity = |value| figures::quantity(value, metric.unit);
        let count = if row.values.len() == row.runs.len() {
            row.values.len().to_string()
        } else {
            format!("{} / {}", row.values.len(), row.runs.len())
        };
        let cells = [
            format!("  {title} ({obtained})"),
            format!("{}{}", quantity(row.stats.median), interval(row, metric)),
            quantity(row.stats.p90),
            quantity(row.stats.p99),
            against(row),
            count,
            spark(&row.values),
        ];
        table.row(Style::new(), cells);
    }
    table
}

/// An interval with its ends in the metric's unit.
pub fn interval(row: &Row<'_>, metric: &MetricRecord) -> String {
    row.stats.interval.map_or_else(String::new, |Interval { low, high }| {
        let [low, high] = figures::quantities([low, high], row.stats.median, metric.unit);
        format!(" [{low}, {high}]")
    })
}

fn slopes(text: &mut String, bench: &Bench, experiment: &ExperimentRecord, metric: &MetricRecord) {
    for (subject, variant) in experiment.cases() {
        let Some(line) = summary::slope(experiment, subject, variant, &metric.name) else { continue };
        let (title, obtained) = label(bench, subject, variant);
        let quantity = |value| figures::quantity(value, metric.unit);
        let interval = line.interval.map_or_else(String::new, |Interval { low, high }| {
            let [low, high] = figures::quantities([low, high], line.slope, metric.unit);
            format!(" [{low}, {high}]")
        });
        let most = line.points.iter().map(|point| point.0).fold(0.0, f64::max);
        let _ = writeln!(
            text,
            "  {}: {title} ({obtained}): {}{interval} for one more, up to {most:.0}",
            metric.label,
            quantity(line.slope)
        );
    }
}

/// What was seen that is no number: once for each case, however many runs saw it.
pub fn facts(bench: &Bench, experiment: &ExperimentRecord) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for (subject, variant) in experiment.cases() {
        let (title, obtained) = label(bench, subject, variant);
        for run in experiment.counted(subject, variant) {
            for (name, fact) in &run.facts {
                let entry = (format!("{title} ({obtained})"), format!("{name}: {}", figures::plain(fact)));
                if !all.contains(&entry) {
                    all.push(entry);
                }
            }
        }
    }
    all
}

/// A text after its name, its further lines below its first.
pub(super) fn paragraph(text: &mut String, style: Style, name: &str, content: &str, width: usize) {
    let lines = wrap(&figures::plain(content), width.saturating_sub(10).max(20));
    for (line, name) in lines.iter().zip(std::iter::once(name).chain(std::iter::repeat(""))) {
        let _ = writeln!(text, "  {style}{name:8}{style:#}{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::bench::record::tests::bench;

    fn plain(bench: &Bench, width: usize) -> String {
        anstream::adapter::strip_str(&render(bench, width)).to_string()
    }

    #[test]
    fn every_figure_of_a_vm_stands_beside_what_it_was_obtained_by() {
        for width in [50, 160] {
            let text = plain(&bench(8), width);
            assert!(text.matches("KVM, not hardware-backed").count() >= 3, "{text}");
            assert!(text.contains("/dev/kvm has no VT-x"), "{text}");
        }
    }

    #[test]
    fn slopes_absent_ones_and_interruptions_are_told() {
        let mut bench = bench(8);
        bench.ended = Ended::Interrupted { reason: "stopped by the user".into() };
        let text = plain(&bench, 160);
        for part in ["for one more, up to 6", "restored: no snapshot", "stopped by the user", "seed 42"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}

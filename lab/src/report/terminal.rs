//! The report in a terminal.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::table::Table;
use super::waterfall::{self, title};
use super::{environment_rows, figures, memory_rows, plan_line};
use crate::measure::record::Record;
use crate::measure::stats::Stats;
use crate::measure::summary::{Metric, MetricSummary, Summary};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const WARNING: Style = AnsiColor::Yellow.on_default();

/// Writes the whole report for a terminal of this width. Escapes for colours are in it: print it through `anstream`.
pub fn render(record: &Record, width: usize) -> String {
    let summary = Summary::of(record);
    let mut text = String::new();
    let _ = writeln!(text, "{BOLD}{}{BOLD:#}\n", plan_line(record));
    for (name, value) in environment_rows(record) {
        let _ = writeln!(text, "{DIM}{name:>12}{DIM:#}  {}", figures::plain(&value));
    }
    text.push('\n');
    warnings(&mut text, &summary, width);
    if summary.phases.is_empty() {
        text.push_str("No run succeeded: there is nothing to compare.\n");
        return text;
    }
    text.push_str(&times(record, &summary).render(width));
    let _ = writeln!(
        text,
        "{DIM}Median with its 95 % bootstrap interval; every run counts but the warm-up of each wall.{DIM:#}\n"
    );
    text.push_str(&waterfall::render(record, width));
    text.push('\n');
    let memory = memory(record);
    if let Some(memory) = memory {
        text.push_str(&memory.render(width));
        text.push('\n');
    }
    if let Some(headline) = headline(record, &summary) {
        let _ = writeln!(text, "{BOLD}{headline}{BOLD:#}");
    }
    text
}

/// The finding, in a sentence that names how the VM was run.
pub fn headline(record: &Record, summary: &Summary) -> Option<String> {
    let row = summary.metric(Metric::ToFirstInstruction)?;
    let ratio = row.ratio?;
    let vm = record.wall(crate::measure::plan::Wall::Vm)?;
    let (times, faster) =
        if ratio.value >= 1.0 { (ratio.value, "container") } else { (1.0 / ratio.value, "VM") };
    Some(format!(
        "The {faster} reached its first instruction {}× sooner (VM by: {}).",
        figures::digits(times),
        vm.obtained.label()
    ))
}

fn warnings(text: &mut String, summary: &Summary, width: usize) {
    for warning in &summary.warnings {
        let wrapped = wrap(&figures::plain(&warning.text), width.saturating_sub(9).max(20));
        let _ = writeln!(text, "{WARNING}warning{WARNING:#}  {}", wrapped.join("\n         "));
    }
    if !summary.warnings.is_empty() {
        text.push('\n');
    }
}

/// A table with a column for each wall, under its name what it was obtained by.
fn table(record: &Record, last: &str) -> Table {
    let names = record.walls.iter().map(|wall| title(wall.wall));
    let obtained = record.walls.iter().map(|wall| wall.obtained.label());
    Table::new(std::iter::once("").chain(names).chain([last])).with_notes(std::iter::once("").chain(obtained))
}

fn times(record: &Record, summary: &Summary) -> Table {
    let mut table = table(record, "VM / container");
    for row in &summary.metrics {
        let ratio = row.ratio.as_ref().map_or_else(String::new, figures::ratio);
        table.row(BOLD, cells(record, row, row.metric.label(), figures::median, ratio));
        let tail = |stats: &Stats| format!("{} / {}", figures::time(stats.p90), figures::time(stats.p99));
        table.row(DIM, cells(record, row, "  p90 / p99", tail, String::new()));
        let ends = |stats: &Stats| format!("{} … {}", figures::time(stats.min), figures::time(stats.max));
        table.row(DIM, cells(record, row, "  min … max", ends, String::new()));
    }
    table
}

fn cells(
    record: &Record,
    row: &MetricSummary,
    name: &str,
    cell: impl Fn(&Stats) -> String,
    last: String,
) -> Vec<String> {
    let walls = record.walls.iter().map(|wall| row.wall(wall.wall).map_or_else(|| "–".into(), &cell));
    std::iter::once(name.to_owned()).chain(walls).chain([last]).collect()
}

fn memory(record: &Record) -> Option<Table> {
    let rows = memory_rows(record);
    if rows.is_empty() {
        return None;
    }
    let mut table = table(record, "how");
    for (index, row) in rows.iter().enumerate() {
        let values = row.values.iter().map(|value| value.map_or_else(|| "–".into(), figures::bytes));
        let cells = std::iter::once(row.name.clone()).chain(values).chain([row.how.to_owned()]);
        table.row(if index == 0 { BOLD } else { DIM }, cells);
    }
    Some(table)
}

/// Breaks a text into lines at spaces.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        } else if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixtures;
    use crate::measure::plan::Wall;

    fn plain(record: &Record, width: usize) -> String {
        anstream::adapter::strip_str(&render(record, width)).to_string()
    }

    #[test]
    fn the_report_holds_the_figures_the_waterfalls_and_the_machine() {
        let text = plain(&fixtures::record(10), 120);
        for part in
            ["start → first instruction", "VM / container", "one clock", "PSS", "Example CPU", "seed 42"]
        {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn no_vm_figure_appears_without_what_it_was_obtained_by() {
        for width in [40, 80, 160] {
            let text = plain(&fixtures::record(10), width);
            assert!(text.contains("KVM, not hardware-backed"), "{text}");
            assert!(text.contains("VM by: KVM, not hardware-backed"), "{text}");
        }
    }

    #[test]
    fn a_missing_wall_is_named_and_the_other_is_reported() {
        let text = plain(&fixtures::without(fixtures::record(10), Wall::Vm), 120);
        assert!(text.contains("No figures for the VM: /dev/kvm is missing."), "{text}");
        assert!(text.contains("start → workload's exit"));
    }

    #[test]
    fn nothing_measured_is_said_in_one_line() {
        let record = fixtures::without(fixtures::without(fixtures::record(2), Wall::Vm), Wall::Container);
        assert!(plain(&record, 80).ends_with("No run succeeded: there is nothing to compare.\n"));
    }

    #[test]
    fn warnings_are_wrapped_at_the_width() {
        assert_eq!(wrap("a bb ccc dddd", 6), ["a bb", "ccc", "dddd"]);
    }
}

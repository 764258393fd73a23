//! Several results in a terminal: a list, two beside each other, a class's.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};

use super::spark;
use super::terminal::paragraph;
use crate::measure::bench::compare::{Difference, Verdict};
use crate::measure::bench::pool::Pool;
use crate::measure::bench::store::Stored;
use crate::measure::record::Ended;
use crate::measure::stats::{Interval, Stats};
use crate::measure::store::Error;
use crate::report::figures;
use crate::report::table::Table;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const WARNING: Style = AnsiColor::Yellow.on_default();

/// The stored results, a line each.
pub fn list(results: &[(PathBuf, Result<Stored, Error>)], width: usize) -> String {
    let mut table = Table::new(["result", "when", "what", "VM by", "runs", "machine"]);
    let mut unreadable = String::new();
    for (path, result) in results {
        let stored = match result {
            Ok(stored) => stored,
            Err(error) => {
                paragraph(&mut unreadable, WARNING, "warning", &error.to_string(), width);
                continue;
            }
        };
        let kind = match stored {
            Stored::Bench(_) => "bench",
            Stored::Comparison(_) => "compare",
        };
        let bench = stored.clone().into_bench();
        let names: Vec<_> = bench.experiments.iter().map(|experiment| experiment.name.as_str()).collect();
        let what = match names.len() {
            0..=3 => names.join(" "),
            n => format!("{} … {n}", names[..2].join(" ")),
        };
        let part = if bench.ended == Ended::Complete { "" } else { ", interrupted" };
        let vm = bench.subjects.iter().find(|subject| subject.name == "vm");
        let runs: usize = bench.experiments.iter().map(|experiment| experiment.runs.len()).sum();
        table.row(
            Style::new(),
            [
                name(path),
                bench.created.clone(),
                format!("{kind}: {what}{part}"),
                vm.map_or_else(|| "–".into(), |vm| vm.obtained.label().to_owned()),
                runs.to_string(),
                figures::plain(bench.environment.cpu.as_deref().unwrap_or("unknown")),
            ],
        );
    }
    if results.is_empty() {
        return "No results yet; lab compare and lab bench store theirs.\n".into();
    }
    table.render(width) + &unreadable
}

/// A file's name without folder and ending, by which `lab results` finds it again.
pub fn name(path: &Path) -> String {
    figures::plain(&path.file_stem().unwrap_or_default().to_string_lossy())
}

/// Two results beside each other.
pub fn difference(names: (&str, &str), difference: &Difference, width: usize) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{BOLD}{} → {}{BOLD:#}\n", figures::plain(names.0), figures::plain(names.1));
    if let Some(times) = difference.normalised {
        let remark = format!(
            "the machines differ: the second takes {}× as long for fork and exec, and its times are divided by that",
            figures::digits(times)
        );
        paragraph(&mut text, DIM, "note", &remark, width);
    }
    for remark in &difference.remarks {
        paragraph(&mut text, WARNING, "warning", remark, width);
    }
    let mut table = Table::new(["", "before", "after", "ratio [95 %]", "p", "Cliff's δ", ""]);
    for row in &difference.rows {
        let style = match row.verdict {
            Verdict::Better => AnsiColor::Green.on_default(),
            Verdict::Worse => AnsiColor::Red.on_default(),
            Verdict::Different => AnsiColor::Yellow.on_default(),
            _ => DIM,
        };
        let quantity = |value| figures::quantity(value, row.unit);
        let comparable = row.verdict != Verdict::Incomparable;
        let obtained = if row.obtained.0 == row.obtained.1 {
            row.obtained.0.to_owned()
        } else {
            format!("{} → {}", row.obtained.0, row.obtained.1)
        };
        table.row(
            style,
            [
                format!("{}: {}, {} ({obtained})", row.experiment, row.metric, row.case),
                quantity(row.medians.0),
                quantity(row.medians.1),
                row.ratio.as_ref().filter(|_| comparable).map_or_else(String::new, figures::ratio),
                row.effect.filter(|_| comparable).map_or_else(String::new, |it| figures::digits(it.p)),
                row.effect
                    .filter(|_| comparable)
                    .map_or_else(String::new, |it| format!("{} {}", figures::digits(it.delta), it.size())),
                row.verdict.label().to_owned(),
            ],
        );
    }
    if difference.rows.is_empty() {
        text.push_str("The two have no figure in common.\n");
        return text;
    }
    text.push_str(&table.render(width));
    let count = |verdict| difference.rows.iter().filter(|row| row.verdict == verdict).count();
    let _ = writeln!(
        text,
        "\n{BOLD}{} better, {} worse, {} without a difference above the noise{BOLD:#} \
         {DIM}(permutation test, p < 0.05; at least 5 % apart){DIM:#}",
        count(Verdict::Better),
        count(Verdict::Worse),
        count(Verdict::Same)
    );
    text
}

/// A class's results.
pub fn pool(pool: &Pool, machines: usize, width: usize) -> String {
    let mut text = format!("{BOLD}{machines} results{BOLD:#}\n\n");
    let headings = ["", "median [95 %]", "least … greatest", "× fork + exec", "machines", "", "far off"];
    let mut table = Table::new(headings);
    for row in &pool.rows {
        let quantity = |value| figures::quantity(value, row.unit);
        let interval = row.stats.interval.map_or_else(String::new, |Interval { low, high }| {
            format!(" [{}, {}]", quantity(low), quantity(high))
        });
        let values: Vec<f64> = row.machines.iter().map(|machine| machine.1).collect();
        let spread = |stats: &Stats| format!("{} … {}", quantity(stats.min), quantity(stats.max));
        table.row(
            if row.odd.is_empty() { Style::new() } else { WARNING },
            [
                format!("{}: {}, {}", row.experiment, row.metric, row.case),
                format!("{}{interval}", quantity(row.stats.median)),
                spread(&row.stats),
                row.normalised.as_ref().map_or_else(String::new, |stats| figures::digits(stats.median)),
                row.machines.len().to_string(),
                spark(&values),
                row.odd.join(", "),
            ],
        );
    }
    text.push_str(&table.render(width));
    for odd in &pool.odd {
        let because = match odd.because.len() {
            0 => "nothing in its environment sets it apart".to_owned(),
            _ => format!("what sets it apart: {}", odd.because.join("; ")),
        };
        text.push('\n');
        let count = odd.rows;
        let content = format!("{} lies far from the others in {count} figures; {because}", odd.machine);
        paragraph(&mut text, WARNING, "odd", &content, width);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::bench::record::tests::bench;
    use crate::measure::bench::{compare, pool as pooling};

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_difference_says_what_it_rests_on() {
        let text = plain(&difference(("a", "b"), &compare::difference(&bench(10), &bench(10)), 200));
        assert!(text.contains("0 better, 0 worse, 2 without a difference"), "{text}");
        assert!(text.contains("KVM, not hardware-backed") && text.contains("p < 0.05"), "{text}");
    }

    #[test]
    fn a_pool_names_the_odd_machine_and_what_sets_it_apart() {
        let machine = |number: u32| {
            let mut bench = bench(5);
            if number == 4 {
                bench.environment.governor = Some("powersave".into());
                let values = bench.experiments[0].runs.iter_mut().flat_map(|run| &mut run.values);
                values.for_each(|values| values.samples.iter_mut().for_each(|value| *value *= 9.0));
            }
            (format!("desk-{number}"), bench)
        };
        let results: Vec<_> = (0..6).map(machine).collect();
        let text = plain(&pool(&pooling::pool(&results), results.len(), 200));
        assert!(text.contains("desk-4 lies far") && text.contains("governor: powersave"), "{text}");
    }
}

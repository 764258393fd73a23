//! The report as one self-contained page: no script, no outside request, light and dark, readable on a phone.
//!
//! Written with `maud`, which checks the markup when the lab is compiled and escapes every value: names of images and
//! messages of failed runs come from elsewhere. The plots (`plots`) are drawn here rather than by a plotting library:
//! those write fixed colours and a fixed width, and so can neither follow the reader's theme nor fit a phone.

mod glossary;
mod plots;

use maud::{DOCTYPE, Markup, PreEscaped, html};

pub(super) use plots::ticks;

use super::waterfall::{self, Run, title};
use super::{environment_rows, figures, memory_rows, plan_line, terminal};
use crate::measure::phases::{Group, milliseconds};
use crate::measure::plan::Wall;
use crate::measure::record::{Outcome, Record};
use crate::measure::store;
use crate::measure::summary::{Metric, Summary};

/// How many runs the table of raw samples shows; the rest is in the data that the page carries.
const MOST_ROWS: usize = 400;
/// The largest result that the page carries whole, as a link to save. Browsers refuse links of many megabytes.
pub(super) const MOST_EMBEDDED: usize = 1 << 20;

/// Writes the page.
pub fn render(record: &Record) -> String {
    let summary = Summary::of(record);
    let runs = waterfall::runs(record);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "One workload, two walls: " (record.plan.image) }
                style { (PreEscaped(include_str!("page.css"))) }
            }
            body {
                header {
                    p.kicker { "One workload, two walls" }
                    h1 { (plan_line(record)) }
                    (headline(record, &summary))
                }
                main {
                    (warnings(&summary))
                    @if !runs.is_empty() {
                        (times(record, &summary))
                        (waterfalls(&runs))
                        (distributions(record))
                    }
                    (memory(record))
                    (environment(record))
                    (reproduce(record))
                    (samples(record))
                    (glossary::section())
                }
                footer { p { "Written by lab " (record.lab) " from measurements of " (record.created) "." } }
            }
        }
    };
    page.into_string()
}

/// The two medians and their ratio, large.
fn headline(record: &Record, summary: &Summary) -> Markup {
    let metric = Metric::ToFirstInstruction;
    let Some(row) = summary.metric(metric).filter(|row| !row.walls.is_empty()) else {
        return html! { p.lead { "No run succeeded: there is nothing to compare." } };
    };
    html! {
        @if let Some(sentence) = terminal::headline(record, summary) { p.lead { (sentence) } }
        div.cards {
            @for wall in &record.walls {
                @if let Some(stats) = row.wall(wall.wall) {
                    div class={ "card " (wall.wall.name()) } {
                        p.name { (title(wall.wall)) }
                        p.figure { (figures::time(stats.median)) }
                        p.note { "median, " (metric.label()) }
                        p.obtained { (wall.obtained.label()) }
                    }
                }
            }
            @if let Some(ratio) = &row.ratio {
                div.card {
                    p.name { "VM / container" }
                    p.figure { (figures::digits(ratio.value)) "×" }
                    @if let Some(interval) = ratio.interval {
                        p.note { "95 % interval " (figures::digits(interval.low)) " to " (figures::digits(interval.high)) }
                    }
                    @if record.wall(Wall::Vm).is_some_and(|vm| !vm.obtained.is_representative()) {
                        p.obtained { "not a figure for hardware" }
                    }
                }
            }
        }
    }
}

fn warnings(summary: &Summary) -> Markup {
    html! {
        @if !summary.warnings.is_empty() {
            section.warnings aria-label="Warnings" {
                ul { @for warning in &summary.warnings { li { (figures::plain(&warning.text)) } } }
            }
        }
    }
}

fn times(record: &Record, summary: &Summary) -> Markup {
    html! {
        section {
            h2 { "Time" }
            @for row in &summary.metrics {
                h3 { (row.metric.label()) }
                div.scroll { table {
                    thead { tr { th { "" } th { "median [95 %]" } th { "p90" } th { "p99" } th { "min" } th { "max" } th { "n" } } }
                    tbody { @for wall in &record.walls { @if let Some(stats) = row.wall(wall.wall) {
                        tr {
                            th scope="row" { span class={ "dot " (wall.wall.name()) } {} (title(wall.wall)) small { (wall.obtained.label()) } }
                            td { (figures::median(stats)) }
                            @for value in [stats.p90, stats.p99, stats.min, stats.max] { td { (figures::time(value)) } }
                            td { (stats.n) }
                        }
                    } } }
                    @if let Some(ratio) = &row.ratio {
                        tfoot { tr { th scope="row" { "VM / container" } td colspan="6" { (figures::ratio(ratio)) } } }
                    }
                } }
            }
        }
    }
}

pub(super) fn waterfalls(runs: &[Run<'_>]) -> Markup {
    let longest = runs.iter().map(Run::total).fold(0.0, f64::max);
    let groups = Group::ALL
        .into_iter()
        .filter(|group| runs.iter().any(|run| run.phases.iter().any(|phase| phase.group == *group)));
    html! {
        section {
            h2 { "Start-up, step by step" }
            p { "The median run of each wall: a run that really happened, each mark read from one host clock." }
            ul.legend { @for group in groups { li { span class={ "swatch " (plots::class(group)) } {} (group.label()) } } }
            @if runs.len() > 1 {
                h3 { "Both on one clock" }
                (plots::one_clock(runs, longest))
            }
            div.columns { @for run in runs {
                div {
                    h3 { (title(run.wall.wall)) small { (run.wall.obtained.label()) ", run " (run.sequence) } }
                    @if longest / run.total() >= 1.5 {
                        p.note { "Magnified " (figures::digits(longest / run.total())) "× against the longer one." }
                    }
                    (plots::steps(run))
                }
            } }
        }
    }
}

fn distributions(record: &Record) -> Markup {
    let metric = Metric::ToFirstInstruction;
    html! {
        section {
            h2 { "Every run" }
            p { "Share of the runs that had reached their first instruction by then (a cumulative distribution), with each \
                 run as a dot below. The band is the 95 % interval of the median. Each plot has a scale of its own." }
            div.columns { @for wall in record.walls.iter().filter(|wall| wall.counted().next().is_some()) {
                div {
                    h3 { (title(wall.wall)) small { (wall.obtained.label()) } }
                    (plots::distribution(record, wall.wall, metric))
                }
            } }
        }
    }
}

fn memory(record: &Record) -> Markup {
    let rows = memory_rows(record);
    html! {
        @if !rows.is_empty() {
            section {
                h2 { "Memory of one idle sandbox" }
                p { "The most trustworthy figure first." }
                (plots::memory(record, &rows))
                details {
                    summary { "By process" }
                    div.scroll { table {
                        thead { tr { th { "process" } th { "in all" } th { "PSS" } th { "private dirty" } th { "RSS" } } }
                        tbody { @for wall in &record.walls { @for process in wall.memory.iter().flat_map(|memory| &memory.processes) {
                            tr {
                                th scope="row" { span class={ "dot " (wall.wall.name()) } {} (figures::plain(&process.role)) small { (title(wall.wall)) ", " (wall.obtained.label()) } }
                                td { (process.count) }
                                @for bytes in [process.pss, process.private_dirty, process.rss] { td { (figures::bytes(bytes as i64)) } }
                            }
                        } } }
                    } }
                }
            }
        }
    }
}

fn environment(record: &Record) -> Markup {
    html! {
        section {
            h2 { "Where it was measured" }
            dl { @for (name, value) in environment_rows(record) { dt { (name) } dd { (figures::plain(&value)) } } }
        }
    }
}

fn reproduce(record: &Record) -> Markup {
    let json = serde_json::to_string(record).unwrap_or_default();
    html! {
        section {
            h2 { "How to reproduce" }
            p { "The same order of runs on your machine:" }
            pre { code { (figures::command_line(&record.reproduce)) } }
            p { "This page again, from the stored samples:" }
            pre { code { "lab compare --from RESULT.json --html report.html" } }
            @if json.len() <= MOST_EMBEDDED {
                p { a download="result.json" href={ "data:application/json," (percent_encoded(&json)) } {
                    "Save the raw samples (JSON, schema " (record.schema) " " (record.version) ")"
                } }
            } @else {
                p { "The raw samples (" (figures::bytes(json.len() as i64)) ") are too many for this page: see the stored result." }
            }
        }
    }
}

fn samples(record: &Record) -> Markup {
    let mut samples: Vec<_> = record
        .walls
        .iter()
        .flat_map(|wall| wall.samples.iter().map(move |sample| (wall.wall, sample)))
        .collect();
    samples.sort_by_key(|(_, sample)| sample.sequence);
    html! {
        section {
            h2 { "Raw samples" }
            details {
                summary { (samples.len()) " runs, in the order in which they were made" }
                div.scroll { table {
                    thead { tr { th { "run" } th { "wall" } @for metric in Metric::ALL { th { (metric.label()) } } th { "exit" } th { "" } } }
                    tbody { @for (wall, sample) in samples.iter().take(MOST_ROWS) {
                        tr {
                            td { (sample.sequence) }
                            th scope="row" { span class={ "dot " (wall.name()) } {} (title(*wall)) }
                            @for metric in Metric::ALL { td { (metric.of(sample).map_or_else(|| "–".into(), figures::time)) } }
                            td { (sample.exit.map_or_else(|| "–".into(), |code| code.to_string())) }
                            td.note { (remark(sample)) }
                        }
                    } }
                } }
                @if samples.len() > MOST_ROWS { p.note { "The first " (MOST_ROWS) "; all are in the stored result." } }
            }
        }
    }
}

fn remark(sample: &crate::measure::record::Sample) -> String {
    let warmup = if sample.warmup { "warm-up, not counted" } else { "" };
    match &sample.outcome {
        Outcome::Ok => warmup.into(),
        Outcome::Interrupted => {
            format!("interrupted after {}", figures::time(milliseconds(sample.spawned, sample.ended)))
        }
        Outcome::Failed { message } => format!("failed: {}", figures::plain(message)),
    }
}

/// For a data URL (RFC 2397): all but the unreserved characters of RFC 3986.
pub(super) fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~,:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Reads a stored result and writes its page: what `lab compare --from` does.
///
/// # Errors
/// Where the result cannot be read.
pub fn of_stored(path: &std::path::Path) -> Result<String, store::Error> {
    store::load(path).map(|record| render(&record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixtures;

    #[test]
    fn the_page_asks_for_nothing_from_outside_and_needs_no_script() {
        let page = render(&fixtures::record(12));
        for forbidden in ["http://", "https://", "<script", "@import", "url(", "src="] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }

    #[test]
    fn names_and_messages_from_elsewhere_stay_text() {
        let mut record = fixtures::record(3);
        let evil = "<img onerror=alert(1)>\"'&";
        record.plan.image = evil.into();
        record.plan.command = vec![evil.into()];
        record.walls[1].unavailable = Some(evil.into());
        record.walls[0].samples[1].outcome = Outcome::Failed { message: evil.into() };
        record.walls[0].memory.as_mut().unwrap().processes[0].role = evil.into();
        assert!(!render(&record).contains("<img"));
    }

    #[test]
    fn a_vm_s_figures_stand_beside_what_it_was_obtained_by() {
        let page = render(&fixtures::record(12));
        assert!(page.matches("KVM, not hardware-backed").count() >= 6);
        assert!(page.contains("not a figure for hardware"));
    }

    #[test]
    fn one_wall_or_none_still_makes_a_page() {
        let one = fixtures::without(fixtures::record(12), Wall::Vm);
        assert!(render(&one).contains("No figures for the VM"));
        let none = fixtures::without(one, Wall::Container);
        assert!(render(&none).contains("nothing to compare"));
    }

    #[test]
    fn ten_thousand_samples_make_a_page_that_opens_at_once() {
        let page = render(&fixtures::record(5_000));
        assert!(page.len() < 2_000_000, "{} bytes", page.len());
    }

    #[test]
    fn the_raw_samples_can_be_saved_from_the_page() {
        let record = fixtures::record(3);
        let page = render(&record);
        let start = page.find("data:application/json,").unwrap() + "data:application/json,".len();
        let encoded = &page[start..start + page[start..].find('"').unwrap()];
        let mut bytes = Vec::new();
        let mut rest = encoded.as_bytes();
        while let [first, tail @ ..] = rest {
            if *first == b'%' {
                bytes.push(u8::from_str_radix(std::str::from_utf8(&tail[..2]).unwrap(), 16).unwrap());
                rest = &tail[2..];
            } else {
                bytes.push(*first);
                rest = tail;
            }
        }
        assert!(serde_json::from_slice::<Record>(&bytes).unwrap() == record);
    }
}

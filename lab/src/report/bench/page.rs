//! A bench as one self-contained page: no script, no outside request, light and dark, readable on a phone.
//!
//! From each figure a link leads to the raw values it was computed from, and beside these stands the command that made them.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{against, label, plots, spark, starts, terminal};
use crate::measure::bench::record::{Bench, ExperimentRecord, MetricRecord, Run};
use crate::measure::bench::store::json_text;
use crate::measure::bench::summary::{self, Row};
use crate::measure::experiments;
use crate::measure::record::Outcome;
use crate::report::html::{self as comparison, MOST_EMBEDDED};
use crate::report::{figures, waterfall};

/// Writes the page.
pub fn render(bench: &Bench) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "One workload, two walls: bench" }
                style { (PreEscaped(include_str!("../html/page.css"))) }
            }
            body {
                header {
                    p.kicker { "One workload, two walls" }
                    h1 { (terminal::headline(bench)) }
                    nav { ul.legend { @for experiment in &bench.experiments {
                        li { a href={ "#" (experiment.name) } { (experiment.name) } }
                    } } }
                }
                main {
                    (warnings(bench))
                    @for experiment in &bench.experiments { (section(bench, experiment)) }
                    section {
                        h2 { "Where it was measured, and who" }
                        dl { @for (name, value) in terminal::environment(bench) { dt { (name) } dd { (figures::plain(&value)) } } }
                    }
                    (reproduce(bench))
                    (reading())
                }
                footer { p { "Written by lab " (bench.lab) " from measurements of " (bench.created) "." } }
            }
        }
    };
    page.into_string()
}

fn warnings(bench: &Bench) -> Markup {
    let warnings = terminal::warnings(bench);
    html! { @if !warnings.is_empty() {
        section.warnings aria-label="Warnings" { ul { @for warning in &warnings { li { (figures::plain(warning)) } } } }
    } }
}

fn section(bench: &Bench, experiment: &ExperimentRecord) -> Markup {
    let about = experiments::find(&experiment.name).map(crate::measure::bench::Experiment::about);
    let warnings = summary::warnings(bench, experiment);
    html! {
        section id=(experiment.name) {
            h2 { (experiment.name) }
            @if let Some(about) = about {
                p.lead { (about.question) }
                details {
                    summary { "How it is measured, what the figures do not show, and what the literature found" }
                    p { (about.method) }
                    p { b { "Blind spot. " } (about.blind_spot) }
                    ul { @for paper in about.papers { li { (paper.source) ": " (paper.says) "." } } }
                }
            }
            @for metric in &experiment.metrics {
                @let rows = summary::rows(bench, experiment, metric);
                @if !rows.is_empty() { (table(bench, experiment, metric, &rows)) }
            }
            @if experiment.name == "startup" { (waterfalls(bench, experiment)) }
            @let plots = plots::of_experiment(bench, experiment);
            @if !plots.is_empty() {
                div.columns { @for plot in &plots { div { h3 { (plot.title) } (plot.inline()) } } }
            }
            @for absent in &experiment.absent { p.note { "Absent: " (absent.subject) ": " (figures::plain(&absent.reason)) } }
            @for (case, fact) in terminal::facts(bench, experiment) { p.note { (case) ": " (fact) } }
            @if !warnings.is_empty() { ul.note { @for warning in &warnings { li { (figures::plain(warning)) } } } }
            (raw(bench, experiment))
        }
    }
}

fn table(bench: &Bench, experiment: &ExperimentRecord, metric: &MetricRecord, rows: &[Row<'_>]) -> Markup {
    html! {
        h3 { (metric.label) }
        div.scroll { table {
            thead { tr { th { "" } th { "median [95 %]" } th { "p90" } th { "p99" } th { "× container" } th { "p" } th { "Cliff's δ" } th { "n" } th { "" } } }
            tbody { @for row in rows {
                @let (title, obtained) = label(bench, row.subject, row.variant);
                tr {
                    th scope="row" { span class={ "dot " (row.subject) } {} (title) small { (obtained) } }
                    td { a href={ "#" (anchor(experiment, metric, row)) } { (figures::quantity(row.stats.median, metric.unit)) } (terminal::interval(row, metric)) }
                    @for value in [row.stats.p90, row.stats.p99] { td { (figures::quantity(value, metric.unit)) } }
                    td { (against(row)) }
                    td { @if let Some(effect) = row.effect { (figures::digits(effect.p)) } }
                    td { @if let Some(effect) = row.effect { (figures::digits(effect.delta)) " " small { (effect.size()) } } }
                    td { (row.values.len()) @if row.values.len() != row.runs.len() { " / " (row.runs.len()) } }
                    td { (spark(&row.values)) }
                }
            } }
        } }
    }
}

fn anchor(experiment: &ExperimentRecord, metric: &MetricRecord, row: &Row<'_>) -> String {
    let text = format!("raw-{}-{}-{}-{}", experiment.name, metric.name, row.subject, row.variant);
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

/// Every value, and the command that it came from.
fn raw(bench: &Bench, experiment: &ExperimentRecord) -> Markup {
    html! {
        details {
            summary { "Raw values: " (experiment.runs.len()) " runs, and the commands that made them" }
            @for metric in &experiment.metrics { @for row in summary::rows(bench, experiment, metric) {
                @let (title, obtained) = label(bench, row.subject, row.variant);
                div id=(anchor(experiment, metric, &row)) {
                    h3 { (metric.label) small { (title) ", " (obtained) } }
                    @if let Some(run) = experiment.counted(row.subject, row.variant).find(|run| !run.command.is_empty()) {
                        pre { code { (figures::plain(&run.command)) } }
                    }
                    p.raw { (numbers(&row.values)) }
                }
            } }
            @let others: Vec<&Run> = experiment.runs.iter().filter(|run| !run.counts()).collect();
            @if !others.is_empty() {
                h3 { "Not counted" }
                ul.note { @for run in others {
                    li { "run " (run.sequence) ", " (summary::case(&run.subject, &run.variant)) ": " (why_not(run)) " " span.raw { @for values in &run.values { (values.metric) " " (numbers(&values.samples)) " " } } }
                } }
            }
        }
    }
}

fn why_not(run: &Run) -> String {
    match &run.outcome {
        Outcome::Ok => "warm-up".into(),
        Outcome::Interrupted => "interrupted".into(),
        Outcome::Failed { message } => format!("failed: {}", figures::plain(message)),
    }
}

fn numbers(values: &[f64]) -> String {
    values
        .iter()
        .map(|value| format!("{value:.6}").trim_end_matches('0').trim_end_matches('.').to_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The median start of each wall of the lab, step by step.
fn waterfalls(bench: &Bench, experiment: &ExperimentRecord) -> Markup {
    let walls = starts::walls(bench, experiment);
    let runs: Vec<_> = walls.iter().filter_map(waterfall::Run::median_of).collect();
    html! { @if !runs.is_empty() { (comparison::waterfalls(&runs)) } }
}

fn reproduce(bench: &Bench) -> Markup {
    let json = json_text(bench);
    html! {
        section {
            h2 { "How to reproduce" }
            p { "The same order of runs on your machine:" }
            pre { code { (figures::command_line(&bench.reproduce)) } }
            p { "This page again, from the stored samples; and both results beside each other:" }
            pre { code { "lab results show RESULT.json --html report.html\nlab results diff RESULT.json YOURS.json" } }
            @if json.len() <= MOST_EMBEDDED {
                p { a download="result.json" href={ "data:application/json," (comparison::percent_encoded(&json)) } {
                    "Save the raw samples (JSON, schema " (bench.schema) " " (bench.version) ")"
                } }
            } @else {
                p { "The raw samples (" (figures::bytes(json.len() as i64)) ") are too many for this page: see the stored result." }
            }
        }
    }
}

const TERMS: [(&str, &str); 7] = [
    (
        "median [95 %]",
        "Half of the values are below. The interval is a bootstrap's: of the runs' medians where there are six runs or more, else of the values.",
    ),
    ("p90, p99", "90 or 99 of 100 values are below. With few values, p99 is the greatest."),
    (
        "× container",
        "The median divided by the container's (or the host's, where no container takes part), in the same variation. ≈: no difference above the noise. ?: too few values to tell.",
    ),
    (
        "p",
        "How probable so large a difference of the medians is if both came from one distribution: a permutation test.",
    ),
    (
        "Cliff's δ",
        "How much more often a value is above one of the container's than below: from −1, always below, to 1, always above.",
    ),
    ("n", "How many values, and of how many runs where a run has several."),
    (
        "dashed lines",
        "Published figures, each named below the plot: from other machines and years, to be set beside, not to be compared digit by digit.",
    ),
];

fn reading() -> Markup {
    html! { section {
        h2 { "What the columns mean" }
        dl.glossary { @for (term, meaning) in TERMS { dt { (term) } dd { (meaning) } } }
    } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::bench::record::Values;
    use crate::measure::bench::record::tests::bench;

    #[test]
    fn the_page_asks_for_nothing_from_outside_and_needs_no_script() {
        let page = render(&bench(12));
        for forbidden in ["http://", "https://", "<script", "@import", "url(", "src="] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }

    #[test]
    fn each_figure_leads_to_its_raw_values_and_their_command() {
        let page = render(&bench(12));
        let target = "raw-startup-first-output-vm-";
        assert!(page.contains(&format!("href=\"#{target}\"")) && page.contains(&format!("id=\"{target}\"")));
        assert!(page.contains("lab run --runtime vm lab hello"));
    }

    #[test]
    fn names_and_messages_from_elsewhere_stay_text() {
        let mut bench = bench(6);
        let evil = "<img onerror=alert(1)>\"'&";
        bench.image = evil.into();
        bench.subjects[1].title = evil.into();
        bench.subjects[1].unavailable = Some(evil.into());
        bench.experiments[0].runs[1].outcome = Outcome::Failed { message: evil.into() };
        bench.experiments[0].runs[2].command = evil.into();
        bench.experiments[0].runs[2].facts.insert(evil.into(), evil.into());
        bench.experiments[0].name = evil.into();
        assert!(!render(&bench).contains("<img"));
    }

    #[test]
    fn ten_thousand_samples_make_a_page_of_less_than_two_megabytes() {
        let mut bench = bench(8);
        for run in &mut bench.experiments[0].runs {
            run.values = vec![Values {
                metric: "first-output".into(),
                x: None,
                samples: (0..625).map(|i| 9.0 + f64::from(i) / 7.0).collect(),
            }];
        }
        let page = render(&bench);
        assert!(page.len() < 2_000_000, "{} bytes", page.len());
    }

    #[test]
    fn a_vm_s_figures_stand_beside_what_it_was_obtained_by() {
        assert!(render(&bench(8)).matches("KVM, not hardware-backed").count() >= 4);
    }
}

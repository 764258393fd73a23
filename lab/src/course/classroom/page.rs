//! The results of a class as one page, and as CSV.

use std::collections::BTreeMap;

use maud::{DOCTYPE, html};

use super::super::LESSONS;
use super::super::report::Report;

/// The results by student.
pub type Class = BTreeMap<String, Vec<Report>>;

/// A table: a row a student, a column a lesson; below it, which mistakes are common now.
pub fn render(class: &Class) -> String {
    let cell = |reports: &[Report], lesson: &str| {
        let report = reports.iter().find(|report| report.lesson == lesson);
        report.map_or_else(String::new, |report| {
            let mark = if report.passed() { "✓ " } else { "" };
            format!("{mark}{}/{}", report.count(), report.checks.len())
        })
    };
    let mut causes: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for report in class.values().flatten() {
        for cause in report.checks.iter().filter_map(|check| check.cause.as_deref()) {
            *causes.entry((report.lesson.as_str(), cause)).or_default() += 1;
        }
    }
    let mut causes: Vec<_> = causes.into_iter().collect();
    causes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                meta http-equiv="refresh" content="10";
                title { "Results of the class" }
                style {
                    "body{font:16px sans-serif;margin:2em}table{border-collapse:collapse}"
                    "td,th{border:1px solid #aaa;padding:.3em;text-align:left}td{white-space:nowrap}th{background:#eef;font-size:.8em}"
                    ".done{background:#dfd}main{overflow-x:auto}"
                    "@media(prefers-color-scheme:dark){body{background:#112;color:#dde}th{background:#224}.done{background:#252}}"
                }
            }
            body {
                h1 { "Results of the class" }
                p { (class.len()) @if class.len() == 1 { " student" } @else { " students" } }
                main {
                    table {
                        tr { th { "student" } @for lesson in LESSONS { th { (lesson.name) } } }
                        @for (name, reports) in class {
                            tr {
                                th { (name) }
                                @for lesson in LESSONS {
                                    @let text = cell(reports, lesson.name);
                                    td class=[text.starts_with('✓').then_some("done")] { (text) }
                                }
                            }
                        }
                    }
                }
                @if !causes.is_empty() {
                    h2 { "What stands in the way" }
                    table {
                        tr { th { "lesson" } th { "cause" } th { "students" } }
                        @for ((lesson, cause), count) in causes {
                            tr { td { (lesson) } td { (cause) } td { (count) } }
                        }
                    }
                }
            }
        }
    }
    .into_string()
}

//! What experiments ask and what their answers are worth, for `lab bench --list` and `--explain`.

use std::fmt::Write as _;

use anstyle::Style;

use crate::measure::bench::Experiment;
use crate::measure::experiments::ALL;
use crate::report::terminal::wrap;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// All experiments, a line each.
pub fn list() -> String {
    let mut text = String::new();
    for experiment in ALL {
        let about = experiment.about();
        let _ = writeln!(text, "{BOLD}{:12}{BOLD:#} {}", about.name, about.question);
    }
    let _ = writeln!(
        text,
        "{DIM}network      not there yet: a virtual machine of the lab has no network device{DIM:#}"
    );
    text
}

/// One experiment, all that is to be known.
pub fn explain(experiment: &dyn Experiment, width: usize) -> String {
    let about = experiment.about();
    let mut text = format!("{BOLD}{}{BOLD:#}\n", about.name);
    paragraph(&mut text, "asks", about.question, width);
    paragraph(&mut text, "method", about.method, width);
    paragraph(&mut text, "blind to", about.blind_spot, width);
    for metric in experiment.metrics() {
        paragraph(&mut text, "figure", &format!("{} ({:?})", metric.label, metric.unit), width);
    }
    for paper in about.papers {
        paragraph(&mut text, "paper", &format!("{}: {}", paper.source, paper.says), width);
    }
    let (quick, long) = (experiment.rounds(true), experiment.rounds(false));
    paragraph(&mut text, "runs", &format!("{long} of each case, {quick} in the short form"), width);
    text
}

fn paragraph(text: &mut String, name: &str, content: &str, width: usize) {
    let lines = wrap(content, width.saturating_sub(12).max(20));
    for (line, name) in lines.iter().zip(std::iter::once(name).chain(std::iter::repeat(""))) {
        let _ = writeln!(text, "  {DIM}{name:10}{DIM:#}{line}");
    }
}

//! The claims in a terminal: each with its evidence, its verdict, and when that would be another.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::figures;
use super::table::Table;
use super::terminal::wrap;
use crate::claims::verdict::Decision;
use crate::claims::{Claim, Evidence, Figure, Judged};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// Writes all claims for a terminal of this width. Escapes for colours are in it: print it through `anstream`.
pub fn render(judged: &Judged, width: usize) -> String {
    claims(&super::plan_line(&judged.gathered.comparison), &judged.claims, width)
}

/// The same for claims from elsewhere, below a line that says from where.
pub fn claims(from: &str, claims: &[Claim], width: usize) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{DIM}{from}{DIM:#}\n");
    for (number, claim) in (1..).zip(claims) {
        let title = format!("{number} · {}", claim.name);
        let _ = writeln!(text, "{BOLD}{title}{BOLD:#}");
        paragraph(&mut text, "claim", Style::new(), claim.sentence, width);
        text.push_str(&table(claim).render(width));
        // What the VM was run by stands in the verdict's own line: whoever copies the line copies it too.
        let decision = claim.verdict.decision;
        let verdict = format!("{} (VM by: {})", decision.label(), claim.vm_by.label());
        paragraph(&mut text, "verdict", colour(decision), &verdict, width);
        for reason in &claim.verdict.because {
            paragraph(&mut text, because(decision), Style::new(), &figures::plain(reason), width);
        }
        for flip in &claim.flips {
            paragraph(&mut text, "flips?", DIM, flip, width);
        }
        text.push('\n');
    }
    text
}

const fn because(decision: Decision) -> &'static str {
    match decision {
        Decision::Holds | Decision::HoldsWithACondition => "if",
        Decision::DoesNotHoldHere | Decision::UndecidedHere => "because",
    }
}

const fn colour(decision: Decision) -> Style {
    let colour = match decision {
        Decision::Holds => AnsiColor::Green,
        Decision::HoldsWithACondition => AnsiColor::Yellow,
        Decision::DoesNotHoldHere => AnsiColor::Red,
        Decision::UndecidedHere => AnsiColor::Magenta,
    };
    colour.on_default().bold()
}

/// A text after its name, its further lines below its first.
fn paragraph(text: &mut String, name: &str, style: Style, content: &str, width: usize) {
    const NAME: usize = 9;
    let lines = wrap(content, width.saturating_sub(NAME).max(20));
    for (line, name) in lines.iter().zip(std::iter::once(name).chain(std::iter::repeat(""))) {
        let _ = writeln!(text, "{DIM}{name:NAME$}{DIM:#}{style}{line}{style:#}");
    }
}

/// The evidence; a column for the host only where something was taken there.
fn table(claim: &Claim) -> Table {
    let host = claim.evidence.iter().any(|evidence| evidence.host.is_some());
    let with_host = |columns: [String; 5]| {
        let columns = columns.into_iter().enumerate();
        columns.filter(move |&(index, _)| host || index != 1).map(|(_, column)| column)
    };
    let headings = ["", "host", "container", "VM", "how"].map(String::from);
    let notes = ["", "", "host kernel", claim.vm_by.label(), ""].map(String::from);
    let mut table = Table::new(with_host(headings)).with_notes(with_host(notes));
    for Evidence { name, host, container, vm, how } in &claim.evidence {
        let cells = [
            name.clone(),
            figure(host.as_ref()),
            figure(container.as_ref()),
            figure(vm.as_ref()),
            how.clone(),
        ];
        table.row(Style::new(), with_host(cells));
    }
    table
}

fn figure(figure: Option<&Figure>) -> String {
    match figure {
        None => "–".into(),
        Some(Figure::Milliseconds(time)) => figures::time(*time),
        Some(Figure::Bytes(bytes)) => figures::bytes(*bytes),
        Some(Figure::Count(count)) => count.to_string(),
        Some(Figure::Times(ratio)) => format!("{}×", figures::digits(*ratio)),
        Some(Figure::Text(text)) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::fixtures;
    use crate::measure::plan::Wall;

    fn plain(judged: &Judged, width: usize) -> String {
        anstream::adapter::strip_str(&render(judged, width)).to_string()
    }

    #[test]
    fn each_claim_has_its_evidence_its_verdict_and_its_conditions() {
        let text = plain(&fixtures::judged(fixtures::gathered()), 160);
        for name in ["1 · resources", "2 · time", "3 · isolation", "4 · portability"] {
            assert!(text.contains(name), "{text}");
        }
        for name in ["claim", "verdict", "flips?"] {
            assert!(text.lines().filter(|line| line.starts_with(name)).count() >= 4, "{name}\n{text}");
        }
    }

    #[test]
    fn no_table_and_no_verdict_appears_without_what_the_vm_was_run_by() {
        for width in [40, 80, 160] {
            let text = plain(&fixtures::judged(fixtures::gathered()), width);
            let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(one_line.matches("(VM by: KVM, not hardware-backed)").count(), 4, "{text}");
            assert!(one_line.matches("KVM, not hardware-backed").count() >= 8, "{text}");
        }
    }

    #[test]
    fn a_missing_wall_leaves_the_other_s_figures_and_says_why() {
        let text = plain(&fixtures::judged(fixtures::without(Wall::Vm)), 160);
        assert_eq!(text.matches("undecided here (VM by: not available)").count(), 4, "{text}");
        assert!(
            text.contains("no figures for the VM: /dev/kvm is missing") && text.contains("MemAvailable"),
            "{text}"
        );
    }
}

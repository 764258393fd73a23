//! Reports of benches: the same figures for a terminal ([`terminal`]), a spreadsheet ([`csv`]) and a browser ([`page`]); each
//! plot also as a picture of its own ([`plots`]); two results side by side, and those of a class ([`several`]).

pub mod csv;
pub mod explain;
pub mod page;
pub mod plots;
pub mod several;
mod starts;
pub mod terminal;

use crate::measure::bench::record::Bench;
use crate::measure::bench::summary::Row;

/// A subject in its variation, with what it was obtained by: no figure is printed without it.
fn label(bench: &Bench, subject: &str, variant: &str) -> (String, &'static str) {
    let found = bench.subject(subject);
    let title = found.map_or(subject, |subject| &subject.title);
    let title = if variant.is_empty() { title.to_owned() } else { format!("{title}, {variant}") };
    (super::figures::plain(&title), found.map_or("unknown", |subject| subject.obtained.label()))
}

/// The distribution of a row's values as eight heights, from its least value to its greatest.
fn spark(values: &[f64]) -> String {
    const BINS: usize = 10;
    const HEIGHTS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let span = high - low;
    if values.len() < 3 || !span.is_finite() || span <= 0.0 {
        return String::new();
    }
    let mut counts = [0_usize; BINS];
    for value in values {
        counts[(((value - low) / span * BINS as f64) as usize).min(BINS - 1)] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(1).max(1);
    // The least of what is there must not look like nothing.
    counts.iter().map(|count| HEIGHTS[(count * 8).div_ceil(most)]).collect()
}

/// How a row stands to the one that all are set beside, in a cell.
fn against(row: &Row<'_>) -> String {
    let Some(ratio) = row.ratio else { return String::new() };
    let sure = match row.effect {
        // Whatever they are, so few values could come about by chance.
        _ if row.values.len() < crate::measure::stats::LEAST_FOR_INTERVAL => " ?",
        Some(effect) if effect.counts => "",
        _ => " ≈",
    };
    format!("{}×{sure}", super::figures::digits(ratio.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_is_drawn_from_its_least_to_its_greatest() {
        assert_eq!(spark(&[1.0, 1.0, 1.0, 1.0, 2.0]), "█        ▂");
        assert_eq!(spark(&[1.0, 2.0]), "");
        assert_eq!(spark(&[3.0; 9]), "");
    }
}

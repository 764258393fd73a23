//! The plots, as SVG that fits any width and takes its colours from the page's style sheet.
//!
//! Positions across are percentages and positions down are pixels: so bars stretch with the page while letters keep their
//! size. A curve cannot be given in percentages; it lies in a nested `svg` that is stretched, with strokes that are not
//! (`vector-effect`).

use maud::{Markup, html};

use super::super::waterfall::{Run, title};
use super::super::{MemoryRow, figures};
use crate::measure::phases::Group;
use crate::measure::plan::Wall;
use crate::measure::record::Record;
use crate::measure::stats::Stats;
use crate::measure::summary::{Metric, values};

/// A group's class in the style sheet.
pub const fn class(group: Group) -> &'static str {
    match group {
        Group::SetUp => "set-up",
        Group::Kernel => "kernel",
        Group::Guest => "guest",
        Group::Workload => "workload",
        Group::CleanUp => "clean-up",
    }
}

/// A share of the whole as SVG writes it; nothing leaves the picture.
fn percent(part: f64, whole: f64) -> String {
    let share = if whole > 0.0 { part / whole * 100.0 } else { 0.0 };
    format!("{:.3}%", share.clamp(0.0, 100.0))
}

/// Both runs, one bar each, on the scale of the longer one.
pub fn one_clock(runs: &[Run<'_>], longest: f64) -> Markup {
    const ROW: usize = 52;
    html! {
        svg.plot width="100%" height=(ROW * runs.len() + 22) role="img" aria-label="Both median runs on one clock" {
            (axis(0.0, longest, ROW * runs.len()))
            @for (row, run) in runs.iter().enumerate() {
                text x="0" y=(row * ROW + 14) { (title(run.wall.wall)) " " tspan.dim { (run.wall.obtained.label()) } }
                text.value x="100%" y=(row * ROW + 14) { (figures::time(run.total())) }
                @for phase in &run.phases {
                    rect class=(class(phase.group)) x=(percent(phase.from, longest)) width=(percent(phase.duration(), longest)) y=(row * ROW + 20) height="20" {
                        title { (phase.end.step()) ": " (figures::time(phase.duration())) }
                    }
                }
                // A sliver under a pixel wide must still be seen.
                rect.sliver x="0" y=(row * ROW + 20) width="2" height="20" {}
            }
        }
    }
}

/// One run, a row a step, on its own scale.
pub fn steps(run: &Run<'_>) -> Markup {
    const ROW: usize = 30;
    let total = run.total();
    let height = ROW * run.phases.len();
    html! {
        svg.plot width="100%" height=(height + 22) role="img" aria-label={ "Steps of the " (title(run.wall.wall)) "'s median run" } {
            (axis(0.0, total, height))
            @for (row, phase) in run.phases.iter().enumerate() {
                text x="0" y=(row * ROW + 12) { (phase.end.step()) }
                text.value x="100%" y=(row * ROW + 12) { (figures::time(phase.duration())) }
                rect.track x="0" y=(row * ROW + 17) width="100%" height="8" {}
                rect class=(class(phase.group)) x=(percent(phase.from, total)) width=(percent(phase.duration(), total)) y=(row * ROW + 17) height="8" {}
                rect class=(class(phase.group)) x=(percent(phase.from, total * 1.004)) width="1.5" y=(row * ROW + 17) height="8" {}
            }
        }
    }
}

/// Grid lines and their times; zero is left out, for its label would hang over the edge.
fn axis(low: f64, high: f64, height: usize) -> Markup {
    let span = high - low;
    html! {
        @for tick in ticks(low, high) {
            @let x = percent(tick - low, span);
            line.grid x1=(x) x2=(x) y1="0" y2=(height) {}
            text.tick x=(x) y=(height + 16) { (figures::time(tick)) }
        }
    }
}

/// Three to six round values inside the range, none at its very edges.
pub fn ticks(low: f64, high: f64) -> Vec<f64> {
    let span = high - low;
    if !(span.is_finite() && span > 0.0) {
        return Vec::new();
    }
    let rough = span / 4.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    let inside = |tick: &f64| *tick > low + span * 0.06 && *tick < high - span * 0.06;
    (first..first + 12).map(|tick| tick as f64 * step).filter(inside).collect()
}

/// The cumulative distribution of a metric, its runs as dots, its median and interval.
pub fn distribution(record: &Record, wall: Wall, metric: Metric) -> Markup {
    const CURVE: usize = 130;
    const STRIP: usize = 34;
    /// More dots than this are a smear; the curve tells as much.
    const MOST_DOTS: usize = 300;
    let mut sorted = values(record, wall, metric);
    sorted.sort_by(f64::total_cmp);
    let Some(stats) = Stats::of(&sorted, record.plan.seed) else { return html! {} };
    let margin = ((stats.max - stats.min) * 0.08).max(stats.median.abs() * 0.01).max(0.001);
    let (low, span) = (stats.min - margin, stats.max - stats.min + 2.0 * margin);
    let x = |value: f64| percent(value - low, span);
    let interval = stats.interval.map(|interval| (interval.low, interval.high));
    html! {
        svg.plot width="100%" height=(CURVE + STRIP + 20) role="img" aria-label={ "Distribution, " (title(wall)) } {
            (axis(low, low + span, CURVE + STRIP))
            @if let Some((from, to)) = interval {
                rect.band x=(x(from)) width=(percent(to - from, span)) y="0" height=(CURVE + STRIP) {}
            }
            line class={ "median " (wall.name()) } x1=(x(stats.median)) x2=(x(stats.median)) y1="0" y2=(CURVE + STRIP) {}
            svg x="0" y="4" width="100%" height=(CURVE - 4) viewBox="0 0 1000 100" preserveAspectRatio="none" {
                polyline class={ "curve " (wall.name()) } points=(curve(&sorted, low, span)) {}
            }
            text.tick x="0" y="12" text-anchor="start" { "100 %" }
            text.tick x="0" y=(CURVE / 2) text-anchor="start" { "50 %" }
            @if sorted.len() <= MOST_DOTS {
                @for (index, value) in sorted.iter().enumerate() {
                    circle class={ "run " (wall.name()) } cx=(x(*value)) cy=(CURVE + 10 + index * 7 % 15) r="2.5" {}
                }
            }
        }
        p.note { "median " (figures::median(&stats)) ", p99 " (figures::time(stats.p99)) ", n = " (stats.n) }
    }
}

/// The steps of the empirical distribution, at most some hundred of them.
fn curve(sorted: &[f64], low: f64, span: f64) -> String {
    const MOST_STEPS: usize = 400;
    let n = sorted.len();
    let stride = n.div_ceil(MOST_STEPS).max(1);
    let mut points = vec!["0,100".to_owned()];
    let mut height = 100.0;
    for index in (0..n).step_by(stride) {
        let x = (sorted[index] - low) / span * 1000.0;
        let up = 100.0 - (index + stride).min(n) as f64 / n as f64 * 100.0;
        points.push(format!("{x:.1},{height:.2} {x:.1},{up:.2}"));
        height = up;
    }
    points.push("1000,0".into());
    points.join(" ")
}

/// Bars of every figure of memory, all on one scale.
pub fn memory(record: &Record, rows: &[MemoryRow]) -> Markup {
    const BAR: usize = 24;
    let most =
        rows.iter().flat_map(|row| row.values.iter().flatten()).copied().max().unwrap_or(1).max(1) as f64;
    html! {
        @for row in rows {
            div.memory {
                h3 { (row.name) small { (row.how) } }
                svg.plot width="100%" height=(BAR * record.walls.len()) role="img" aria-label=(row.name) {
                    @for (index, (wall, value)) in record.walls.iter().zip(&row.values).enumerate() {
                        // Bars take three quarters, so that the longest has room for its figure.
                        @let width = percent(value.unwrap_or(0).max(0) as f64 * 0.75, most);
                        rect class=(wall.wall.name()) x="0" y=(index * BAR + 3) width=(width) height="16" {}
                        svg x=(width) y=(index * BAR) overflow="visible" {
                            text x="6" y="16" {
                                (value.map_or_else(|| "not measured".into(), figures::bytes)) " "
                                tspan.dim { (title(wall.wall)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 10.0), [5.0]);
        assert_eq!(ticks(0.0, 9.0), [5.0]);
        assert_eq!(ticks(5.1, 7.4), [6.0, 7.0]);
        assert_eq!(ticks(0.0, 5830.0), [2000.0, 4000.0]);
        assert!(ticks(1.0, 1.0).is_empty() && ticks(0.0, f64::NAN).is_empty());
    }

    #[test]
    fn a_curve_climbs_from_nothing_to_all_runs() {
        let points = curve(&[1.0, 2.0, 4.0], 0.0, 5.0);
        assert_eq!(
            points,
            "0,100 200.0,100.00 200.0,66.67 400.0,66.67 400.0,33.33 800.0,33.33 800.0,0.00 1000,0"
        );
        let many: Vec<f64> = (0..10_000).map(f64::from).collect();
        assert!(curve(&many, 0.0, 10_000.0).len() < 20_000);
    }

    #[test]
    fn nothing_is_drawn_outside_the_picture() {
        assert_eq!(percent(-1.0, 10.0), "0.000%");
        assert_eq!(percent(11.0, 10.0), "100.000%");
        assert_eq!(percent(1.0, 0.0), "0.000%");
    }
}

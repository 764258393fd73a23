//! The plots of a bench, as SVG: in the page they take its width and colours; on their own, for a slide, they carry both along.
//!
//! As in the page of `lab compare`, positions across are percentages and positions down are pixels, and curves lie in a nested
//! picture that is stretched.

use maud::{Markup, PreEscaped, html};

use super::label;
use crate::measure::bench::record::{Bench, ExperimentRecord, MetricRecord};
use crate::measure::bench::summary::{self, Row};
use crate::measure::experiments;
use crate::report::figures;

/// A plot, with a name for a file and a title for people.
pub struct Plot {
    /// Letters, digits and hyphens.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// Its height in pixels.
    pub height: usize,
    /// The picture's content.
    pub content: Markup,
}

const CURVES: usize = 170;
const LINE: usize = 20;

impl Plot {
    /// For the page: as wide as there is room.
    pub fn inline(&self) -> Markup {
        html! { svg.plot width="100%" height=(self.height) role="img" aria-label=(self.title) { (self.content) } }
    }

    /// A file of its own: with a size, a title and the page's light colours, and no variables, which few programs but browsers know.
    pub fn standalone(&self) -> String {
        const WIDTH: usize = 860;
        const MARGIN: usize = 30;
        let style = resolved(include_str!("../html/page.css"));
        let (width, height) = (WIDTH + 2 * MARGIN, self.height + 3 * MARGIN);
        let picture = html! {
            svg xmlns="http://www.w3.org/2000/svg" width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) } {
                title { (self.title) }
                style { (PreEscaped(style)) }
                rect width="100%" height="100%" fill="#ffffff" {}
                text.heading x=(MARGIN) y="26" { (self.title) }
                svg x=(MARGIN) y=(2 * MARGIN - 12) width=(WIDTH) height=(self.height) overflow="visible" { (self.content) }
            }
        };
        picture.into_string()
    }
}

/// The rules for pictures, with every variable replaced by its light value.
fn resolved(css: &str) -> String {
    let root =
        css.split_once(":root {").and_then(|(_, rest)| rest.split_once('}')).map_or("", |(root, _)| root);
    let pairs = root.split(';').filter_map(|pair| pair.trim().split_once(": "));
    let rules = css.lines().filter(|line| line.starts_with("svg")).collect::<Vec<_>>().join("\n");
    let rules = pairs.fold(rules, |rules, (name, value)| rules.replace(&format!("var({name})"), value));
    format!("svg {{ font-family: sans-serif; }}\n{rules}")
}

/// All plots of a bench.
pub fn all(bench: &Bench) -> Vec<Plot> {
    let mut plots = Vec::new();
    for experiment in &bench.experiments {
        plots.extend(of_experiment(bench, experiment));
    }
    plots
}

/// The plots of one experiment: a distribution for each metric with enough values, and the slopes.
pub fn of_experiment(bench: &Bench, experiment: &ExperimentRecord) -> Vec<Plot> {
    let of_metric = |metric: &MetricRecord| {
        let rows = summary::rows(bench, experiment, metric);
        [distribution(bench, experiment, metric, &rows), slopes(bench, experiment, metric)]
    };
    experiment.metrics.iter().flat_map(of_metric).flatten().collect()
}

/// A subject's class in the style sheet: its own colour, or one of the peers'.
fn class(subject: &str, place: usize) -> String {
    match subject {
        "container" | "vm" | "host" | "restored" => subject.to_owned(),
        _ => format!("peer{}", place % 6),
    }
}

/// What stands on the horizontal axis.
#[derive(Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Axis {
    /// For values from one to another; logarithmic where they are far apart.
    fn over(low: f64, high: f64) -> Self {
        if low > 0.0 && high / low > 20.0 {
            return Self { low: low / 1.25, high: high * 1.25, logarithmic: true };
        }
        let margin = ((high - low) * 0.06).max(high.abs() * 0.01).max(1e-9);
        Self { low: low - margin, high: high + margin, logarithmic: false }
    }

    /// Where a value lies, from 0 to 1.
    fn place(self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        share.clamp(0.0, 1.0)
    }

    fn percent(self, value: f64) -> String {
        format!("{:.2}%", self.place(value) * 100.0)
    }

    fn ticks(self) -> Vec<f64> {
        if !self.logarithmic {
            return crate::report::html::ticks(self.low, self.high);
        }
        let (first, last) = (self.low.log10().ceil() as i32, self.high.log10().floor() as i32);
        let step = ((last - first) / 6 + 1).max(1) as usize;
        let inside = |tick: &f64| (0.05..0.95).contains(&self.place(*tick));
        (first..=last).step_by(step).map(|power| 10_f64.powi(power)).filter(inside).collect()
    }

    fn draw(self, metric: &MetricRecord, height: usize) -> Markup {
        html! {
            @for tick in self.ticks() {
                line.grid x1=(self.percent(tick)) x2=(self.percent(tick)) y1="0" y2=(height) {}
                text.tick x=(self.percent(tick)) y=(height + 15) { (figures::quantity(tick, metric.unit)) }
            }
        }
    }
}

/// Lines of the literature that lie within the axis's reach, or not far off.
fn references(experiment: &ExperimentRecord, metric: &MetricRecord) -> Vec<(f64, &'static str)> {
    let papers = experiments::find(&experiment.name).map_or(&[][..], |experiment| experiment.about().papers);
    let lines = papers.iter().filter_map(|paper| {
        let (name, value) = paper.line?;
        (name == metric.name).then_some((value, paper.source))
    });
    lines.collect()
}

/// The cumulative distributions of all subjects, on one axis.
fn distribution(
    bench: &Bench,
    experiment: &ExperimentRecord,
    metric: &MetricRecord,
    rows: &[Row<'_>],
) -> Option<Plot> {
    if rows.iter().all(|row| row.values.len() < 3) {
        return None;
    }
    let lines = references(experiment, metric);
    let values =
        || rows.iter().flat_map(|row| row.values.iter().copied()).chain(lines.iter().map(|line| line.0));
    let axis = Axis::over(values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let legend = CURVES + 24;
    let content = html! {
        (axis.draw(metric, CURVES))
        text.tick x="0" y="12" text-anchor="start" { "100 %" }
        text.tick x="0" y=(CURVES / 2) text-anchor="start" { "50 %" }
        @for (value, source) in &lines {
            line.reference x1=(axis.percent(*value)) x2=(axis.percent(*value)) y1="0" y2=(CURVES) { title { (source) } }
        }
        svg x="0" y="2" width="100%" height=(CURVES - 2) viewBox="0 0 1000 100" preserveAspectRatio="none" {
            @for (place, row) in rows.iter().enumerate() {
                polyline class={ "curve " (class(row.subject, place)) (dashed(row)) } points=(steps(&row.values, axis)) {}
            }
        }
        @for (place, row) in rows.iter().enumerate() {
            @let (title, obtained) = label(bench, row.subject, row.variant);
            @let y = legend + place * LINE;
            line class={ "curve " (class(row.subject, place)) (dashed(row)) } x1="0" x2="22" y1=(y + 8) y2=(y + 8) {}
            text x="28" y=(y + 12) {
                (title) " " tspan.dim { (obtained) "; median " (figures::quantity(row.stats.median, metric.unit)) ", n " (row.values.len()) }
            }
        }
        (legend_of(&lines, metric, legend + rows.len() * LINE))
    };
    Some(Plot {
        name: format!("{}-{}-distribution", experiment.name, metric.name),
        title: format!("{}: {}, cumulative distribution", experiment.name, metric.label),
        height: legend + (rows.len() + lines.len()) * LINE,
        content,
    })
}

/// Variations of one subject have its colour; all but the warm and the only one are dashed.
fn dashed(row: &Row<'_>) -> &'static str {
    if row.variant.is_empty() || row.variant.starts_with("warm") { "" } else { " dashed" }
}

fn legend_of(lines: &[(f64, &str)], metric: &MetricRecord, y: usize) -> Markup {
    html! {
        @for (index, (value, source)) in lines.iter().enumerate() {
            line.reference x1="0" x2="22" y1=(y + index * LINE + 8) y2=(y + index * LINE + 8) {}
            text x="28" y=(y + index * LINE + 12) { (figures::quantity(*value, metric.unit)) " " tspan.dim { (source) } }
        }
    }
}

/// The steps of an empirical distribution, at most some hundred.
fn steps(values: &[f64], axis: Axis) -> String {
    const MOST: usize = 300;
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let stride = n.div_ceil(MOST).max(1);
    let mut points = vec!["0,100".to_owned()];
    let mut height = 100.0;
    for index in (0..n).step_by(stride) {
        let x = axis.place(sorted[index]) * 1000.0;
        let up = 100.0 - (index + stride).min(n) as f64 / n as f64 * 100.0;
        points.push(format!("{x:.1},{height:.2} {x:.1},{up:.2}"));
        height = up;
    }
    points.push("1000,0".into());
    points.join(" ")
}

/// What grows with the number of sandboxes.
fn slopes(bench: &Bench, experiment: &ExperimentRecord, metric: &MetricRecord) -> Option<Plot> {
    let cases = experiment.cases();
    let lines: Vec<_> = cases
        .iter()
        .filter_map(|&(subject, variant)| {
            let line = summary::slope(experiment, subject, variant, &metric.name)?;
            Some((subject, variant, line))
        })
        .collect();
    let points = || lines.iter().flat_map(|(.., line)| line.points.iter().copied());
    let most = points().map(|point| point.0).reduce(f64::max)?;
    let across = Axis { low: 0.0, high: most * 1.04, logarithmic: false };
    let low = points().map(|point| point.1).fold(0.0, f64::min);
    let down =
        Axis { low, high: points().map(|point| point.1).fold(1e-9, f64::max) * 1.05, logarithmic: false };
    let y = |value: f64| format!("{:.1}", CURVES as f64 * (1.0 - down.place(value)));
    let legend = CURVES + 24;
    let content = html! {
        @for tick in across.ticks() {
            line.grid x1=(across.percent(tick)) x2=(across.percent(tick)) y1="0" y2=(CURVES) {}
            text.tick x=(across.percent(tick)) y=(CURVES + 15) { (figures::digits(tick).trim_end_matches(['0', '.'])) }
        }
        @for tick in down.ticks() {
            line.grid x1="0" x2="100%" y1=(y(tick)) y2=(y(tick)) {}
            text.tick x="0" y=(y(tick)) text-anchor="start" { (figures::quantity(tick, metric.unit)) }
        }
        @for (place, (subject, _, line)) in lines.iter().enumerate() {
            @let last = line.points.iter().map(|point| point.0).fold(0.0, f64::max);
            line class={ "curve " (class(subject, place)) } x1="0" x2=(across.percent(last)) y1=(y(line.start)) y2=(y(line.start + line.slope * last)) {}
            @for (x, value) in &line.points {
                circle class={ "run " (class(subject, place)) } cx=(across.percent(*x)) cy=(y(*value)) r="3" {}
            }
        }
        @for (place, (subject, variant, line)) in lines.iter().enumerate() {
            @let (title, obtained) = label(bench, subject, variant);
            @let at = legend + place * LINE;
            line class={ "curve " (class(subject, place)) } x1="0" x2="22" y1=(at + 8) y2=(at + 8) {}
            text x="28" y=(at + 12) { (title) " " tspan.dim { (obtained) "; " (figures::quantity(line.slope, metric.unit)) " for one more" } }
        }
    };
    Some(Plot {
        name: format!("{}-{}-slope", experiment.name, metric.name),
        title: format!("{}: {}, by the number of sandboxes", experiment.name, metric.label),
        height: legend + lines.len() * LINE,
        content,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::bench::record::tests::bench;

    #[test]
    fn each_metric_has_its_plots_and_each_is_a_picture_on_its_own() {
        let bench = bench(8);
        let plots = all(&bench);
        let names: Vec<_> = plots.iter().map(|plot| plot.name.as_str()).collect();
        assert_eq!(names, ["startup-first-output-distribution", "density-memory-slope"]);
        for plot in &plots {
            let picture = plot.standalone();
            assert!(picture.starts_with("<svg xmlns=") && !picture.contains("var("), "{picture}");
            assert!(!picture.contains("NaN") && picture.contains("KVM, not hardware-backed"));
        }
        assert!(plots[0].standalone().contains("Firecracker"), "the literature's lines are drawn");
    }

    #[test]
    fn an_axis_is_logarithmic_where_values_are_far_apart() {
        let axis = Axis::over(9.0, 4000.0);
        assert!(axis.logarithmic && axis.ticks() == [10.0, 100.0, 1000.0], "{:?}", axis.ticks());
        assert!(axis.place(9.0) > 0.0 && axis.place(4000.0) < 1.0);
        let axis = Axis::over(10.0, 20.0);
        assert!(!axis.logarithmic && axis.place(15.0) > 0.49 && axis.place(15.0) < 0.51);
        assert!(Axis::over(0.0, 0.0).place(0.0).is_finite());
    }
}

//! What does measuring itself cost?

use lab_clock::{Mark, Timeline, now};

use super::LIMIT;
use crate::measure::bench::record::Unit;
use crate::measure::bench::session::{Site, seen_of};
use crate::measure::bench::subjects::{CONTAINER, RESTORED};
use crate::measure::bench::{About, Case, Experiment, Metric, Paper, Seen};
use crate::measure::phases::milliseconds;

/// The experiment.
pub struct Overhead;

static ABOUT: About = About {
    name: "overhead",
    question: "What does the lab's own measuring add to what it measures?",
    method: "The same run of true with its marks and without: the difference of the two is what marks, their pipe and their \
             JSON cost, as a whole. And an empty phase: two marks with nothing between them, a thousand times; by the number of marks of \
             a run, and as a share of its start.",
    blind_spot: "The difference of two medians is as noisy as these are: where it is within the noise, the empty phase tells more. \
                 That a process is spawned and waited for costs the same with and without marks.",
    papers: &[Paper {
        source: "the lab's own bound",
        says: "at most 1 % of a container's start",
        line: Some(("share", 0.01)),
    }],
};

const WITH: &str = "with marks";
const WITHOUT: &str = "without marks";

impl Experiment for Overhead {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn metrics(&self) -> &'static [Metric] {
        const {
            &[
                Metric::less("whole", "start → all given back", Unit::Milliseconds),
                Metric::less("empty", "an empty phase", Unit::Nanoseconds),
                Metric::less("share", "all marks, by the start to the first instruction", Unit::Times),
            ]
        }
    }

    fn cases(&self, site: &Site<'_>) -> Vec<Case> {
        let walls = site.cases(if site.quick { &[CONTAINER] } else { &[CONTAINER, RESTORED] });
        walls.iter().flat_map(|case| [WITH, WITHOUT].map(|way| Case::with(&case.subject, way))).collect()
    }

    fn rounds(&self, quick: bool) -> u32 {
        if quick { 8 } else { 40 }
    }

    fn warms_up(&self) -> bool {
        true
    }

    fn run(&self, site: &Site<'_>, case: &Case) -> Result<Seen, String> {
        let mut call = site.subject(&case.subject)?.call(&[], &["true"])?;
        call.marks = case.variant == WITH;
        let finished = site.finish(&call, LIMIT)?;
        let mut seen = seen_of(&call);
        seen.value("whole", milliseconds(finished.spawned, finished.ended));
        if call.marks {
            let marks = finished.marks?;
            let start = marks.get(Mark::Executed.name()).ok_or("the workload did not start")?;
            let empty = empty_phase()?;
            seen.value("empty", empty);
            let start = milliseconds(finished.spawned, *start) * 1e6;
            seen.value("share", empty * marks.len() as f64 / start.max(1.0));
        }
        Ok(seen)
    }
}

/// Nanoseconds of one mark: the mean of a thousand, one right after the other.
fn empty_phase() -> Result<f64, String> {
    const MARKS: u32 = 1000;
    let timeline = Timeline::new().map_err(|error| format!("make a timeline: {error}"))?;
    let begun = now();
    for _ in 0..MARKS {
        timeline.mark(Mark::Started);
    }
    Ok((now() - begun) as f64 / f64::from(MARKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A container starts in milliseconds and has a dozen marks: for 1 % of that, a mark may take microseconds.
    #[test]
    fn an_empty_phase_is_far_below_one_percent_of_the_fastest_container_start() {
        const FASTEST_START: f64 = 3e6;
        const MARKS: f64 = 14.0;
        let best = (0..20).filter_map(|_| empty_phase().ok()).fold(f64::INFINITY, f64::min);
        assert!(best * MARKS < 0.01 * FASTEST_START, "{best} ns a mark");
    }
}

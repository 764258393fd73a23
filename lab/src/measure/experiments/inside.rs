//! What all experiments have in common in which a program inside times itself: the image's `bench` prints each batch as a line.

use super::{LIMIT, read_samples};
use crate::measure::bench::session::{Site, seen_of};
use crate::measure::bench::subjects::{CONTAINER, HOST, VM};
use crate::measure::bench::{About, Case, Experiment, Metric, Seen};

/// One such experiment.
pub struct Inside {
    /// What it asks.
    pub about: About,
    /// What is printed.
    pub metrics: &'static [Metric],
    /// What `bench` is asked for.
    pub what: &'static str,
    /// Batches in the short form and in the long.
    pub repeats: (&'static str, &'static str),
}

/// What the method of all of them is; a `&'static str` that the files' own sentences are put before.
macro_rules! timed_inside {
    ($text:literal) => {
        concat!(
            $text,
            " The loop reads the clock of the kernel that it runs on; a batch has as many rounds as take four milliseconds by it, \
             and each batch is a sample. The same program runs on the host without any wall."
        )
    };
}
pub(super) use timed_inside;

impl Experiment for Inside {
    fn about(&self) -> &About {
        &self.about
    }

    fn metrics(&self) -> &'static [Metric] {
        self.metrics
    }

    fn cases(&self, site: &Site<'_>) -> Vec<Case> {
        site.cases(&[HOST, CONTAINER, VM])
    }

    fn rounds(&self, quick: bool) -> u32 {
        if quick { 1 } else { 6 }
    }

    fn run(&self, site: &Site<'_>, case: &Case) -> Result<Seen, String> {
        let repeats = if site.quick { self.repeats.0 } else { self.repeats.1 };
        let call = site.subject(&case.subject)?.call(&[], &["bench", self.what, repeats])?;
        let finished = site.finish(&call, LIMIT)?;
        let mut seen = seen_of(&call);
        read_samples(&finished.printed, &mut seen);
        // What this experiment does not know it could not store.
        seen.values.retain(|values| self.metrics.iter().any(|metric| metric.name == values.metric));
        if seen.values.is_empty() {
            return Err("it printed no samples".into());
        }
        Ok(seen)
    }
}

//! How many sandboxes a second, when several are started at once?

use std::process::Stdio;

use super::LIMIT;
use crate::measure::bench::record::Unit;
use crate::measure::bench::session::{STOPPED, Site, seen_of, told};
use crate::measure::bench::subjects::{CONTAINER, HOST, RESTORED, VM};
use crate::measure::bench::{About, Case, Experiment, Metric, Paper, Seen};
use crate::measure::child::Stopped;
use crate::measure::phases::milliseconds;

/// The experiment.
pub struct Creation;

static ABOUT: About = About {
    name: "creation",
    question: "How many sandboxes a second can be made and ended, when several are started at once?",
    method: "So many runs of true are spawned one right after the other, and all are waited for. The rate is their number by the \
             time from the first spawn to the last end.",
    blind_spot: "With more at once than processors, the rate shows what they share: locks of the kernel (network namespaces, \
                 mounts, cgroups) for containers, processors for VMs. A batch of a few is short, and so is its memory of the machine's state.",
    papers: &[Paper {
        source: "Agache and others, Firecracker, NSDI 2020",
        says: "150 microVMs a second on one host",
        line: Some(("rate", 150.0)),
    }],
};

impl Experiment for Creation {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn metrics(&self) -> &'static [Metric] {
        const { &[Metric::more("rate", "made and ended a second", Unit::PerSecond)] }
    }

    fn cases(&self, site: &Site<'_>) -> Vec<Case> {
        let at_once = |subject: &str| -> &[&str] {
            match (subject, site.quick) {
                (HOST | CONTAINER, false) => {
                    &["1 at once", "2 at once", "4 at once", "8 at once", "16 at once"]
                }
                (HOST | CONTAINER, true) => &["1 at once", "8 at once"],
                // The restored one stands for it in the short form.
                (VM, true) => &[],
                _ => &["1 at once", "2 at once", "4 at once"],
            }
        };
        let cases = site.cases(&[HOST, CONTAINER, VM, RESTORED]).into_iter();
        cases
            .flat_map(|case| {
                at_once(&case.subject).iter().map(move |at_once| Case::with(&case.subject, at_once))
            })
            .collect()
    }

    fn rounds(&self, quick: bool) -> u32 {
        if quick { 1 } else { 6 }
    }

    fn run(&self, site: &Site<'_>, case: &Case) -> Result<Seen, String> {
        let count = case.variant.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(1);
        let call = site.subject(&case.subject)?.call(&[], &["true"])?;
        let mut running = Vec::new();
        for _ in 0..count {
            running.push(call.spawn(Stdio::null()).map_err(|error| told(&call, &error))?);
        }
        let first = running.first().map_or(0, crate::measure::child::Running::spawned);
        let mut last = first;
        for run in running {
            let finished = run.finish(LIMIT, site.interrupted).map_err(|error| error.to_string())?;
            match finished.stopped {
                Some(Stopped::Interrupted) => return Err(STOPPED.into()),
                _ if !finished.status.success() => return Err(finished.last_words().to_owned()),
                _ => last = last.max(finished.ended),
            }
        }
        let mut seen = seen_of(&call);
        seen.value("rate", f64::from(count) * 1e3 / milliseconds(first, last).max(1e-6));
        Ok(seen)
    }
}

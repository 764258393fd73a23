//! With how little memory does the workload still run?

use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::measure::bench::record::Unit;
use crate::measure::bench::session::{STOPPED, Site, seen_of, told};
use crate::measure::bench::subjects::{CONTAINER, VM};
use crate::measure::bench::{About, Case, Experiment, Metric, Paper, Seen};

/// The experiment.
pub struct Minimum;

static ABOUT: About = About {
    name: "minimum",
    question: "With how little memory does the workload still run?",
    method: "Binary search on --memory, from none to an amount that suffices: a try counts as a success where hello prints and \
             ends with 0. The figure is the least amount that was seen to suffice.",
    blind_spot: "The search takes each try for certain; near the limit the same amount may suffice once and not the next time. A \
                 container's limit does not hold what the runtime itself takes, a VM's does not hold what the monitor takes. \
                 The lab refuses to boot a VM with less than 32 MiB.",
    papers: &[
        Paper {
            source: "Kuenzer and others, Unikraft, EuroSys 2021, fig. 11",
            says: "hello: Docker 6 MB, a Linux microVM 29 MB, Unikraft 2 MB",
            line: Some(("least", 29e6)),
        },
        Paper {
            source: "measured on two CPUs, true in a busybox bundle",
            says: "crun 0.2 MiB, youki 0.5, runc 3.6",
            line: Some(("least", 0.2 * 1048576.0)),
        },
    ],
};

/// Where the search begins: enough for any wall.
const ENOUGH: u64 = 128 << 20;
/// With too little memory, a machine may hang instead of failing.
const PATIENCE: Duration = Duration::from_secs(40);

impl Experiment for Minimum {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn metrics(&self) -> &'static [Metric] {
        const {
            &[
                Metric::less("least", "least memory that suffices", Unit::Bytes),
                Metric::shown("tries", "tries of the search", Unit::Count),
            ]
        }
    }

    fn cases(&self, site: &Site<'_>) -> Vec<Case> {
        site.cases(&[CONTAINER, VM])
    }

    fn rounds(&self, quick: bool) -> u32 {
        if quick { 1 } else { 3 }
    }

    fn run(&self, site: &Site<'_>, case: &Case) -> Result<Seen, String> {
        let subject = site.subject(&case.subject)?;
        let step = match (case.subject.as_str(), site.quick) {
            (CONTAINER, _) => 64 << 10,
            (_, false) => 2 << 20,
            (_, true) => 16 << 20,
        };
        let suffices = |bytes: u64| -> Result<bool, String> {
            let call = subject.call(&["--memory", &bytes.to_string()], &["hello"])?;
            let running = call.spawn(Stdio::null()).map_err(|error| told(&call, &error))?;
            let finished = running.finish(PATIENCE, site.interrupted).map_err(|error| error.to_string())?;
            if site.interrupted.load(Ordering::Relaxed) {
                return Err(STOPPED.into());
            }
            Ok(finished.status.success() && finished.printed.starts_with(b"hello"))
        };
        let mut seen = seen_of(&subject.call(&["--memory", "BYTES"], &["hello"])?);
        if !suffices(ENOUGH)? {
            return Err(format!("not even {} MiB suffice", ENOUGH >> 20));
        }
        let (least, tries) = search(step, ENOUGH, suffices)?;
        seen.value("least", least as f64);
        seen.value("tries", f64::from(tries + 1));
        seen.fact("resolution", format!("{} KiB", step >> 10));
        Ok(seen)
    }
}

/// The least multiple of `step` that suffices, where `enough` does; and how many tries that took.
fn search(
    step: u64,
    enough: u64,
    mut suffices: impl FnMut(u64) -> Result<bool, String>,
) -> Result<(u64, u32), String> {
    let (mut low, mut high, mut tries) = (0, enough / step, 0);
    while high - low > 1 {
        let middle = u64::midpoint(low, high);
        tries += 1;
        if suffices(middle * step)? {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ok((high * step, tries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_finds_the_least_that_suffices() {
        for least in [1, 5, 64, 127, 128] {
            let (found, tries) = search(1, 128, |amount| Ok(amount >= least)).unwrap();
            assert_eq!(found, least);
            assert!(tries <= 7, "{tries}");
        }
        assert!(search(1, 128, |_| Err("no".into())).is_err());
    }
}

//! What does each further sandbox cost, and does it cost more the more there are?

use std::time::Instant;

use super::available;
use crate::measure::bench::record::Unit;
use crate::measure::bench::session::{Site, seen_of};
use crate::measure::bench::subjects::{CONTAINER, RESTORED, VM};
use crate::measure::bench::{About, Case, Experiment, Metric, Paper, Seen};
use crate::measure::memory::of_sandboxes;
use crate::measure::session::idle;

/// The experiment.
pub struct Density;

static ABOUT: About = About {
    name: "density",
    question: "What does each further sandbox cost in memory and in time, the more of them there are?",
    method: "Idle sandboxes are started one after the other and stay. After each, the drop of MemAvailable since the first is \
             read, the PSS of all their processes, and how long this one took until its workload answered. The slope by least squares is what one more costs; \
             its 95 % interval is Student's. It ends at the planned number, or where less than an eighth of the machine's memory is left.",
    blind_spot: "Idle sandboxes share all that they never touch. The slope takes the cost for constant; where the plot bends, \
                 believe the plot. MemAvailable is the whole machine's, PSS is theirs alone but does not know of the kernel's memory.",
    papers: &[Paper {
        source: "Manco and others, LightVM, SOSP 2017",
        says: "8,000 guests on one machine, each a unikernel; the time to start one more does not grow with their number",
        line: None,
    }],
};

impl Experiment for Density {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn metrics(&self) -> &'static [Metric] {
        const {
            &[
                Metric::less("memory", "drop of MemAvailable with so many", Unit::Bytes),
                Metric::less("pss", "PSS of so many", Unit::Bytes),
                Metric::less("start", "time to start one more", Unit::Milliseconds),
            ]
        }
    }

    fn cases(&self, site: &Site<'_>) -> Vec<Case> {
        // A booted VM costs seconds where KVM has no hardware: the short form has the restored one stand for it.
        site.cases(if site.quick { &[CONTAINER, RESTORED] } else { &[CONTAINER, VM, RESTORED] })
    }

    fn rounds(&self, quick: bool) -> u32 {
        if quick { 1 } else { 3 }
    }

    fn run(&self, site: &Site<'_>, case: &Case) -> Result<Seen, String> {
        let most = match (case.subject.as_str(), site.quick) {
            (CONTAINER, true) => 20,
            (CONTAINER, false) => 60,
            (_, true) => 4,
            (VM, false) => 6,
            (_, false) => 12,
        };
        let call = site.subject(&case.subject)?.call(&["--interactive"], &["cat"])?;
        let mut seen = seen_of(&call);
        let before = available().ok_or("the kernel does not tell MemAvailable")?;
        let mut alive = Vec::new();
        for number in 1..=most {
            let began = Instant::now();
            alive.push(idle(&call, site.interrupted)?);
            let took = began.elapsed().as_secs_f64() * 1e3;
            let now = available().ok_or("the kernel does not tell MemAvailable")?;
            let place = Some(f64::from(number));
            seen.at("memory", place, before as f64 - now as f64);
            seen.at("start", place, took);
            let roots: Vec<_> = alive.iter().map(|(running, _)| running.pid()).collect();
            let one: u64 = of_sandboxes(&roots).0.iter().map(|process| process.pss).sum();
            seen.at("pss", place, one as f64 * f64::from(number));
            if now < before / 8 {
                seen.fact("ended by", "memory");
                break;
            }
        }
        for (running, stdin) in alive {
            drop(stdin);
            running.finish(super::LIMIT, site.interrupted).map_err(|error| error.to_string())?;
        }
        Ok(seen)
    }
}

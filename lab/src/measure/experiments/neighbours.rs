//! What does a neighbour feel of a sandbox that takes all it can get?

use std::process::Stdio;
use std::time::Duration;

use super::{LIMIT, read_samples};
use crate::measure::bench::record::Unit;
use crate::measure::bench::session::{Site, seen_of, told};
use crate::measure::bench::subjects::{CONTAINER, HOST, RESTORED, VM};
use crate::measure::bench::{About, Case, Experiment, Metric, Paper, Seen};
use crate::measure::child::Call;

/// The experiment.
pub struct Neighbours;

static ABOUT: About = About {
    name: "neighbours",
    question: "What does a neighbour feel of a sandbox that takes all the processor, memory or processes it can get?",
    method: "A hog runs behind the wall in question with a limit of 64 MiB and half a processor, a container with a limit of 64 \
             processes as well: it computes in two processes, or touches memory without end, or forks without end. Meanwhile a container of its \
             own times a round of arithmetic, and the start of another one is timed. Alone: the same without a hog.",
    blind_spot: "One hog on a machine with idle processors is hardly felt; on a busy machine everything else is felt as well. How far \
                 the hog came is told with the result, where it lived to say so. A VM has no limit of processes: its memory is one. \
                 Disks and networks have their hogs, too, which are not tried here.",
    papers: &[Paper {
        source: "Sharma and others, Middleware 2016",
        says: "a fork bomb in a container without a limit of processes starves its neighbours; in a VM it slows them by 30 %. \
                   Memory hogs: containers 32 % slower, VMs 11 %",
        line: None,
    }],
};

const ALONE: &str = "alone";

impl Experiment for Neighbours {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn metrics(&self) -> &'static [Metric] {
        const {
            &[
                Metric::less("round", "neighbour's round of arithmetic", Unit::Nanoseconds),
                Metric::less("start", "neighbour's start", Unit::Milliseconds),
            ]
        }
    }

    fn cases(&self, site: &Site<'_>) -> Vec<Case> {
        // The short form lets a restored VM stand for a booted one: what it does to others is the same.
        let walls = site.cases(if site.quick { &[CONTAINER, RESTORED] } else { &[CONTAINER, VM] });
        let hogs = ["cpu", "memory", "forks"];
        let with = walls.iter().flat_map(|case| hogs.map(|hog| Case::with(&case.subject, hog)));
        with.chain([Case::with(HOST, ALONE)]).collect()
    }

    fn rounds(&self, quick: bool) -> u32 {
        if quick { 1 } else { 5 }
    }

    fn run(&self, site: &Site<'_>, case: &Case) -> Result<Seen, String> {
        let neighbour = site.subject(CONTAINER)?;
        let work = neighbour.call(&[], &["bench", "cpu", if site.quick { "40" } else { "120" }])?;
        let start = neighbour.call(&[], &["true"])?;
        if case.variant == ALONE {
            let mut seen = seen_of(&work);
            feel(site, &work, &start, &mut seen)?;
            return Ok(seen);
        }
        let limits: &[&str] = match case.subject.as_str() {
            CONTAINER => &["--memory", "64m", "--cpus", "0.5", "--pids-limit", "64"],
            _ => &["--memory", "64m", "--cpus", "0.5"],
        };
        let seconds = if site.quick { "4" } else { "12" };
        let hog = site.subject(&case.subject)?.call(limits, &["bench", "hog", &case.variant, seconds])?;
        let mut seen = seen_of(&hog);
        let mut running = hog.spawn(Stdio::null()).map_err(|error| told(&hog, &error))?;
        let began = running.says(b"hogging", LIMIT, site.interrupted).map_err(|error| error.to_string())?;
        if !began {
            let finished = running.finish(Duration::from_secs(5), site.interrupted);
            let words = finished.map(|it| it.last_words().to_owned()).unwrap_or_default();
            return Err(format!("the hog did not begin: {words}"));
        }
        feel(site, &work, &start, &mut seen)?;
        let finished = running.finish(LIMIT, site.interrupted).map_err(|error| error.to_string())?;
        // Killed for what it did is an end that a hog may come to.
        let mut own = Seen::default();
        read_samples(&finished.printed, &mut own);
        let hogged: f64 = own.values.iter().flat_map(|values| &values.samples).sum();
        let unit = match case.variant.as_str() {
            "cpu" => "million rounds",
            "memory" => "MiB",
            _ => "processes",
        };
        seen.fact(
            "hog",
            match finished.status.code() {
                Some(0) => format!("came to {hogged:.0} {unit}"),
                Some(137) => "was killed".into(),
                _ => format!("ended with {}: {}", finished.status, finished.last_words()),
            },
        );
        Ok(seen)
    }
}

/// Lets the neighbour work, and a further one start.
fn feel(site: &Site<'_>, work: &Call, start: &Call, seen: &mut Seen) -> Result<(), String> {
    let finished = site.finish(work, LIMIT)?;
    read_samples(&finished.printed, seen);
    for _ in 0..5 {
        let finished = site.finish(start, LIMIT)?;
        let executed = finished.marks?.get("executed").copied().ok_or("the neighbour did not start")?;
        seen.value("start", crate::measure::phases::milliseconds(finished.spawned, executed));
    }
    Ok(())
}

//! How long until the workload runs?

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use lab_clock::{Mark, now};
use rustix::fs::{Advice, fadvise};

use super::LIMIT;
use crate::measure::bench::record::Unit;
use crate::measure::bench::session::{STOPPED, Site, seen_of, told};
use crate::measure::bench::subjects::{CONTAINER, RESTORED, VM, Way};
use crate::measure::bench::{About, Case, Experiment, Metric, Paper, Seen};
use crate::measure::child::Stopped;
use crate::measure::phases::milliseconds;

/// The experiment.
pub struct Startup;

static ABOUT: About = About {
    name: "startup",
    question: "How long does it take from the command to the workload's first output, and where does the time go?",
    method: "The image's hello is started as a fresh process each time. Every moment is read from the host's \
             CLOCK_MONOTONIC: just before the process is spawned; when the first byte of the workload's output reaches the bench, \
             which is the same mark for every wall and peer; when the process has ended. The lab's own walls also tell when \
             execve(2) of the workload succeeded, and every step before. Warm cache: a first run of each is not counted. Cold cache: \
             before each run the image, its disk, its snapshots and the kernel are dropped from the page cache \
             (posix_fadvise(2), POSIX_FADV_DONTNEED).",
    blind_spot: "A program that prints and ends has none of a real service's own start-up. The lab's own binary stays in the \
                 page cache even in cold runs, since the bench runs it. Peers that are monitors boot an initramfs and \
                 mount no image.",
    papers: &[
        Paper {
            source: "Agache and others, Firecracker, NSDI 2020, data of fig. 5",
            says: "fork to guest exit, median: Cloud Hypervisor 102 ms, Firecracker 161 ms, QEMU 243 ms",
            line: Some(("first-output", 161.0)),
        },
        Paper {
            source: "Manco and others, LightVM, SOSP 2017",
            says: "a unikernel boots in 2.3 ms under a toolstack rewritten for it: two orders of magnitude faster than Docker",
            line: Some(("first-output", 2.3)),
        },
        Paper {
            source: "arXiv 2602.15214",
            says: "docker run takes 568 ms, of which namespaces and cgroups 8 to 10 ms",
            line: Some(("first-output", 568.0)),
        },
    ],
};

const WARM: &str = "warm cache";
const COLD: &str = "cold cache";
/// What the image's hello prints.
const HELLO: &[u8] = b"hello, world";

impl Experiment for Startup {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn metrics(&self) -> &'static [Metric] {
        const {
            &[
                Metric::less("first-output", "start → first output", Unit::Milliseconds),
                Metric::less("first-instruction", "start → first instruction", Unit::Milliseconds),
                Metric::less("exit", "start → workload's exit", Unit::Milliseconds),
                Metric::less("whole", "start → all given back", Unit::Milliseconds),
            ]
        }
    }

    fn cases(&self, site: &Site<'_>) -> Vec<Case> {
        let all = site.subjects.iter().map(|subject| Case::with(subject.name(), WARM));
        let cold = site.cases(&[CONTAINER, VM, RESTORED]);
        all.chain(cold.into_iter().map(|case| Case::with(&case.subject, COLD))).collect()
    }

    fn rounds(&self, quick: bool) -> u32 {
        if quick { 2 } else { 15 }
    }

    fn warms_up(&self) -> bool {
        true
    }

    fn run(&self, site: &Site<'_>, case: &Case) -> Result<Seen, String> {
        let subject = site.subject(&case.subject)?;
        let call = subject.call(&[], &["hello"])?;
        if case.variant == COLD {
            drop_from_cache();
        }
        let mut seen = seen_of(&call);
        let mut running = call.spawn(Stdio::null()).map_err(|error| told(&call, &error))?;
        let said = running.says(HELLO, LIMIT, site.interrupted).map_err(|error| error.to_string())?;
        let heard = now();
        let finished = running.finish(LIMIT, site.interrupted).map_err(|error| error.to_string())?;
        if finished.stopped == Some(Stopped::Interrupted) {
            return Err(STOPPED.into());
        }
        let printed = said || finished.printed.windows(HELLO.len()).any(|window| window == HELLO);
        if !printed {
            let words = finished.last_words();
            return Err(if words.is_empty() { "it said nothing".into() } else { words.to_owned() });
        }
        let since = |at| milliseconds(finished.spawned, at);
        seen.value("first-output", since(if said { heard } else { finished.ended }));
        seen.value("whole", since(finished.ended));
        let marks = match &subject.way {
            Some(Way::Lab { .. }) => finished.marks?,
            _ => return Ok(seen),
        };
        for (metric, mark) in [("first-instruction", Mark::Executed), ("exit", Mark::Exited)] {
            let at = marks.get(mark.name()).ok_or_else(|| format!("the mark {} is missing", mark.name()))?;
            seen.value(metric, since(*at));
        }
        if case.subject == RESTORED && marks.contains_key(Mark::KernelEntered.name()) {
            seen.fact("restored", "no: it was booted, and left a snapshot");
        }
        seen.marks = marks;
        Ok(seen)
    }
}

/// Drops what the lab keeps from the page cache. Pages that are mapped or dirty stay (posix_fadvise(2)).
fn drop_from_cache() {
    let places = [crate::paths::data().ok(), crate::paths::cache().ok().map(|cache| cache.join("kernels"))];
    for place in places.into_iter().flatten() {
        drop_below(&place, 0);
    }
}

fn drop_below(folder: &Path, depth: usize) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth < 12 => drop_below(&path, depth + 1),
            Ok(kind) if kind.is_file() => {
                let file = File::open(&path);
                let _ = file.map(|file| {
                    file.sync_all().and_then(|()| Ok(fadvise(&file, 0, None, Advice::DontNeed)?))
                });
            }
            _ => {}
        }
    }
}

//! How fast are files?

use super::{LIMIT, read_samples};
use crate::measure::bench::record::Unit;
use crate::measure::bench::session::{Site, seen_of};
use crate::measure::bench::subjects::{CONTAINER, HOST, VM};
use crate::measure::bench::{About, Case, Experiment, Metric, Paper, Seen};

/// The experiment.
pub struct Disk;

/// The experiment.
pub static DISK: Disk = Disk;

static ABOUT: About = About {
    name: "disk",
    question: "How fast are files behind each wall: written, flushed, read?",
    method: "A file of 8 MiB (1 in the short form) where a workload would put it, in /tmp of its root: written in blocks of 64 KiB, then with fsync(2); \
             4 KiB and fsync(2); read from the page cache; and 4 KiB at random, past the page cache where the file system can (O_DIRECT). \
             What file system lies under it is printed with the result.",
    blind_spot: "A container's root is an overlay over the host's disk; a VM's is an overlay over memory in the guest, which \
                 fsync(2) has nothing to do for: not the same work, and each the default. So few bytes fit into every cache \
                 of a disk. fio is not used, even where it is installed: it is not in the image.",
    papers: &[
        Paper {
            source: "Felter and others, ISPASS 2015",
            says: "random reads of 4 KiB on an SSD: Docker as native, KVM half of it; sequential: all alike",
            line: None,
        },
        Paper {
            source: "Agache and others, Firecracker, NSDI 2020",
            says: "4 KiB reads: 13,000 a second through Firecracker where the device gives 340,000",
            line: None,
        },
    ],
};

impl Experiment for Disk {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn metrics(&self) -> &'static [Metric] {
        const {
            &[
                Metric::more("write-rate", "write(2), in order", Unit::MibPerSecond),
                Metric::more("write-sync-rate", "write(2) and fsync(2)", Unit::MibPerSecond),
                Metric::less("fsync", "4 KiB and fsync(2)", Unit::Nanoseconds),
                Metric::more("cached-read-rate", "read(2), from the cache", Unit::MibPerSecond),
                Metric::less("random-read", "read(2) of 4 KiB at random", Unit::Nanoseconds),
            ]
        }
    }

    fn cases(&self, site: &Site<'_>) -> Vec<Case> {
        site.cases(&[HOST, CONTAINER, VM])
    }

    fn rounds(&self, quick: bool) -> u32 {
        if quick { 1 } else { 5 }
    }

    fn run(&self, site: &Site<'_>, case: &Case) -> Result<Seen, String> {
        let subject = site.subject(&case.subject)?;
        let (repeats, mib) = if site.quick { ("4", "1") } else { ("12", "8") };
        let scratch = site.scratch.display().to_string();
        let folder = if case.subject == HOST { &scratch } else { "/tmp" };
        let call = subject.call(&[], &["bench", "disk", repeats, folder, mib])?;
        let finished = site.finish(&call, LIMIT)?;
        let mut seen = seen_of(&call);
        // The host's folder is a place on this machine, and nothing that another needs to know.
        seen.command = seen.command.replace(&scratch, "FOLDER");
        seen.fact("file", format!("{mib} MiB"));
        read_samples(&finished.printed, &mut seen);
        if seen.values.is_empty() {
            return Err("it printed no samples".into());
        }
        Ok(seen)
    }
}

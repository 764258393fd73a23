//! How much memory does an idle sandbox take?

use crate::measure::bench::record::Unit;
use crate::measure::bench::session::{STOPPED, Site, seen_of};
use crate::measure::bench::subjects::{CONTAINER, RESTORED, VM};
use crate::measure::bench::{About, Case, Experiment, Metric, Paper, Seen};
use crate::measure::session::memory_of;

/// The experiment.
pub struct Memory;

static ABOUT: About = About {
    name: "memory",
    question: "How much memory does an idle sandbox take?",
    method: "Several sandboxes that run cat live at once; every figure is for one of them. First the drop of MemAvailable \
             (proc_meminfo(5)), which knows of the kernel's own memory; then what their processes hold, from \
             /proc/PID/smaps_rollup: PSS, private dirty, and RSS only to show what it counts twice; then what is charged to their cgroup.",
    blind_spot: "MemAvailable is the whole machine's: whatever else runs is in it. PSS and private dirty do not know of memory \
                 that the kernel holds for a sandbox. An idle sandbox says nothing of a busy one.",
    papers: &[Paper {
        source: "Agache and others, Firecracker, NSDI 2020",
        says: "Firecracker's overhead is 3 MB, Cloud Hypervisor's 13, QEMU's 131: the sum of *mapped writable* bytes; \
                   resident are, in the same files, 2.2, 5.9 and 16.8 MB",
        line: Some(("rss", 2.2e6)),
    }],
};

impl Experiment for Memory {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn metrics(&self) -> &'static [Metric] {
        const {
            &[
                Metric::less("available", "drop of MemAvailable / N", Unit::Bytes),
                Metric::shown("noise", "its own wandering / N", Unit::Bytes),
                Metric::less("pss", "PSS", Unit::Bytes),
                Metric::less("private-dirty", "private dirty", Unit::Bytes),
                Metric::less("cgroup", "charged to its cgroup", Unit::Bytes),
                Metric::shown("rss", "RSS (misleading)", Unit::Bytes),
            ]
        }
    }

    fn cases(&self, site: &Site<'_>) -> Vec<Case> {
        site.cases(&[CONTAINER, VM, RESTORED])
    }

    fn rounds(&self, quick: bool) -> u32 {
        if quick { 1 } else { 6 }
    }

    fn run(&self, site: &Site<'_>, case: &Case) -> Result<Seen, String> {
        let call = site.subject(&case.subject)?.call(&["--interactive"], &["cat"])?;
        let count = match (case.subject.as_str(), site.quick) {
            (CONTAINER, _) => 10,
            (_, false) => 3,
            (_, true) => 2,
        };
        let memory = memory_of(&call, count, site.interrupted).ok_or(STOPPED)?;
        if let Some(failure) = memory.failures.first() {
            return Err(failure.clone());
        }
        let mut seen = seen_of(&call);
        seen.fact("N", memory.instances.to_string());
        seen.value("available", memory.available_drop as f64);
        seen.value("noise", memory.available_noise as f64);
        seen.value("pss", memory.pss() as f64);
        seen.value("private-dirty", memory.private_dirty() as f64);
        seen.value("rss", memory.rss() as f64);
        if let Some(charged) = memory.cgroup {
            seen.value("cgroup", charged as f64);
        }
        Ok(seen)
    }
}

//! What each figure of the page means, for a reader who sees it for the first time.

use maud::{Markup, html};

use crate::measure::record::{Backing, Obtained};
use crate::measure::summary::Metric;

const TERMS: [(&str, &str); 12] = [
    (
        "median",
        "Half of the runs were faster, half slower. One disturbed run does not move it, as it would move a mean.",
    ),
    (
        "p90, p99",
        "90 or 99 of 100 runs were faster. With fewer than some 70 runs, p99 is simply the slowest.",
    ),
    (
        "95 % interval",
        "Where the true median lies, by a bootstrap: 10,000 times, as many runs are drawn from the measured ones with \
         replacement, and the middle 95 % of their medians are kept. Two walls whose intervals do not meet differ.",
    ),
    ("ratio", "The VM's median divided by the container's, with an interval made in the same way."),
    (
        "warm-up",
        "The first run of each wall fills the page cache. It is stored, marked, and left out of the figures; every other \
         run is counted.",
    ),
    (
        "interleaved",
        "Each block of the order holds one run a wall, shuffled by the seed: what disturbs the machine for a while \
         disturbs both walls.",
    ),
    (
        "MemAvailable",
        "By how much the memory that the machine could still give out fell, divided by the number of idle sandboxes. It \
         counts what the kernel itself uses for them, and so is the most honest figure, and the noisiest.",
    ),
    (
        "PSS",
        "Proportional set size: a page that k processes share counts 1/k in each, so that the sum is right.",
    ),
    (
        "private dirty",
        "Pages that only this process has and that no file could bring back: freed if it died.",
    ),
    ("cgroup", "What the kernel charged to the sandbox's own control group, kernel memory included."),
    (
        "RSS",
        "Resident set size: every page that is mapped and present, shared or not. Summed over processes it counts shared \
         pages again and again; it is shown only because it is so often quoted.",
    ),
    ("step", "The time between two marks on the host's monotonic clock, named by what the second mark ends."),
];

const WAYS: [(Obtained, &str); 5] = [
    (Obtained::HostKernel, "Containers: the workload is a process of the host's kernel."),
    (
        Obtained::Kvm { backing: Backing::Hardware },
        "VT-x or AMD-V runs the guest's kernel at full speed. Only these times say what a VM costs.",
    ),
    (
        Obtained::Kvm { backing: Backing::Nested },
        "The same inside another virtual machine: exits are slower.",
    ),
    (
        Obtained::Kvm { backing: Backing::Software },
        "A /dev/kvm without VT-x or AMD-V: the guest's kernel is emulated instruction by instruction, its programs run \
         natively. Start-up takes seconds instead of a fraction of one.",
    ),
    (Obtained::Tcg, "QEMU translates all guest code in software; no /dev/kvm is needed."),
];

/// The section.
pub fn section() -> Markup {
    html! {
        section {
            h2 { "What the figures mean" }
            dl.glossary {
                @for metric in Metric::ALL { dt { (metric.label()) } dd { (metric.meaning()) } }
                @for (term, meaning) in TERMS { dt { (term) } dd { (meaning) } }
                @for (way, meaning) in WAYS { dt { (way.label()) } dd { (meaning) } }
            }
        }
    }
}

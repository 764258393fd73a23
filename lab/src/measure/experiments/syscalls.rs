//! What does asking the kernel cost?

use super::inside::{Inside, timed_inside};
use crate::measure::bench::record::Unit;
use crate::measure::bench::{About, Metric, Paper};

/// The experiment.
pub static SYSCALLS: Inside = Inside {
    about: About {
        name: "syscalls",
        question: "What does a system call cost behind each wall?",
        method: timed_inside!(
            "getppid(2), which does next to nothing; read(2) of one byte of /dev/zero; open(2) and close(2) of the root folder."
        ),
        blind_spot: "A container's calls pass its seccomp filter, the host's own do not: that is part of the wall. A tight loop has \
                     everything in the caches. On a KVM without hardware, the guest's kernel is interpreted, and so is its share of each call.",
        papers: &[Paper {
            source: "Anjali, Caraza-Harter, Swift, VEE 2020",
            says: "Firecracker's guests enter the host's kernel less often than containers do, but reach not much less of its \
                       code",
            line: None,
        }],
    },
    metrics: &[
        Metric::less("getppid", "getppid(2)", Unit::Nanoseconds),
        Metric::less("read", "read(2) of a byte", Unit::Nanoseconds),
        Metric::less("open-close", "open(2) and close(2)", Unit::Nanoseconds),
    ],
    what: "syscalls",
    repeats: ("15", "40"),
};

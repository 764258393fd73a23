//! What does a new process cost inside?

use super::inside::{Inside, timed_inside};
use crate::measure::bench::record::Unit;
use crate::measure::bench::{About, Metric, Paper};

/// The experiment.
pub static PROCESSES: Inside = Inside {
    about: About {
        name: "processes",
        question: "What does a new process cost behind each wall?",
        method: timed_inside!(
            "A child that ends at once; and one that becomes another program, of the same file, first: waited for with wait4(2)."
        ),
        blind_spot: "The program is static and small: a loader, and a large address space to copy, would cost more everywhere.",
        papers: &[Paper {
            source: "McVoy and Staelin, lmbench, USENIX 1996",
            says: "lat_proc: the same two, and a third by way of /bin/sh, which costs most",
            line: None,
        }],
    },
    metrics: &[
        Metric::less("fork", "fork, exit, wait", Unit::Nanoseconds),
        Metric::less("fork-exec", "fork, exec, exit, wait", Unit::Nanoseconds),
    ],
    what: "processes",
    repeats: ("4", "20"),
};

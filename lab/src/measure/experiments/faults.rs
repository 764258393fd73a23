//! What does the first touch of a page cost?

use super::inside::{Inside, timed_inside};
use crate::measure::bench::record::Unit;
use crate::measure::bench::{About, Metric, Paper};

/// The experiment.
pub static FAULTS: Inside = Inside {
    about: About {
        name: "faults",
        question: "What does the first touch of a page of memory cost behind each wall?",
        method: timed_inside!(
            "Fresh pages are mapped, touched and kept: behind a VM's wall the host has to give each one as well, so that one touch \
             can be two faults. Then pages that were given back before are touched again."
        ),
        blind_spot: "A guest that has used its memory before has it from the host already; then its second figure is the one that \
                     matters. Huge pages, where the kernel gives them, make both much smaller.",
        papers: &[Paper {
            source: "Felter and others, ISPASS 2015, table I (RandomAccess)",
            says: "random access to memory that is there already: Docker and KVM within 2 % of native",
            line: None,
        }],
    },
    metrics: &[
        Metric::less("first-touch", "first touch, page kept", Unit::Nanoseconds),
        Metric::less("touch-again", "touch, page given back before", Unit::Nanoseconds),
    ],
    what: "faults",
    repeats: ("10", "30"),
};

//! Does a wall slow down arithmetic?

use super::inside::{Inside, timed_inside};
use crate::measure::bench::record::Unit;
use crate::measure::bench::{About, Metric, Paper};

/// The experiment.
pub static CPU: Inside = Inside {
    about: About {
        name: "cpu",
        question: "Does a wall slow down a program that asks the kernel for nothing?",
        method: timed_inside!("A loop of dependent shifts and exclusive-ors (xorshift64), in user mode."),
        blind_spot: "Registers only: no memory, no floating point, no vector unit. A guest's clock that runs wrong would not be \
                     seen from inside.",
        papers: &[Paper {
            source: "Felter and others, ISPASS 2015, table I",
            says: "compression (PXZ): Docker 4 % slower than native, KVM 22 %, tuned 18; Linpack: Docker as native, KVM 17 % \
                       slower, tuned 2",
            line: None,
        }],
    },
    metrics: &[Metric::less("round", "a round of arithmetic", Unit::Nanoseconds)],
    what: "cpu",
    repeats: ("20", "40"),
};

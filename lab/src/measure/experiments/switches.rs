//! What does it cost to switch from one process to another?

use super::inside::{Inside, timed_inside};
use crate::measure::bench::record::Unit;
use crate::measure::bench::{About, Metric, Paper};

/// The experiment.
pub static SWITCHES: Inside = Inside {
    about: About {
        name: "switches",
        question: "What does a switch between two processes cost behind each wall?",
        method: timed_inside!(
            "A byte goes to a child by a pipe and comes back by another: half a round trip is one switch."
        ),
        blind_spot: "It holds two system calls on pipes as well. On a host with several processors the two may run side by side, and a \
                     wake-up of an idle processor is then measured instead; a VM with one vCPU always switches.",
        papers: &[Paper {
            source: "McVoy and Staelin, lmbench, USENIX 1996",
            says: "lat_ctx: processes in a ring of pipes pass a token on; the cost of the pipes is taken off, which is not done here",
            line: None,
        }],
    },
    metrics: &[Metric::less("switch", "switch by pipe", Unit::Nanoseconds)],
    what: "switches",
    repeats: ("15", "40"),
};

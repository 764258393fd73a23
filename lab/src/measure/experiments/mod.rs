//! The field's experiments, one a file. Each says what it asks, how it is answered, what its figures do not show, and what the
//! literature found; `lab bench --explain` prints that.
//!
//! | asks | files |
//! |---|---|
//! | how long until the workload runs? | [`startup`], [`creation`] |
//! | how much memory? | [`memory`], [`minimum`], [`density`], [`sharing`] |
//! | how fast inside? | [`inside`]: [`cpu`], [`syscalls`], [`switches`], [`processes`], [`faults`], [`disk`]; [`network`] |
//! | how well are neighbours kept apart? | [`isolation`], [`neighbours`] |
//! | how easily does it move? | [`portability`] |
//! | what does measuring itself cost? | [`overhead`] |

pub mod cpu;
pub mod creation;
pub mod density;
pub mod disk;
pub mod faults;
pub mod inside;
pub mod isolation;
pub mod memory;
pub mod minimum;
pub mod neighbours;
pub mod network;
pub mod overhead;
pub mod portability;
pub mod processes;
pub mod sharing;
pub mod startup;
pub mod switches;
pub mod syscalls;

use std::time::Duration;

use crate::measure::bench::{Experiment, Seen};

/// All, in the order in which they are run and reported.
pub static ALL: [&dyn Experiment; 17] = [
    &startup::Startup,
    &memory::Memory,
    &minimum::Minimum,
    &density::Density,
    &creation::Creation,
    &cpu::CPU,
    &syscalls::SYSCALLS,
    &switches::SWITCHES,
    &processes::PROCESSES,
    &faults::FAULTS,
    &disk::DISK,
    &network::Network,
    &sharing::Sharing,
    &isolation::Isolation,
    &neighbours::Neighbours,
    &portability::Portability,
    &overhead::Overhead,
];

/// The experiment of this name.
pub fn find(name: &str) -> Option<&'static dyn Experiment> {
    ALL.iter().copied().find(|experiment| experiment.about().name == name)
}

/// A run that takes longer is stopped and has failed.
const LIMIT: Duration = Duration::from_secs(300);

/// Reads the lines `sample NAME NUMBER` and `fact NAME TEXT` that the image's `bench` prints.
fn read_samples(printed: &[u8], seen: &mut Seen) {
    for line in String::from_utf8_lossy(printed).lines() {
        let mut words = line.trim().splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("sample"), Some(name), Some(number)) => {
                if let Some(number) = number.parse().ok().filter(|number: &f64| number.is_finite()) {
                    seen.value(name, number);
                }
            }
            (Some("fact"), Some(name), Some(text)) => seen.fact(name, crate::report::figures::plain(text)),
            _ => {}
        }
    }
}

/// How much memory could be given out now: the median of a few readings (`MemAvailable`, proc_meminfo(5)).
fn available() -> Option<u64> {
    use procfs::Current;
    let mut readings = Vec::new();
    for _ in 0..5 {
        readings.push(procfs::Meminfo::current().ok()?.mem_available?);
        std::thread::sleep(Duration::from_millis(40));
    }
    readings.sort_unstable();
    readings.get(2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_experiment_has_a_name_of_its_own_and_says_what_its_figures_are_worth() {
        for (index, experiment) in ALL.iter().enumerate() {
            let about = experiment.about();
            assert!(ALL[..index].iter().all(|other| other.about().name != about.name), "{}", about.name);
            assert!(about.question.ends_with('?'), "{}", about.name);
            assert!(about.method.ends_with('.') && about.blind_spot.ends_with('.'), "{}", about.name);
            assert!(!about.papers.is_empty(), "{} says nothing of the literature", about.name);
            for paper in about.papers {
                let known =
                    |(metric, _): (&str, f64)| experiment.metrics().iter().any(|it| it.name == metric);
                assert!(paper.line.is_none_or(known), "{}: {}", about.name, paper.source);
            }
            assert!(experiment.rounds(true) <= experiment.rounds(false) && experiment.rounds(true) > 0);
        }
    }

    #[test]
    fn samples_are_read_and_noise_between_them_is_not() {
        let mut seen = Seen::default();
        let printed = b"[    0.1] kernel: words\nsample read 12.500\r\nsample read 13\nsample bad x\nsample nan NaN\nfact O_DIRECT yes\nsample read\n";
        read_samples(printed, &mut seen);
        assert_eq!(seen.values.len(), 1);
        assert_eq!(seen.values[0].samples, [12.5, 13.0]);
        assert_eq!(seen.facts["O_DIRECT"], "yes");
    }
}

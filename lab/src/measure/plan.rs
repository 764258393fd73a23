//! In which order the runs are made.
//!
//! Two blocks of runs, one per wall, would put any drift of the machine (heat, a cron job, a filling cache) wholly into
//! one wall. So the runs are interleaved in random order. Plain shuffling can still put most runs of a wall into one
//! half; *block randomisation* cannot: every block holds one run per wall, and only the order inside a block is random.

use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng, make_rng};
use serde::{Deserialize, Serialize};

/// The two ways of running the same image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wall {
    /// Linux namespaces on the host's kernel.
    Container,
    /// A virtual machine with a kernel of its own.
    Vm,
}

impl Wall {
    /// Both, in the order in which reports list them.
    pub const BOTH: [Wall; 2] = [Wall::Container, Wall::Vm];

    /// As `lab run --runtime` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Wall::Container => "container",
            Wall::Vm => "vm",
        }
    }
}

/// One run to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Through which wall.
    pub wall: Wall,
    /// Whether it warms the page cache: stored, but kept out of the summary.
    pub warmup: bool,
}

/// A seed that differs each time; it is stored, so that the same order can be made again.
pub fn fresh_seed() -> u64 {
    // 32 bits, so that the seed is easily typed again.
    u64::from(make_rng::<ChaCha8Rng>().next_u32())
}

// ANCHOR: order
/// The order of all runs: one warm-up a wall, then `runs` blocks of one run a wall, each block in an order of its own.
pub fn order(walls: &[Wall], runs: u32, seed: u64) -> Vec<Turn> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let blocks = (0..=runs).flat_map(|block| {
        let mut turns: Vec<_> = walls.iter().map(|&wall| Turn { wall, warmup: block == 0 }).collect();
        turns.shuffle(&mut rng);
        turns
    });
    blocks.collect()
}
// ANCHOR_END: order

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wall_has_one_warm_up_first_and_then_its_runs() {
        let order = order(&Wall::BOTH, 20, 4);
        assert_eq!(order.len(), 2 + 40);
        assert!(order[..2].iter().all(|turn| turn.warmup) && order[2..].iter().all(|turn| !turn.warmup));
        assert_eq!(order.iter().filter(|turn| turn.wall == Wall::Vm).count(), 21);
    }

    #[test]
    fn no_wall_ever_runs_more_than_twice_in_a_row() {
        for seed in 0..50 {
            let order = order(&Wall::BOTH, 30, seed);
            assert!(order.windows(3).all(|three| three.iter().any(|turn| turn.wall != three[0].wall)));
        }
    }

    #[test]
    fn the_seed_decides_the_order() {
        assert_eq!(order(&Wall::BOTH, 10, 1), order(&Wall::BOTH, 10, 1));
        assert_ne!(order(&Wall::BOTH, 10, 1), order(&Wall::BOTH, 10, 2));
    }

    #[test]
    fn a_single_wall_is_measured_alone() {
        let order = order(&[Wall::Container], 3, 1);
        assert!(order.iter().all(|turn| turn.wall == Wall::Container) && order.len() == 4);
    }
}

//! Whether two series differ, and by how much: a permutation test, an effect size, and floors below which a difference is
//! noise whatever its probability.
//!
//! A small probability alone says little: with enough runs, any two builds differ "significantly" by some nanoseconds. So a
//! difference counts only where it is above two floors as well, an absolute and a relative one, as in the A/B tests by which
//! Firecracker's developers guard its performance.

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::stats::median;

/// Permutations: the probability is then known to ±0.5 % where it is 5 %.
const PERMUTATIONS: usize = 4_000;
/// For more values than this together, each permutation would cost more than it tells: fewer are made.
const MANY: usize = 2_000;

/// Below which probability a difference counts.
pub const SIGNIFICANT: f64 = 0.05;

/// The least difference that counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Floor {
    /// In the unit of the values.
    pub absolute: f64,
    /// As a share of the first series' median.
    pub relative: f64,
}

impl Default for Floor {
    /// Two runs of the same program differ by some percent on most machines.
    fn default() -> Self {
        Self { absolute: 0.0, relative: 0.05 }
    }
}

/// How one series stands to another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Median of the second less median of the first.
    pub difference: f64,
    /// How probable such a difference or a greater one is if both were drawn from one distribution.
    pub p: f64,
    /// Cliff's delta: how much more often a value of the second is above one of the first than below; −1 to 1.
    pub delta: f64,
    /// Whether the difference is probable and large enough to count.
    pub counts: bool,
}

impl Effect {
    /// Compares two series; none where one is empty.
    // ANCHOR: between
    pub fn between(first: &[f64], second: &[f64], floor: Floor, seed: u64) -> Option<Self> {
        if first.is_empty() || second.is_empty() {
            return None;
        }
        let difference = median(second) - median(first);
        let p = permutation_test(first, second, seed);
        let large =
            difference.abs() > floor.absolute && difference.abs() > floor.relative * median(first).abs();
        Some(Self { difference, p, delta: cliffs_delta(first, second), counts: large && p < SIGNIFICANT })
    }
    // ANCHOR_END: between

    /// The effect in a word (Romano and others 2006: thresholds 0.147, 0.33 and 0.474).
    pub fn size(&self) -> &'static str {
        match self.delta.abs() {
            delta if delta < 0.147 => "negligible",
            delta if delta < 0.33 => "small",
            delta if delta < 0.474 => "medium",
            _ => "large",
        }
    }
}

/// The probability that the medians lie as far apart as they do, or farther, if the values had fallen into the two series by
/// chance (Efron and Tibshirani, *An Introduction to the Bootstrap*, ch. 15). It assumes no distribution, only that the runs
/// could have been made in any order, which interleaving them at random brings about.
pub fn permutation_test(first: &[f64], second: &[f64], seed: u64) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut all: Vec<f64> = first.iter().chain(second).copied().collect();
    let permutations = if all.len() > MANY { PERMUTATIONS / 4 } else { PERMUTATIONS };
    let observed = (median(second) - median(first)).abs();
    let as_far = (0..permutations)
        .filter(|_| {
            all.shuffle(&mut rng);
            let (one, other) = all.split_at_mut(first.len());
            // Not exactly: a sum in another order differs in its last bit.
            (middle(other) - middle(one)).abs() >= observed * (1.0 - 1e-12)
        })
        .count();
    // The order that was seen is one of the possible ones, so that the probability is never nought.
    (as_far + 1) as f64 / (permutations + 1) as f64
}

/// The median, without sorting all; the order of the values is lost.
fn middle(values: &mut [f64]) -> f64 {
    let half = values.len() / 2;
    let odd = values.len() % 2 == 1;
    let (below, &mut upper, _) = values.select_nth_unstable_by(half, f64::total_cmp);
    if odd {
        return upper;
    }
    let lower = below.iter().copied().max_by(f64::total_cmp).unwrap_or(upper);
    f64::midpoint(lower, upper)
}

/// Cliff's delta (Cliff 1993): of all pairs of a value of the second and one of the first, the share in which it is greater
/// less the share in which it is smaller.
pub fn cliffs_delta(first: &[f64], second: &[f64]) -> f64 {
    let mut sorted = first.to_vec();
    sorted.sort_by(f64::total_cmp);
    let sum: i64 = second
        .iter()
        .map(|value| {
            let below = sorted.partition_point(|other| other < value);
            let not_above = sorted.partition_point(|other| other <= value);
            below as i64 - (sorted.len() - not_above) as i64
        })
        .sum();
    sum as f64 / (first.len() as f64 * second.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_distr::{Distribution, LogNormal};

    fn drawn(rng: &mut ChaCha8Rng, n: usize, shift: f64) -> Vec<f64> {
        let skewed = LogNormal::new(2.0, 0.3).unwrap();
        (0..n).map(|_| skewed.sample(rng) + shift).collect()
    }

    #[test]
    fn one_distribution_is_told_apart_from_itself_in_one_of_twenty_experiments() {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let found = (0..200)
            .filter(|&seed| {
                let (a, b) = (drawn(&mut rng, 15, 0.0), drawn(&mut rng, 15, 0.0));
                permutation_test(&a, &b, seed) < SIGNIFICANT
            })
            .count();
        // 10 of 200 are due; the binomial standard deviation is 3.1.
        assert!((2..=20).contains(&found), "{found}");
    }

    #[test]
    fn a_shifted_distribution_is_told_apart_nearly_always() {
        let mut rng = ChaCha8Rng::seed_from_u64(12);
        let found = (0..50)
            .filter(|&seed| {
                let (a, b) = (drawn(&mut rng, 20, 0.0), drawn(&mut rng, 20, 6.0));
                permutation_test(&a, &b, seed) < SIGNIFICANT
            })
            .count();
        assert!(found >= 48, "{found}");
    }

    #[test]
    fn the_probability_is_that_of_all_orders_where_these_can_be_counted() {
        // Of the 20 ways to share out 1, 2, 3, 11, 12, 13, four put the medians ten apart: 3 and 11 may change places.
        let p = permutation_test(&[1.0, 2.0, 3.0], &[11.0, 12.0, 13.0], 1);
        assert!((p - 0.2).abs() < 0.02, "{p}");
        assert!(permutation_test(&[5.0; 6], &[5.0; 6], 1) > 0.99);
    }

    #[test]
    fn the_effect_size_of_known_series() {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(close(cliffs_delta(&[1.0, 2.0], &[3.0, 4.0]), 1.0));
        assert!(close(cliffs_delta(&[3.0, 4.0], &[1.0, 2.0]), -1.0));
        assert!(close(cliffs_delta(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]), 0.0));
        // Pairs of 2: above 1, equal to 2, below 3 and 4.
        assert!(close(cliffs_delta(&[1.0, 2.0, 3.0, 4.0], &[2.0]), -0.25));
    }

    #[test]
    fn a_difference_below_a_floor_does_not_count_however_improbable() {
        let a: Vec<f64> = (0..100).map(|i| 100.0 + f64::from(i) / 1000.0).collect();
        let b: Vec<f64> = a.iter().map(|value| value + 1.0).collect();
        let effect = Effect::between(&a, &b, Floor::default(), 1).unwrap();
        assert!(effect.p < 0.001 && effect.delta > 0.99 && !effect.counts, "{effect:?}");
        let fine = Floor { absolute: 0.0, relative: 0.001 };
        assert!(Effect::between(&a, &b, fine, 1).unwrap().counts);
        let coarse = Floor { absolute: 2.0, relative: 0.001 };
        assert!(!Effect::between(&a, &b, coarse, 1).unwrap().counts);
    }

    #[test]
    fn the_quick_median_is_the_median() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for n in 1..40 {
            let mut values = drawn(&mut rng, n, 0.0);
            let slow = median(&values);
            assert!((middle(&mut values) - slow).abs() < 1e-9, "{n}");
        }
    }
}

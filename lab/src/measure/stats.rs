//! Order statistics and bootstrap intervals.
//!
//! Start-up times are skewed to the right (a scheduler's hiccup only ever adds), so nothing here assumes a normal
//! distribution and no mean is printed. Quantiles come from `statrs` (Hyndman and Fan's definition 8, which their
//! paper recommends: median-unbiased whatever the distribution).
//!
//! Intervals are **percentile bootstrap** intervals (Efron and Tibshirani, *An Introduction to the Bootstrap*, ch. 13).
//! Not BCa: its acceleration comes from the jackknife, and the jackknife is inconsistent for the median (same book,
//! section 11.6). No maintained crate offers a bootstrap of any statistic that is not the mean, hence the few lines here.

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand_distr::{Beta, Distribution};
use serde::{Deserialize, Serialize};
use statrs::statistics::{Data, OrderStatistics};

/// How many resamples an interval is made of: the ends of a 95 % interval then rest on 250 resamples each.
const RESAMPLES: usize = 10_000;

/// Fewer values than this give no 95 % interval of the median: even the widest one, from the least to the greatest
/// value, covers it with a probability of only 1 − 2·½ⁿ, which passes 95 % at n = 6.
pub const LEAST_FOR_INTERVAL: usize = 6;

/// An interval that covers the true value in 95 % of experiments.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// What is printed of a set of values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// How many values.
    pub n: usize,
    /// The middle value.
    pub median: f64,
    /// The 95 % interval of the median; none below [`LEAST_FOR_INTERVAL`] values.
    pub interval: Option<Interval>,
    /// 9 of 10 values are below.
    pub p90: f64,
    /// 99 of 100 values are below (with fewer than some 70 values, this is the greatest).
    pub p99: f64,
    /// The least value.
    pub min: f64,
    /// The greatest value.
    pub max: f64,
}

impl Stats {
    /// Computes them; none where there are no values.
    pub fn of(values: &[f64], seed: u64) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let mut data = Data::new(values.to_vec());
        let interval = (values.len() >= LEAST_FOR_INTERVAL)
            .then(|| percentile_interval(medians(values, &mut ChaCha8Rng::seed_from_u64(seed))));
        Some(Self {
            n: values.len(),
            median: data.quantile(0.5),
            interval,
            p90: data.quantile(0.9),
            p99: data.quantile(0.99),
            min: data.quantile(0.0),
            max: data.quantile(1.0),
        })
    }
}

/// How many times the median of `above` is the median of `below`, with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The ratio of the medians.
    pub value: f64,
    /// The 95 % interval; none where either side has fewer than [`LEAST_FOR_INTERVAL`] values.
    pub interval: Option<Interval>,
}

impl Ratio {
    /// Computes it; none where a side is empty or the divisor is not positive.
    pub fn of(above: &[f64], below: &[f64], seed: u64) -> Option<Self> {
        if above.is_empty() || below.is_empty() || below.iter().any(|&value| value <= 0.0) {
            return None;
        }
        let enough = above.len().min(below.len()) >= LEAST_FOR_INTERVAL;
        let interval = enough.then(|| {
            // The two sides are resampled independently: each run is a process of its own.
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let above = medians(above, &mut rng);
            let below = medians(below, &mut rng);
            percentile_interval(above.iter().zip(below).map(|(above, below)| above / below).collect())
        });
        Some(Self { value: median(above) / median(below), interval })
    }
}

/// The median of some values (NaN where there are none).
pub fn median(values: &[f64]) -> f64 {
    Data::new(values.to_vec()).median()
}

/// Which values lie far outside the others: more than 14.826 times the median absolute deviation from the median
/// (a modified Z score above 10, as hyperfine has it), so that they hint at a disturbance rather than at a tail.
pub fn outliers(values: &[f64]) -> Vec<usize> {
    let middle = median(values);
    let deviation = median(&values.iter().map(|value| (value - middle).abs()).collect::<Vec<_>>());
    let far = |value: f64| (value - middle).abs() > 14.826 * deviation;
    if deviation > 0.0 { (0..values.len()).filter(|&index| far(values[index])).collect() } else { Vec::new() }
}

/// The medians of `RESAMPLES` resamples with replacement.
///
/// A resample is n draws of a place in the sorted values, each place n·U rounded down for a uniform U; its median needs
/// only the middle one or two draws in order. The k-th smallest of n uniform draws has the distribution
/// Beta(k, n + 1 − k), and the next one lies above it by a share Beta(1, n − k) of what is left (David and Nagaraja,
/// *Order Statistics*, 2.3 and 2.5). So a median costs two draws instead of n: 10,000 runs are summed up in no time.
fn medians(values: &[f64], rng: &mut ChaCha8Rng) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let at = |place: f64| sorted[((place * n as f64) as usize).min(n - 1)];
    let middle = n.div_ceil(2);
    let beta = |a: usize, b: usize| Beta::new(a as f64, b as f64).expect("both are at least 1");
    let lower = beta(middle, n + 1 - middle);
    let gap = n.is_multiple_of(2).then(|| beta(1, n - middle));
    let median = |_| {
        let place = lower.sample(rng);
        gap.map_or(at(place), |gap| {
            let next = place + (1.0 - place) * gap.sample(rng);
            f64::midpoint(at(place), at(next))
        })
    };
    (0..RESAMPLES).map(median).collect()
}

fn percentile_interval(replicates: Vec<f64>) -> Interval {
    let mut replicates = Data::new(replicates);
    Interval { low: replicates.quantile(0.025), high: replicates.quantile(0.975) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    fn exponential(rng: &mut ChaCha8Rng, n: usize) -> Vec<f64> {
        (0..n).map(|_| -(1.0 - rng.random::<f64>()).ln()).collect()
    }

    #[test]
    fn quantiles_of_a_known_sample_are_those_of_definition_8() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        let stats = Stats::of(&values, 1).unwrap();
        let h = |q: f64| (100.0 + 1.0 / 3.0) * q + 1.0 / 3.0;
        assert!((stats.median - 50.5).abs() < 1e-9);
        assert!((stats.p90 - h(0.9)).abs() < 1e-9);
        assert!((stats.p99 - h(0.99)).abs() < 1e-9);
        assert!((stats.min, stats.max) == (1.0, 100.0));
    }

    #[test]
    fn the_interval_covers_the_true_median_about_95_times_in_100() {
        // The exponential distribution's median is ln 2. 200 experiments of 25 values: the binomial standard deviation
        // of the coverage is 1.5 %, so 90 to 99 % is what a right procedure gives, and a wrong one does not.
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let truth = std::f64::consts::LN_2;
        let covered = (0..200)
            .filter(|&seed| {
                let values = exponential(&mut rng, 25);
                let interval = Stats::of(&values, seed).unwrap().interval.unwrap();
                interval.low <= truth && truth <= interval.high
            })
            .count();
        assert!((180..=198).contains(&covered), "{covered} of 200");
    }

    #[test]
    fn two_draws_give_what_a_whole_resample_gives() {
        // The interval of plain resampling, value by value, against ours: for an odd and an even number of values.
        for n in [25, 26] {
            let values = exponential(&mut ChaCha8Rng::seed_from_u64(5), n);
            let mut rng = ChaCha8Rng::seed_from_u64(6);
            let plain = (0..4000)
                .map(|_| median(&(0..n).map(|_| values[rng.random_range(0..n)]).collect::<Vec<_>>()));
            let plain = percentile_interval(plain.collect());
            let ours = percentile_interval(medians(&values, &mut rng));
            let width = plain.high - plain.low;
            assert!((plain.low - ours.low).abs() < 0.08 * width, "{plain:?} {ours:?}");
            assert!((plain.high - ours.high).abs() < 0.08 * width, "{plain:?} {ours:?}");
        }
    }

    #[test]
    fn the_ratio_of_a_shifted_sample_is_found_and_its_interval_holds_it() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let below: Vec<f64> = (0..60).map(|_| 10.0 + rng.random::<f64>()).collect();
        let above: Vec<f64> = (0..60).map(|_| 40.0 + 4.0 * rng.random::<f64>()).collect();
        let ratio = Ratio::of(&above, &below, 5).unwrap();
        let interval = ratio.interval.unwrap();
        assert!((ratio.value - 4.0).abs() < 0.1);
        assert!(interval.low < 4.0 && 4.0 < interval.high && interval.high - interval.low < 0.5);
    }

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let values = exponential(&mut ChaCha8Rng::seed_from_u64(1), 20);
        assert_eq!(Stats::of(&values, 9), Stats::of(&values, 9));
    }

    #[test]
    fn too_few_values_give_figures_but_no_interval() {
        let stats = Stats::of(&[3.0, 1.0, 2.0], 1).unwrap();
        assert!((stats.median - 2.0).abs() < 1e-12);
        assert_eq!(stats.interval, None);
        assert_eq!(Stats::of(&[], 1), None);
        assert_eq!(Ratio::of(&[1.0], &[], 1), None);
        assert_eq!(Ratio::of(&[1.0], &[0.0], 1), None);
    }

    #[test]
    fn equal_values_give_an_interval_of_no_width_and_no_outliers() {
        let interval = Stats::of(&[4.0; 8], 1).unwrap().interval.unwrap();
        assert_eq!(interval, Interval { low: 4.0, high: 4.0 });
        assert!(outliers(&[4.0; 8]).is_empty());
    }

    #[test]
    fn a_disturbed_run_is_an_outlier_and_a_long_tail_is_not() {
        assert_eq!(outliers(&[10.0, 10.2, 9.9, 10.1, 30.0, 10.0]), [4]);
        assert!(outliers(&[10.0, 11.0, 12.0, 14.0, 17.0, 21.0]).is_empty());
    }
}

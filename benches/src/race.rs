//! A race of whole processes: each contender's command is spawned and waited for, again and again, in random order.

use std::io;
use std::process::{Command, ExitStatus, Stdio};

use lab::measure::stats::{Interval, Ratio, Stats};
use lab_clock::now;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

/// One of those who race.
pub struct Contender {
    /// What the table calls it.
    pub name: String,
    /// Makes the command of one run; a number that differs in each is given, for names that must not repeat.
    pub command: Box<dyn FnMut(u32) -> Command>,
}

impl Contender {
    /// A contender of this name.
    pub fn new(name: impl Into<String>, command: impl FnMut(u32) -> Command + 'static) -> Self {
        Self { name: name.into(), command: Box::new(command) }
    }
}

/// How one contender did: the wall time of each of its runs in milliseconds, in the order they were made.
#[derive(Debug)]
pub struct Laps {
    /// The contender.
    pub name: String,
    /// Milliseconds from just before spawn to the end of wait, one for each counted run.
    pub milliseconds: Vec<f64>,
}

/// Why a race was broken off: a contender that fails is not fast, it is out of order.
#[derive(Debug, thiserror::Error)]
pub enum RaceError {
    /// A command did not start.
    #[error("{name} does not start: {source}")]
    Start {
        /// The contender.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A command failed.
    #[error("{name} ended with {status}: {stderr}")]
    Failed {
        /// The contender.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to standard error.
        stderr: String,
    },
}

/// Runs each contender once uncounted, which warms the page cache and catches mistakes, then `rounds` times; in each
/// round all run once, in an order shuffled by `seed`.
///
/// # Errors
/// The first run that does not exit with 0.
pub fn race(contenders: &mut [Contender], rounds: u32, seed: u64) -> Result<Vec<Laps>, RaceError> {
    let mut laps: Vec<Laps> = contenders
        .iter()
        .map(|contender| Laps { name: contender.name.clone(), milliseconds: Vec::new() })
        .collect();
    for contender in &mut *contenders {
        let command = (contender.command)(0);
        checked(&contender.name, command)?;
    }
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for round in 1..=rounds {
        order.shuffle(&mut random);
        for &index in &order {
            let contender = &mut contenders[index];
            let command = (contender.command)(round);
            laps[index].milliseconds.push(timed(&contender.name, command)?);
        }
    }
    Ok(laps)
}

/// One run that tells what went wrong.
fn checked(name: &str, mut command: Command) -> Result<(), RaceError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| RaceError::Start { name: name.into(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(RaceError::Failed { name: name.into(), status: output.status, stderr })
}

/// One run, its output thrown away, in milliseconds.
fn timed(name: &str, mut command: Command) -> Result<f64, RaceError> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begin = now();
    let status = command.status().map_err(|source| RaceError::Start { name: name.into(), source })?;
    let end = now();
    if !status.success() {
        return Err(RaceError::Failed { name: name.into(), status, stderr: String::new() });
    }
    Ok((end - begin) as f64 / 1e6)
}

/// Prints how all did, each with the ratio to the contender `base`.
pub fn print(title: &str, laps: &[Laps], base: &str, seed: u64) {
    println!("\n{title}");
    println!(
        "{:<34} {:>10} {:>19} {:>8} {:>8}  ratio to {base}",
        "", "median ms", "95 % interval", "min", "max"
    );
    let reference = laps.iter().find(|lap| lap.name == base);
    for lap in laps {
        let Some(stats) = Stats::of(&lap.milliseconds, seed) else { continue };
        let ratio = reference
            .filter(|reference| reference.name != lap.name)
            .and_then(|reference| Ratio::of(&lap.milliseconds, &reference.milliseconds, seed));
        println!(
            "{:<34} {:>10.2} {:>19} {:>8.2} {:>8.2}  {}",
            lap.name,
            stats.median,
            span(stats.interval),
            stats.min,
            stats.max,
            ratio
                .map_or_else(|| "1".into(), |ratio| format!("{:.2} ({})", ratio.value, span(ratio.interval))),
        );
    }
}

fn span(interval: Option<Interval>) -> String {
    interval.map_or_else(
        || "too few runs".into(),
        |interval| format!("{:.2} … {:.2}", interval.low, interval.high),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contender_runs_once_in_each_round_and_one_warm_up_is_not_counted() {
        let mut contenders = ["true", "sleep"].map(|name| {
            Contender::new(name, move |_| {
                let mut command = Command::new(name);
                command.args((name == "sleep").then_some("0"));
                command
            })
        });
        let laps = race(&mut contenders, 3, 1).unwrap();
        assert_eq!(laps.iter().map(|lap| lap.milliseconds.len()).collect::<Vec<_>>(), [3, 3]);
    }

    #[test]
    fn a_contender_that_fails_is_out_of_order() {
        let mut contenders = [Contender::new("false", |_| Command::new("false"))];
        assert!(matches!(race(&mut contenders, 1, 1), Err(RaceError::Failed { .. })));
    }
}

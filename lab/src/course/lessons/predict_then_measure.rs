//! A measurement, graded on its method and on the prediction that came before it.

use std::path::Path;
use std::time::Instant;

use super::super::Error;
use super::super::compile::Tools;
use super::super::sandbox::Ended;
use super::{Cause, Seen, room, unseen};

/// The least number of samples of each kind.
const LEAST: usize = 20;

/// How far a prediction may be from the measurement, as a factor.
const NEAR: f64 = 5.0;

/// What the student's program told.
#[derive(Default)]
struct Told {
    /// Before any sample.
    predicted: Option<f64>,
    concluded: Option<f64>,
    plain: Vec<f64>,
    walled: Vec<f64>,
    /// How often the kind changed from one sample to the next.
    turns: usize,
}

/// Runs the program and reads what it tells.
pub(in crate::course) fn grade(_: &Tools, program: &Path) -> Result<Seen, Error> {
    let begun = Instant::now();
    let mut live = room(program)?.start()?;
    let mut told = Told::default();
    let mut last = String::new();
    while let Some(line) = live.listen() {
        told.hear(&line, &mut last);
    }
    let ended = live.finish()?;
    let mut seen = Seen::default();
    judge(&mut seen, &told, &ended, begun.elapsed().as_secs_f64() * 1e3);
    seen.output = ended.output;
    Ok(seen)
}

impl Told {
    fn hear(&mut self, line: &str, last: &mut String) {
        let words: Vec<&str> = line.split(' ').collect();
        let number =
            |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
        match words[..] {
            ["predict", times] if self.plain.is_empty() && self.walled.is_empty() => {
                self.predicted = number(times);
            }
            ["conclude", times] => self.concluded = number(times),
            ["sample", kind, nanos] => {
                let Some(nanos) = number(nanos) else { return };
                match kind {
                    "plain" => self.plain.push(nanos),
                    "walled" => self.walled.push(nanos),
                    _ => return,
                }
                if !last.is_empty() && last != kind {
                    self.turns += 1;
                }
                kind.clone_into(last);
            }
            _ => {}
        }
    }
}

fn judge(seen: &mut Seen, told: &Told, ended: &Ended, elapsed: f64) {
    let (plain, walled) = (told.plain.len(), told.walled.len());
    let few = plain < LEAST || walled < LEAST;
    let cause = || unseen(ended, "no-samples").fact("plain", plain).fact("walled", walled);
    seen.judge("samples", few.then(cause));
    if few {
        return;
    }
    seen.judge("predicted", told.predicted.is_none().then(|| Cause::new("not-predicted")));
    let blocks = told.turns < plain.min(walled);
    seen.judge("interleaved", blocks.then(|| Cause::new("in-blocks").fact("turns", told.turns)));
    let sum = (told.plain.iter().sum::<f64>() + told.walled.iter().sum::<f64>()) / 1e6;
    let times = || Cause::new("impossible").fact("sum", rounded(sum)).fact("elapsed", rounded(elapsed));
    seen.judge("possible", (sum > elapsed).then(times));

    let ratio = |of: fn(&[f64]) -> f64| of(&told.walled) / of(&told.plain);
    let (median, mean) = (ratio(median), ratio(mean));
    let concluded = told.concluded.unwrap_or_default();
    let cause = || {
        let cause = Cause::new("not-median").fact("concluded", rounded(concluded));
        cause.fact("median", rounded(median)).fact("mean", rounded(mean))
    };
    // An even number of samples has two middle ones; either, or their mean, will do.
    seen.judge("median", (!(0.9..1.1).contains(&(concluded / median))).then(cause));
    let predicted = told.predicted.unwrap_or_default();
    let near = (1.0 / NEAR..NEAR).contains(&(predicted / median));
    let cause = Cause::new("surprised").fact("predicted", rounded(predicted)).fact("median", rounded(median));
    seen.judge("near", (!near).then_some(cause));
}

fn rounded(number: f64) -> String {
    format!("{number:.2}")
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2])
}

fn mean(times: &[f64]) -> f64 {
    times.iter().sum::<f64>() / times.len() as f64
}

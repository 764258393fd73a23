//! Predict, then measure: what do namespaces cost?

use std::io;
use std::time::{Duration, Instant};

use lesson::measure::{conclude, predict, sample};
use lesson::{NEWIPC, NEWNS, NEWPID, NEWUTS, fork, unshare, wait};

/// A process that does nothing, made by a child as the other one is.
fn start(walls: i32) -> io::Result<Duration> {
    let begun = Instant::now();
    match fork()? {
        None => {
            if walls != 0 {
                unshare(walls)?;
            }
            match fork()? {
                None => std::process::exit(0),
                Some(child) => std::process::exit(wait(child)?.into()),
            }
        }
        Some(child) => wait(child)?,
    };
    Ok(begun.elapsed())
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

fn main() -> io::Result<()> {
    // A fork copies page tables, a namespace is a few allocations; taking them down waits for other processors.
    predict(700.0);
    let (mut plain, mut walled) = (Vec::new(), Vec::new());
    for _ in 0..41 {
        plain.push(start(0)?);
        sample("plain", plain[plain.len() - 1]);
        walled.push(start(NEWPID | NEWNS | NEWUTS | NEWIPC)?);
        sample("walled", walled[walled.len() - 1]);
    }
    conclude(median(&mut walled) / median(&mut plain));
    Ok(())
}

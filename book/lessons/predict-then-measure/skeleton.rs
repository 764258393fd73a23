//! Predict, then measure: what do namespaces cost?

#[allow(unused_imports)]
use lesson::measure::{conclude, predict, sample};
#[allow(unused_imports)]
use lesson::{NEWIPC, NEWNS, NEWPID, NEWUTS, fork, unshare, wait};
use std::time::Instant;

/// A process that does nothing, started and waited for.
fn plain() -> std::io::Result<()> {
    match fork()? {
        None => std::process::exit(0),
        Some(child) => wait(child).map(drop),
    }
}

fn main() -> std::io::Result<()> {
    // TODO: predict, measure in turns, conclude.
    let begun = Instant::now();
    plain()?;
    sample("plain", begun.elapsed());
    Ok(())
}

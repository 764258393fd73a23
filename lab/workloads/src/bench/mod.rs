//! Loops that time themselves, for the lab to read: each line is one sample, so that raw values leave the sandbox.
//!
//! ```text
//!   sample NAME NUMBER      nanoseconds for one of what NAME says, or MiB/s where it ends in -rate
//!   fact NAME TEXT          what a reader must know of them
//! ```
//!
//! A batch is as many rounds as take some milliseconds by the clock in here: behind one wall that is a hundred thousand
//! system calls, behind an interpreter a dozen, and neither the clock's own cost nor a second of waiting spoils it.

mod disk;
mod hog;
mod kernel;
mod memory;
mod net;

use freestanding::sys::time::monotonic;
use freestanding::text::parse_number;
use freestanding::{Args, Errno, Text, sys};

use crate::output::{complain, failed, say};

/// A batch shorter than this would be blurred by what the clock itself costs.
const ENOUGH: u64 = 4_000_000;
/// Batches, if not told.
const REPEATS: u64 = 20;
/// Size of the file, if not told: it fits into a small guest's memory.
const MIB: u64 = 8;

/// Runs and reports.
pub fn run(args: Args) -> u8 {
    let what = args.get(1).map_or(&b""[..], |text| text.to_bytes());
    if what == b"hog" {
        return hog::run(args.skip(1));
    }
    if what == b"serve" {
        return net::serve(args.skip(1));
    }
    if what == b"address" {
        return net::address(args.skip(1));
    }
    if what == b"net" {
        return net::client(args.skip(1));
    }
    let repeats = args.get(2).map_or(Some(REPEATS), |text| parse_number(text.to_bytes()));
    let Some(repeats) = repeats.filter(|repeats| (1..=100_000).contains(repeats)) else {
        return complain("bench", b"REPEATS", "must be a number from 1 to 100000", 2);
    };
    let mib = args.get(4).map_or(Some(MIB), |text| parse_number(text.to_bytes()));
    let Some(mib) = mib.filter(|mib| (1..=65_536).contains(mib)) else {
        return complain("bench", b"MIB", "must be a number from 1 to 65536", 2);
    };
    let result = match what {
        b"cpu" => sample("round", repeats, u64::MAX, |rounds| Ok(cpu(rounds))),
        b"syscalls" => kernel::calls(repeats),
        b"switches" => kernel::switches(repeats),
        b"processes" => kernel::processes(repeats),
        b"faults" => memory::faults(repeats),
        b"disk" => disk::run(repeats, args.get(3).unwrap_or(c"/tmp"), mib),
        _ => {
            return complain(
                "bench",
                what,
                "is none of cpu syscalls switches processes faults disk hog serve address net",
                2,
            );
        }
    };
    match result {
        Ok(()) => 0,
        Err(errno) => failed("bench", what, errno),
    }
}

/// The `cpu` program's arithmetic.
fn cpu(rounds: u64) -> u64 {
    let start = monotonic();
    core::hint::black_box(crate::cpu::work(core::hint::black_box(rounds)));
    monotonic() - start
}

/// Finds how many rounds make a batch, at most so many, then prints so many batches in nanoseconds a round.
fn sample(
    name: &str,
    repeats: u64,
    most: u64,
    mut batch: impl FnMut(u64) -> sys::Result<u64>,
) -> sys::Result<()> {
    let mut rounds = 1;
    while rounds < most && batch(rounds)? < ENOUGH {
        rounds = (rounds * 2).min(most);
    }
    for _ in 0..repeats {
        let nanos = batch(rounds)?;
        // 1000ths: a round of arithmetic takes but a nanosecond.
        line(name, u128::from(nanos) * 1000 / u128::from(rounds))?;
    }
    Ok(())
}

/// Prints a sample given in thousandths.
fn line(name: &str, thousandths: u128) -> sys::Result<()> {
    let thousandths = u64::try_from(thousandths).unwrap_or(u64::MAX);
    let mut line = Text::<96>::new();
    line.text("sample ").text(name).text(" ").number(thousandths / 1000).text(".");
    line.zeros(thousandths % 1000, 3).text("\n");
    printed(say(&[line.bytes()]))
}

/// Prints a fact.
fn fact(name: &str, text: &[u8]) -> sys::Result<()> {
    printed(say(&[b"fact ", name.as_bytes(), b" ", text, b"\n"]))
}

fn printed(code: u8) -> sys::Result<()> {
    if code == 0 { Ok(()) } else { Err(Errno::PIPE) }
}

//! The bad neighbour: takes all it can get of one thing, for so many seconds.

use core::mem::ManuallyDrop;

use freestanding::sys::memory::Array;
use freestanding::sys::process::{self, Fork};
use freestanding::sys::time::{Duration, monotonic, sleep};
use freestanding::text::parse_number;
use freestanding::{Args, Text};

use crate::output::{complain, say};

/// More processes than this are not tried: a machine without any limit must survive the lesson.
const MOST_PROCESSES: u64 = 5_000;
const STEP: usize = 1 << 20;

/// `hog cpu|memory|forks SECONDS`. Says `hogging` when it begins, and at the end how far it came.
pub fn run(args: Args) -> u8 {
    let what = args.get(1).map_or(&b""[..], |text| text.to_bytes());
    let seconds = args.get(2).and_then(|text| parse_number(text.to_bytes()));
    let Some(seconds) = seconds.filter(|seconds| (1..=600).contains(seconds)) else {
        return complain("bench", b"hog SECONDS", "must be a number from 1 to 600", 2);
    };
    let end = monotonic() + seconds * 1_000_000_000;
    if say(&[b"hogging\n"]) != 0 {
        return 1;
    }
    let taken = match what {
        b"cpu" => cpu(end),
        b"memory" => memory(end),
        b"forks" => forks(end),
        _ => return complain("bench", what, "is none of cpu memory forks", 2),
    };
    let mut line = Text::<64>::new();
    line.text("sample hogged ").number(taken).text(".000\n");
    say(&[line.bytes()])
}

/// Millions of rounds, in two processes: one more than most sandboxes have processors.
fn cpu(end: u64) -> u64 {
    let _ = process::fork(0);
    let mut millions = 0;
    while monotonic() < end {
        core::hint::black_box(crate::cpu::work(1_000_000));
        millions += 1;
    }
    millions
}

/// Mebibytes held.
fn memory(end: u64) -> u64 {
    let mut mib = 0;
    while monotonic() < end {
        match Array::<u8>::new(STEP) {
            Ok(memory) => {
                let mut memory = ManuallyDrop::new(memory);
                for byte in memory.iter_mut().step_by(4096) {
                    *byte = 1;
                }
                mib += 1;
            }
            Err(_) => sleep(Duration::from_millis(50)),
        }
    }
    mib
}

/// Processes that live at once.
fn forks(end: u64) -> u64 {
    let mut children = 0;
    while monotonic() < end {
        match if children < MOST_PROCESSES { process::fork(0) } else { Err(freestanding::Errno::AGAIN) } {
            Ok(Fork::Child) => {
                sleep(Duration::from_nanos(end.saturating_sub(monotonic())));
                process::exit(0)
            }
            Ok(Fork::Parent(_)) => children += 1,
            // Refused: as a bomb does, try again at once.
            Err(_) => process::yield_now(),
        }
    }
    children
}

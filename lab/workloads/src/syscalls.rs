//! The price of entering the kernel, and of switching from one process to another.

use freestanding::sys::file::pipe;
use freestanding::sys::process::{self, Fork, Which};
use freestanding::sys::time::monotonic;
use freestanding::text::parse_number;
use freestanding::{Args, Errno, Text, sys};

use crate::output::{complain, failed, ratio, say};

const COUNT: u64 = 100_000;

/// A round trip between two processes costs far more than a call: fewer of them.
const PER_SWITCH: u64 = 10;

/// Runs and reports.
pub fn run(args: Args) -> u8 {
    let count = args.get(1).map_or(Some(COUNT), |text| parse_number(text.to_bytes()));
    let Some(count) = count.filter(|&count| count >= PER_SWITCH) else {
        return complain("syscalls", b"COUNT", "must be a number, at least 10", 2);
    };
    let start = monotonic();
    for _ in 0..count {
        process::parent(); // like getpid(2), of which it is the twin that no C library ever cached
    }
    report("getppid(2)", monotonic() - start, count);
    match switches(count / PER_SWITCH) {
        // One round trip is two switches.
        Ok(nanos) => report("context switch by pipe", nanos, count / PER_SWITCH * 2),
        Err(errno) => failed("syscalls", b"pipe", errno),
    }
}

fn report(what: &str, nanos: u64, count: u64) -> u8 {
    let mut line = Text::<128>::new();
    line.text("syscalls: ").text(what).text(": ");
    ratio(&mut line, nanos, count);
    line.text(" ns each, ").number(count).text(" times\n");
    say(&[line.bytes()])
}

/// Sends a byte to a child and back, so many times; how long that took.
fn switches(rounds: u64) -> sys::Result<u64> {
    let (there, to) = pipe()?;
    let (back, from) = pipe()?;
    match process::fork(0)? {
        Fork::Child => {
            drop((to, back));
            let mut byte = [0];
            while there.read(&mut byte) == Ok(1) && from.write(&byte).is_ok() {}
            process::exit(0)
        }
        Fork::Parent(child) => {
            drop((there, from));
            let start = monotonic();
            let mut byte = [1];
            for _ in 0..rounds {
                to.write(&byte)?;
                if back.read(&mut byte)? != 1 {
                    return Err(Errno::PIPE);
                }
            }
            let nanos = monotonic() - start;
            drop(to);
            process::wait(Which::One(child), true)?;
            Ok(nanos)
        }
    }
}

//! Touches memory page by page: first touch is a page fault, and behind the virtual machine's wall possibly two.

use freestanding::sys::memory::Array;
use freestanding::sys::signal::{self, Set, Signal};
use freestanding::sys::time::{Duration, monotonic};
use freestanding::text::parse_number;
use freestanding::{Args, Text};

use crate::output::{complain, failed, millis, ratio, say};

const PAGE: usize = 4096;
const MIB: u64 = 16;

/// Runs and reports; then holds the memory for so many seconds, for measuring from outside.
pub fn run(args: Args) -> u8 {
    let number =
        |index: usize, default: u64| args.get(index).map_or(Some(default), |t| parse_number(t.to_bytes()));
    let (Some(mib), Some(seconds)) = (number(1, MIB), number(2, 0)) else {
        return complain("memory", b"MIB and SECONDS", "must be numbers", 2);
    };
    let bytes = usize::try_from(mib.saturating_mul(1 << 20)).unwrap_or(usize::MAX);
    let mut memory = match Array::<u8>::new(bytes) {
        Ok(memory) => memory,
        Err(errno) => return failed("memory", b"mmap", errno),
    };
    let start = monotonic();
    for page in memory.chunks_mut(PAGE) {
        if let Some(byte) = page.first_mut() {
            *byte = 1;
        }
    }
    let nanos = monotonic() - start;
    let sum: u64 = memory.iter().step_by(PAGE).map(|&byte| u64::from(byte)).sum();
    let mut line = Text::<128>::new();
    line.text("memory: touched ").number(mib).text(" MiB in ");
    millis(&mut line, nanos);
    line.text(", ");
    ratio(&mut line, nanos, sum);
    line.text(" ns a page\n");
    let code = say(&[line.bytes()]);
    if seconds > 0 {
        let ends = Set::of(&[Signal::TERM, Signal::INT]);
        let _ = signal::set_blocked(ends);
        let time = Duration::from_millis(seconds.saturating_mul(1000));
        if let Ok(Some(signal)) = signal::wait_for(ends, Some(time)) {
            return 128 + signal.number() as u8;
        }
    }
    code
}

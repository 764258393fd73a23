//! A fixed amount of arithmetic. Pure user-mode instructions: a wall that costs anything here costs it for everything.

use core::hint::black_box;

use freestanding::sys::time::monotonic;
use freestanding::text::parse_number;
use freestanding::{Args, Text};

use crate::output::{complain, millis, ratio, say};

/// Rounds, in millions, if not told.
const MILLIONS: u64 = 50;

/// Runs and reports.
pub fn run(args: Args) -> u8 {
    let millions = args.get(1).map_or(Some(MILLIONS), |text| parse_number(text.to_bytes()));
    let Some(rounds) = millions.and_then(|millions| millions.checked_mul(1_000_000)) else {
        return complain("cpu", b"MILLIONS", "must be a number", 2);
    };
    let start = monotonic();
    let sum = black_box(work(black_box(rounds)));
    let nanos = monotonic() - start;
    let mut line = Text::<128>::new();
    line.text("cpu: ").number(rounds / 1_000_000).text(" M rounds in ");
    millis(&mut line, nanos);
    line.text(", ");
    ratio(&mut line, nanos, rounds);
    line.text(" ns a round, result ").number(sum).text("\n");
    say(&[line.bytes()])
}

/// xorshift64 (Marsaglia 2003): each round depends on the one before, so no compiler or processor runs them at once.
pub fn work(rounds: u64) -> u64 {
    let mut x = 0x2545_f491_4f6c_dd1d;
    for _ in 0..rounds {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    x
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_work_is_the_same_each_time() {
        assert_eq!(super::work(1000), super::work(1000));
        assert_ne!(super::work(1000), super::work(1001));
    }
}

//! Printing: a line is one write(2), so that lines of several processes do not mix.

use freestanding::{Errno, Fd, Text};

/// Writes the parts to standard output as one; the exit code for it: 0, or 1 if nobody takes it.
pub fn say(parts: &[&[u8]]) -> u8 {
    write(Fd::OUTPUT, parts)
}

/// Writes `program: object: message` to standard error and gives back the exit code.
pub fn complain(program: &str, object: &[u8], message: &str, code: u8) -> u8 {
    write(Fd::ERROR, &[program.as_bytes(), b": ", object, b": ", message.as_bytes(), b"\n"]);
    code
}

/// [`complain`] with the kernel's reason.
pub fn failed(program: &str, object: &[u8], errno: Errno) -> u8 {
    let mut text = Text::<64>::new();
    if errno.message().is_empty() {
        text.text("errno ").number(u64::from(errno.0));
    } else {
        text.text(errno.message());
    }
    write(Fd::ERROR, &[program.as_bytes(), b": ", object, b": ", text.bytes(), b"\n"]);
    1
}

fn write(to: Fd, parts: &[&[u8]]) -> u8 {
    let mut line = Text::<1024>::new();
    let whole = parts.iter().map(|part| part.len()).sum::<usize>() <= 1024;
    for part in parts {
        if whole {
            line.text(part);
        } else if to.write_all(part).is_err() {
            return 1;
        }
    }
    u8::from(to.write_all(line.bytes()).is_err())
}

/// Appends nanoseconds divided by a count, with one decimal.
pub fn ratio<const N: usize>(line: &mut Text<N>, nanos: u64, count: u64) {
    let tenths = (u128::from(nanos) * 10 / u128::from(count.max(1))) as u64;
    line.number(tenths / 10).text(".").number(tenths % 10);
}

/// Appends nanoseconds as milliseconds, with three decimals.
pub fn millis<const N: usize>(line: &mut Text<N>, nanos: u64) {
    line.number(nanos / 1_000_000).text(".").zeros(nanos / 1000 % 1000, 3).text(" ms");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_down() {
        let mut line = Text::<64>::new();
        ratio(&mut line, 1234, 100);
        line.text(" ");
        millis(&mut line, 1_005_999);
        assert_eq!(line.bytes(), b"12.3 1.005 ms");
    }
}

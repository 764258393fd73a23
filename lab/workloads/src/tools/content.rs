//! cat, head, wc: tools that read files, or standard input where none is named.

use core::ffi::CStr;

use freestanding::sys::file::{self, flags};
use freestanding::text::parse_number;
use freestanding::{Args, Errno, Fd, Text, sys};

use crate::output::{complain, failed, say};

/// Calls `work` for each file named, or for standard input; the exit code is 1 if one failed.
fn each(program: &str, args: Args, mut work: impl FnMut(&CStr, Fd) -> sys::Result<()>) -> u8 {
    let mut code = 0;
    if args.is_empty()
        && let Err(errno) = work(c"", Fd::INPUT)
    {
        code = failed(program, b"standard input", errno);
    }
    for path in args.iter() {
        let result = match path.to_bytes() {
            b"-" => work(path, Fd::INPUT),
            _ => file::open(path, flags::READ, 0).and_then(|file| work(path, *file)),
        };
        if let Err(errno) = result {
            code = failed(program, path.to_bytes(), errno);
        }
    }
    code
}

/// Reads to the end, piece by piece; `take` says whether to go on.
fn pieces(from: Fd, mut take: impl FnMut(&[u8]) -> sys::Result<bool>) -> sys::Result<()> {
    let mut buffer = [0; 8192];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                if !take(buffer.get(..count).unwrap_or(&[]))? {
                    return Ok(());
                }
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Copies files to standard output.
pub fn cat(args: Args) -> u8 {
    each("cat", args.skip(1), |_, from| pieces(from, |piece| Fd::OUTPUT.write_all(piece).map(|()| true)))
}

/// Prints the first lines.
pub fn head(args: Args) -> u8 {
    let (lines, files) = match args.get(1).map(CStr::to_bytes) {
        Some(b"-n") => (args.get(2).and_then(|text| parse_number(text.to_bytes())), args.skip(3)),
        Some([b'-', number @ ..]) if !number.is_empty() => (parse_number(number), args.skip(2)),
        _ => (Some(10), args.skip(1)),
    };
    let Some(lines) = lines else { return complain("head", b"-n", "wants a number", 2) };
    each("head", files, |_, from| {
        let mut left = lines;
        if left == 0 {
            return Ok(());
        }
        pieces(from, |piece| {
            let mut end = piece.len();
            for (index, _) in piece.iter().enumerate().filter(|&(_, &byte)| byte == b'\n') {
                left -= 1;
                if left == 0 {
                    end = index + 1;
                    break;
                }
            }
            Fd::OUTPUT.write_all(piece.get(..end).unwrap_or(piece))?;
            Ok(left > 0)
        })
    })
}

/// What wc counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    lines: u64,
    words: u64,
    bytes: u64,
    in_word: bool,
}

impl Counts {
    fn take(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        for byte in piece {
            self.lines += u64::from(*byte == b'\n');
            let space = byte.is_ascii_whitespace();
            self.words += u64::from(!space && !self.in_word);
            self.in_word = !space;
        }
    }
}

/// Counts lines, words and bytes.
pub fn wc(args: Args) -> u8 {
    let option = args.get(1).map(CStr::to_bytes).filter(|text| matches!(*text, b"-l" | b"-w" | b"-c"));
    let files = args.skip(if option.is_some() { 2 } else { 1 });
    each("wc", files, |path, from| {
        let mut counts = Counts::default();
        pieces(from, |piece| {
            counts.take(piece);
            Ok(true)
        })?;
        let mut line = Text::<4200>::new();
        match option {
            Some(b"-l") => line.number(counts.lines),
            Some(b"-w") => line.number(counts.words),
            Some(_) => line.number(counts.bytes),
            None => line.padded(counts.lines, 7).padded(counts.words, 8).padded(counts.bytes, 8),
        };
        if !path.is_empty() {
            line.text(" ").text(path.to_bytes());
        }
        say(&[line.text("\n").bytes()]);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_across_pieces() {
        let mut counts = Counts::default();
        for piece in [&b"one tw"[..], b"o  three\n", b"\nfour"] {
            counts.take(piece);
        }
        assert_eq!((counts.lines, counts.words, counts.bytes), (2, 4, 20));
    }
}

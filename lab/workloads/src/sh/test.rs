//! `test` and `[`: test(1), the expressions that scripts use most.

use core::ffi::CStr;

use freestanding::Args;
use freestanding::sys::file;

use crate::output::complain;

/// Longest list of words of an expression.
const WORDS: usize = 16;

/// Ends with 0 if the expression is true, 1 if not, 2 if it is none.
pub fn run(args: Args) -> u8 {
    let mut words = [&b""[..]; WORDS];
    let count = args.len().saturating_sub(1);
    for (slot, word) in words.iter_mut().zip(args.iter().skip(1)) {
        *slot = word.to_bytes();
    }
    let mut words = words.get(..count).unwrap_or(&[]);
    if args.get(0).is_some_and(|name| name.to_bytes().ends_with(b"[")) {
        match words.split_last() {
            Some((&b"]", rest)) => words = rest,
            _ => return complain("[", b"]", "is missing at the end", 2),
        }
    }
    match evaluate(words) {
        Some(result) => u8::from(!result),
        None => complain("test", words.first().unwrap_or(&&b""[..]), "no expression that it knows", 2),
    }
}

fn evaluate(words: &[&[u8]]) -> Option<bool> {
    Some(match words {
        [] => false,
        [text] | [b"-n", text] => !text.is_empty(),
        [b"!", rest @ ..] => !evaluate(rest)?,
        [b"-z", text] => text.is_empty(),
        [operator @ (b"-e" | b"-f" | b"-d" | b"-x"), path] => file_is(operator, path)?,
        [left, b"=" | b"==", right] => left == right,
        [left, b"!=", right] => left != right,
        [left, operator, right] => {
            let (left, right) = (number(left)?, number(right)?);
            match *operator {
                b"-eq" => left == right,
                b"-ne" => left != right,
                b"-lt" => left < right,
                b"-le" => left <= right,
                b"-gt" => left > right,
                b"-ge" => left >= right,
                _ => return None,
            }
        }
        _ => return None,
    })
}

fn number(text: &[u8]) -> Option<i64> {
    let (sign, digits) = text.strip_prefix(b"-").map_or((1, text), |digits| (-1, digits));
    freestanding::text::parse_number(digits)
        .and_then(|number| i64::try_from(number).ok())
        .map(|number| sign * number)
}

fn file_is(operator: &[u8], path: &[u8]) -> Option<bool> {
    let mut text = freestanding::Text::<4096>::new();
    let path: &CStr = text.text(path).c_str()?;
    let status = file::status(path, true);
    Some(match operator {
        b"-d" => status.is_ok_and(|status| status.is_directory()),
        b"-f" => status.is_ok_and(|status| status.mode >> 12 == 8),
        b"-x" => file::may_execute(path).is_ok(),
        _ => status.is_ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(words: &str) -> Option<bool> {
        let words: Vec<&[u8]> = words.split(' ').filter(|word| !word.is_empty()).map(str::as_bytes).collect();
        evaluate(&words)
    }

    #[test]
    fn texts_and_numbers_are_compared() {
        for (words, expected) in [
            ("", false),
            ("x", true),
            ("-n x", true),
            ("-z x", false),
            ("a = a", true),
            ("a != a", false),
            ("10 -gt 9", true),
            ("-1 -lt 0", true),
            ("! a = b", true),
        ] {
            assert_eq!(value(words), Some(expected), "{words}");
        }
        assert_eq!(value("a -gt b"), None);
        assert_eq!(value("a b c d e"), None);
    }

    #[test]
    fn files_are_looked_at() {
        assert_eq!(value("-d /proc"), Some(true));
        assert_eq!(value("-f /proc"), Some(false));
        assert_eq!(value("-e /nowhere"), Some(false));
        assert_eq!(value("-f /proc/self/status"), Some(true));
    }
}

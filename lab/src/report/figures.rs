//! How figures are written: three significant digits, a unit that fits, intervals in the unit of their median.

use crate::measure::bench::record;
use crate::measure::stats::{Interval, Ratio, Stats};

/// A unit of time: how many of it make a millisecond, and its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unit(f64, &'static str);

impl Unit {
    /// The unit in which this many milliseconds are best read.
    pub fn of(milliseconds: f64) -> Self {
        match milliseconds.abs() {
            value if value >= 1000.0 => Unit(0.001, "s"),
            value if value >= 1.0 => Unit(1.0, "ms"),
            _ => Unit(1000.0, "µs"),
        }
    }

    fn digits(self, milliseconds: f64) -> String {
        digits(milliseconds * self.0)
    }
}

/// Milliseconds with their unit: `9.12 ms`, `5.83 s`, `410 µs`.
pub fn time(milliseconds: f64) -> String {
    let unit = Unit::of(milliseconds);
    format!("{} {}", unit.digits(milliseconds), unit.1)
}

/// A median with its 95 % interval: `9.12 ms [8.90, 9.41]`.
pub fn median(stats: &Stats) -> String {
    let unit = Unit::of(stats.median);
    let interval = stats.interval.map_or_else(String::new, |Interval { low, high }| {
        format!(" [{}, {}]", unit.digits(low), unit.digits(high))
    });
    format!("{}{interval}", time(stats.median))
}

/// A ratio with its 95 % interval: `21.3× [20.1, 22.0]`.
pub fn ratio(ratio: &Ratio) -> String {
    let interval = ratio
        .interval
        .map_or_else(String::new, |Interval { low, high }| format!(" [{}, {}]", digits(low), digits(high)));
    format!("{}×{interval}", digits(ratio.value))
}

/// Bytes: `412 KiB`, `1.31 MiB`; negative ones keep their sign.
pub fn bytes(bytes: i64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value.abs() < 1000.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{} {unit}", digits(value)) }
}

/// A value in its unit, as it is best read.
pub fn quantity(value: f64, unit: record::Unit) -> String {
    match unit {
        record::Unit::Milliseconds => time(value),
        // Less than a microsecond has no finer unit in `time`.
        record::Unit::Nanoseconds if value.abs() < 1000.0 => format!("{} ns", digits(value)),
        record::Unit::Nanoseconds => time(value / 1e6),
        record::Unit::Bytes => bytes(value as i64),
        record::Unit::MibPerSecond => format!("{} MiB/s", digits(value)),
        record::Unit::PerSecond => format!("{} / s", digits(value)),
        record::Unit::Count if value.fract() == 0.0 => format!("{value:.0}"),
        record::Unit::Count => digits(value),
        record::Unit::Times => format!("{}×", digits(value)),
    }
}

/// Values as digits in the unit in which another is best read: the ends of its interval.
pub fn quantities<const N: usize>(values: [f64; N], of: f64, unit: record::Unit) -> [String; N] {
    let of_time = |factor: f64, milliseconds: f64| {
        let unit = Unit::of(milliseconds);
        values.map(|value| unit.digits(value * factor))
    };
    match unit {
        record::Unit::Milliseconds => of_time(1.0, of),
        record::Unit::Nanoseconds if of.abs() < 1000.0 => values.map(digits),
        record::Unit::Nanoseconds => of_time(1e-6, of / 1e6),
        // Binary sizes are read with their unit.
        record::Unit::Bytes => values.map(|value| bytes(value as i64)),
        _ => values.map(digits),
    }
}

/// Three significant digits, but all digits of the whole part.
pub fn digits(value: f64) -> String {
    let places = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.places$}")
}

/// Text from an image or a file, made harmless for a terminal: no control characters, no endless lines.
pub fn plain(text: &str) -> String {
    const MOST: usize = 300;
    let mut plain: String = text
        .chars()
        .take(MOST)
        // U+202A…U+202E and U+2066…U+2069 turn the direction of writing, and so can make text lie.
        .map(|c| {
            if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    if text.chars().nth(MOST).is_some() {
        plain.push('…');
    }
    plain
}

/// A command line as a shell reads it.
pub fn command_line(words: &[String]) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
    let quoted = words.iter().map(|word| {
        if !word.is_empty() && word.chars().all(safe) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Bytes as docker writes them: powers of 1000, so many digits, no zeros behind the point (go-units,
/// `HumanSizeWithPrecision`).
pub fn docker_size(size: u64, digits: usize) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = size as f64;
    let mut unit = 0;
    // What would be rounded to 1000 is 1 of the next unit.
    let half = 0.5 / 10f64.powi(digits.saturating_sub(3) as i32);
    while value >= 1000.0 - half && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let whole = 1 + usize::from(value >= 9.995) + usize::from(value >= 99.95);
    let text = format!("{value:.*}", if unit == 0 { 0 } else { digits.saturating_sub(whole) });
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_s_sizes_have_no_zeros_behind_the_point() {
        for (size, digits, text) in [
            (0, 3, "0B"),
            (999, 3, "999B"),
            (1000, 3, "1kB"),
            (4_261_550, 3, "4.26MB"),
            (4_261_550, 4, "4.262MB"),
            (1_500_000, 4, "1.5MB"),
            (45_300_000, 3, "45.3MB"),
            (999_700, 3, "1MB"),
        ] {
            assert_eq!(docker_size(size, digits), text);
        }
    }

    #[test]
    fn times_have_three_digits_and_a_unit_that_fits() {
        let written = [0.0412, 0.9999, 9.123, 99.96, 431.4, 5830.0].map(time);
        assert_eq!(written, ["41.2 µs", "1000 µs", "9.12 ms", "100 ms", "431 ms", "5.83 s"]);
    }

    #[test]
    fn an_interval_is_in_the_unit_of_its_median() {
        let interval = Some(Interval { low: 940.0, high: 1210.0 });
        let stats = Stats { n: 9, median: 1000.0, interval, p90: 0.0, p99: 0.0, min: 0.0, max: 0.0 };
        assert_eq!(median(&stats), "1.00 s [0.94, 1.21]");
        assert_eq!(median(&Stats { interval: None, ..stats }), "1.00 s");
    }

    #[test]
    fn bytes_are_binary_and_may_be_negative() {
        assert_eq!(
            [0, 999, 421_888, -1_373_634, 1 << 40].map(bytes),
            ["0 B", "999 B", "412 KiB", "-1.31 MiB", "1.00 TiB"]
        );
    }

    #[test]
    fn text_from_elsewhere_cannot_drive_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\nc\u{202e}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(plain(&"x".repeat(400)).chars().count(), 301);
    }

    #[test]
    fn a_command_line_can_be_pasted_into_a_shell() {
        let words = ["sh", "-c", "echo 'a b'", ""].map(String::from);
        assert_eq!(command_line(&words), r"sh -c 'echo '\''a b'\''' ''");
    }
}

//! Moments as docker's users write them.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::Error;

/// RFC 3339, a date or a date and a time of it (UTC), seconds since 1970 with a fraction or without, or how long ago, such
/// as `10m` or `1h30m`.
///
/// # Errors
/// What is none of these.
pub fn parse(text: &str, now: Timestamp) -> Result<Timestamp, Error> {
    let wrong = || {
        Error::bad(format!(
            "invalid time '{text}': RFC 3339, seconds since 1970, or how long ago (10m, 1h30m)"
        ))
    };
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    if let Some(time) = seconds(text) {
        return Ok(time);
    }
    if let Ok(ago) = text.parse::<SignedDuration>() {
        return now.checked_sub(ago).map_err(|_| wrong());
    }
    let date: DateTime = text.parse().map_err(|_| wrong())?;
    TimeZone::UTC.to_timestamp(date).map_err(|_| wrong())
}

fn seconds(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanos: i32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Timestamp::new(seconds.parse().ok()?, nanos).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates_seconds_or_how_long_ago() {
        let now: Timestamp = "2024-03-01T12:00:00Z".parse().unwrap();
        for (text, moment) in [
            ("1.5", "1970-01-01T00:00:01.5Z"),
            ("10", "1970-01-01T00:00:10Z"),
            ("1970-01-01T00:00:10Z", "1970-01-01T00:00:10Z"),
            ("2024-02-29", "2024-02-29T00:00:00Z"),
            ("2024-02-29T10:00", "2024-02-29T10:00:00Z"),
            ("10m", "2024-03-01T11:50:00Z"),
            ("1h30m", "2024-03-01T10:30:00Z"),
        ] {
            assert_eq!(parse(text, now).unwrap(), moment.parse().unwrap(), "{text}");
        }
        for text in ["", "yesterday", "-", "1x"] {
            assert!(parse(text, now).is_err(), "{text}");
        }
    }
}

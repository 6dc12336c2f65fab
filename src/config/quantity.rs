//! Numbers, durations and sizes within a range. Each reader returns what would be valid if the text
//! is not.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

use super::tree::{Node, Value};

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
pub(super) const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
pub(super) const MIB: u64 = 1 << 20;
pub(super) const TIB: u64 = 1 << 40;

/// A string like `5s`, `1h30m` or `60d`, a day being 24 hours.
pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl Fn(&Node) -> Result<Duration, String> {
    move |node| {
        let expected = || {
            let (from, to) = (compact(*range.start()), compact(*range.end()));
            format!("expected a duration from {from} to {to}, such as \"1h30m\"")
        };
        let duration = node.text().and_then(parse_duration).ok_or_else(expected)?;
        range
            .contains(&duration)
            .then_some(duration)
            .ok_or_else(expected)
    }
}

/// Reads a duration as the configuration writes it.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    let exact = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(exact).ok()
}

/// The duration, a whole number of milliseconds, in the largest unit that divides it.
pub fn compact(duration: Duration) -> String {
    let units = [(DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (SECOND, "s")];
    let millis = duration.as_millis();
    for (unit, name) in units {
        if millis > 0 && millis.is_multiple_of(unit.as_millis()) {
            return format!("{}{name}", millis / unit.as_millis());
        }
    }
    match millis {
        0 => "0s".to_owned(),
        _ => format!("{millis}ms"),
    }
}

/// The units of a size, largest first.
const SIZE_UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("", 1),
];

/// Bytes: a number, or a string like `64KiB`, `1MiB`, `2GiB`.
pub(super) fn size(range: RangeInclusive<u64>) -> impl Fn(&Node) -> Result<u64, String> {
    move |node| {
        let size = match &node.value {
            Value::Integer(bytes) => u64::try_from(*bytes).ok(),
            _ => node.text().and_then(parse_size),
        };
        size.filter(|size| range.contains(size)).ok_or_else(|| {
            let (from, to) = (compact_size(*range.start()), compact_size(*range.end()));
            format!("expected a size from {from} to {to}, such as \"64KiB\" or 4096")
        })
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let name = text[digits.len()..].trim_start();
    let (_, unit) = SIZE_UNITS.iter().find(|(unit, _)| *unit == name)?;
    digits.parse::<u64>().ok()?.checked_mul(*unit)
}

fn compact_size(bytes: u64) -> String {
    let fits = |unit: u64| bytes > 0 && bytes.is_multiple_of(unit);
    match SIZE_UNITS.iter().find(|(_, unit)| fits(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// A whole number.
pub(super) fn integer<T>(range: RangeInclusive<T>) -> impl Fn(&Node) -> Result<T, String>
where
    T: TryFrom<i128> + PartialOrd + Display,
{
    move |node| {
        let number = match node.value {
            Value::Integer(number) => T::try_from(number).ok(),
            _ => None,
        };
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                let (from, to) = (range.start(), range.end());
                format!("expected a whole number from {from} to {to}")
            })
    }
}

/// A number between 0 and 1, both excluded.
pub(super) fn share(node: &Node) -> Result<f64, String> {
    match node.value {
        Value::Float(share) if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err("expected a number above 0 and below 1, such as 0.8".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_24_hours() {
        assert_eq!(parse_duration("60d"), Some(60 * DAY));
        assert_eq!(parse_duration("1h30m"), Some(90 * MINUTE));
        assert_eq!(parse_duration("1d 2h"), Some(26 * HOUR));
        assert_eq!(parse_duration("500ms"), Some(500 * MILLISECOND));
        assert_eq!(parse_duration("0s"), Some(Duration::ZERO));
    }

    #[test]
    fn what_has_no_exact_length_is_no_duration() {
        for text in [
            "",
            "5",
            "s",
            "-5s",
            "5s ago",
            "1month",
            "1y",
            "1e3s",
            "five minutes",
        ] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(parse_size("1MiB"), Some(1 << 20));
        assert_eq!(parse_size("256 MiB"), Some(256 << 20));
        assert_eq!(parse_size("17"), Some(17));
        for text in [
            "",
            "MiB",
            "1MB",
            "1mib",
            "-1KiB",
            "1.5MiB",
            "18446744073709551615KiB",
        ] {
            assert_eq!(parse_size(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_compact_duration_reads_as_itself() {
        for duration in [Duration::ZERO, MILLISECOND, 90 * SECOND, HOUR, YEAR] {
            assert_eq!(parse_duration(&compact(duration)), Some(duration));
        }
    }
}

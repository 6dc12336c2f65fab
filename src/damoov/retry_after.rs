//! The field Retry-After (RFC 9110 §10.2.3): seconds, or a date in any of the three forms of §5.6.7.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// The longest time that is believed: a block is durable and never brought forward, so that a
/// misprint must not end logins for years.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The shortest: an answer that says no does not mean "at once".
const SHORTEST: Duration = Duration::from_secs(1);

/// How long an answer asks to wait: from a second to a day. `None` if it does not say, or nothing
/// that can be understood. A date counts from the answer's own Date, which the same clock wrote;
/// without one it counts from this machine's clock.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    read(headers, SystemTime::now())
}

/// When an answer was sent, as its sender's clock says; `None` if it does not say.
pub fn sent_at(headers: &HeaderMap) -> Option<SystemTime> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    http_date(date.trim(), SystemTime::now()).map(SystemTime::from)
}

fn read(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let values = headers.get_all(header::RETRY_AFTER).iter();
    let waits = values.filter_map(|value| wait(value.to_str().ok()?.trim(), headers, now));
    waits.max()
}

fn wait(value: &str, headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let wait = match !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that no number holds are more than a day, too.
        true => Duration::from_secs(value.parse().unwrap_or(u64::MAX)),
        false => {
            let sent = headers
                .get(header::DATE)
                .and_then(|date| date.to_str().ok());
            let sent = sent.and_then(|date| http_date(date.trim(), now));
            let from = match sent {
                Some(sent) => sent,
                None => Timestamp::try_from(now).ok()?,
            };
            let left = http_date(value, now)?.duration_since(from);
            Duration::try_from(left.max(SignedDuration::ZERO)).ok()?
        }
    };
    Some(wait.clamp(SHORTEST, LONGEST))
}

/// The moment that an HTTP-date means. Its day of the week is not compared with it.
fn http_date(text: &str, now: SystemTime) -> Option<Timestamp> {
    let (day_name, rest) = text.split_once(' ')?;
    let fields: Vec<&str> = rest.split(' ').filter(|field| !field.is_empty()).collect();
    let (date, time) = match (day_name.strip_suffix(','), fields.as_slice()) {
        // Sun, 06 Nov 1994 08:49:37 GMT
        (Some(_), [day, month, year, time, "GMT"]) => (date(year, month, day)?, time),
        // Sunday, 06-Nov-94 08:49:37 GMT
        (Some(_), [day_month_year, time, "GMT"]) => {
            let mut parts = day_month_year.split('-');
            let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
            let year = century(number(year, 2)?, now)?;
            (date(&year.to_string(), month, day)?, time)
        }
        // Sun Nov  6 08:49:37 1994
        (None, [month, day, time, year]) => (date(year, month, day)?, time),
        _ => return None,
    };
    let moment = DateTime::from_parts(date, clock_time(time)?).to_zoned(TimeZone::UTC);
    // Only the last two days of the year 9999 are none.
    Some(moment.map_or(Timestamp::MAX, |moment| moment.timestamp()))
}

fn date(year: &str, month: &str, day: &str) -> Option<Date> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let (month, day) = (
        i8::try_from(month).ok()?,
        i8::try_from(number(day, 2)?).ok()?,
    );
    Date::new(number(year, 4)?, month, day).ok()
}

fn clock_time(text: &str) -> Option<Time> {
    let mut parts = text.split(':').map(|part| number(part, 2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || second > 60 {
        return None;
    }
    let part = |number: i16| i8::try_from(number).ok();
    // A leap second is the one before it.
    Time::new(part(hour)?, part(minute)?, part(second.min(59))?, 0).ok()
}

/// A number of at most this many digits.
fn number(text: &str, digits: usize) -> Option<i16> {
    let fits = (1..=digits).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| fits)
}

/// The year that two digits mean: one that seems more than 50 years ahead is the last one with these
/// digits (RFC 9110 §5.6.7).
fn century(year: i16, now: SystemTime) -> Option<i16> {
    let now = Timestamp::try_from(now).ok()?;
    let this = now.to_zoned(TimeZone::UTC).year();
    let of_this = this - this % 100 + year;
    Some(match of_this - this {
        51.. => of_this - 100,
        ..-49 => of_this + 100,
        _ => of_this,
    })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const THEN: u64 = 784_111_777;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    /// What these fields say this many seconds after [`THEN`].
    fn seconds(fields: &[(&'static str, &str)], after: i64) -> Option<u64> {
        let now = UNIX_EPOCH + Duration::from_secs(THEN.checked_add_signed(after).unwrap());
        read(&headers(fields), now).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_are_believed_from_one_to_a_day() {
        for (value, expected) in [
            ("1", 1),
            (" 3600 ", 3600),
            ("0", 1),
            ("00090", 90),
            ("86401", 86_400),
            ("1000000000000000", 86_400),
            ("99999999999999999999999999999", 86_400),
        ] {
            assert_eq!(
                seconds(&[("retry-after", value)], 0),
                Some(expected),
                "{value}"
            );
        }
    }

    #[test]
    fn a_date_in_each_of_the_three_forms_is_a_time_from_now() {
        for date in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            for (after, expected) in [(-20, 20), (-10_800, 10_800), (-90_000, 86_400), (5, 1)] {
                let wait = seconds(&[("retry-after", date)], after);
                assert_eq!(wait, Some(expected), "{date} {after}");
            }
        }
    }

    #[test]
    fn the_end_of_the_last_year_with_four_digits_is_a_date() {
        let end = ("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(seconds(&[end], 0), Some(86_400));
    }

    #[test]
    fn a_date_counts_from_the_answers_own_date() {
        let own = |date| {
            let until = ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT");
            seconds(&[until, ("date", date)], 1_000_000)
        };
        assert_eq!(own("Sun, 06 Nov 1994 08:48:37 GMT"), Some(60));
        assert_eq!(own("Sun Nov  6 05:49:37 1994"), Some(10_800));
        assert_eq!(own("yesterday"), Some(1), "as without one");
    }

    #[test]
    fn of_several_the_longest_counts() {
        let several = [
            ("retry-after", "7"),
            ("retry-after", "soon"),
            ("retry-after", "90"),
        ];
        assert_eq!(seconds(&several, 0), Some(90));
    }

    #[test]
    fn what_cannot_be_understood_says_nothing() {
        assert_eq!(seconds(&[], 0), None);
        for value in [
            "",
            "soon",
            "-1",
            "+5",
            "1.5",
            "5s",
            "1e3",
            "0x10",
            "120, 130",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 19945 08:49:37 GMT",
            "1994-11-06T08:49:37Z",
            "06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-1994 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994 GMT",
        ] {
            assert_eq!(seconds(&[("retry-after", value)], 0), None, "{value}");
        }
    }

    #[test]
    fn two_digits_of_a_year_mean_the_nearest_one() {
        // On 6 November 1994.
        let far = seconds(&[("retry-after", "Friday, 06-Nov-20 08:49:37 GMT")], 0);
        assert_eq!(far, Some(86_400), "2020");
        let past = seconds(&[("retry-after", "Friday, 06-Nov-70 08:49:37 GMT")], 0);
        assert_eq!(past, Some(1), "1970");
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_or_exceed_its_bounds(value in "[ -~]{0,40}", date in "[ -~]{0,40}") {
            let said = seconds(&[("retry-after", &value), ("date", &date)], 0);
            prop_assert!(said.is_none_or(|seconds| (1..=86_400).contains(&seconds)));
        }
    }
}

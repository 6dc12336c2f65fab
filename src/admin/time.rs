//! Times as the API tells them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since the epoch; zero before it.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A time in seconds since the epoch, as RFC 3339 writes it.
pub(super) fn at(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
    at.to_string()
}

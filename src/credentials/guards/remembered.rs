//! Rejected logins that are remembered, so that the same login is not tried again at once.

use std::time::Duration;

use super::breaker::Fingerprint;
use crate::clock::Timestamp;
use crate::store::{Notes, Rejected};

/// Whether a note that holds for `longest` holds still, with `left` to go. A note with far more to go
/// was made while the wall clock was ahead, and would outlive its reason by as much.
pub(crate) fn holds(left: Duration, longest: Duration) -> bool {
    !left.is_zero() && left <= longest.saturating_mul(2)
}

/// How long the login that was rejected with the key `with` is not tried again; `None` if it may be. With
/// another key it is tried at once.
pub(crate) fn rejected_for(
    notes: &Notes,
    with: Fingerprint,
    now: Timestamp,
    remember_rejected: Duration,
) -> Option<Duration> {
    let Rejected { until, .. } = notes.rejected.filter(|rejected| rejected.with == with)?;
    let left = until.since(now);
    holds(left, remember_rejected).then_some(left)
}

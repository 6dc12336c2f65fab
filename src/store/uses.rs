//! When users were last named by a caller, to the day: what decides which pairs are forgotten because nobody
//! needs them any more. A part of the contract of a store.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Error, StoreClock};
use crate::clock::Timestamp;
use crate::principal::Principal;

/// A day of the store's clock, counted from the Unix epoch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Day(pub i32);

/// The milliseconds of a day.
const DAY: i64 = 86_400_000;

impl Day {
    /// The day that `at` lies in.
    pub fn of(at: Timestamp) -> Day {
        Day(i32::try_from(at.as_millis().div_euclid(DAY)).unwrap_or(i32::MAX))
    }

    /// The day this many days before this one.
    pub fn minus(self, days: u32) -> Day {
        Day(self.0.saturating_sub_unsigned(days))
    }

    /// The day after this one.
    pub fn next(self) -> Day {
        Day(self.0.saturating_add(1))
    }
}

/// Remembers the day on which each user that holds a pair was last named. A [forget](super::Store::forget)
/// ends that, too.
///
/// What [`super::Store`] says of all its methods holds here, too.
#[async_trait]
pub trait Uses: StoreClock {
    /// Remembers that each of these users was named on that day. A user of whom this day, or a later one, is
    /// known already is not written again; one who holds no pair is left out. Durable. Returns how many were
    /// written.
    ///
    /// Errors: [`Error::Unwritable`].
    async fn mark_used(&self, named: Vec<(Principal, Day)>) -> Result<usize, Error>;

    /// Looks at up to `limit` users after the place `after`, and lets those of whom no day is known, or one
    /// that is yet to come, count as named on `today`. Durable. Returns the place to go on after; `None` at
    /// the end.
    ///
    /// Errors: [`Error::Unwritable`].
    async fn mark_unknown(
        &self,
        today: Day,
        after: Option<Principal>,
        limit: usize,
    ) -> Result<Option<Principal>, Error>;

    /// Returns up to `limit` users whose last day lies before `before`, those first that were named longest
    /// ago.
    ///
    /// Errors: [`Error::Unreadable`].
    async fn unused(&self, before: Day, limit: usize) -> Result<Vec<Principal>, Error>;

    /// [Forgets](super::Store::forget) `user` if its last day lies before `before` at that moment: a mark that
    /// came first keeps the pair. Durable. Returns whether there was something to forget.
    ///
    /// Errors: [`Error::Unwritable`].
    async fn forget_unused(&self, user: &Principal, before: Day) -> Result<bool, Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_of_the_stores_clock() {
        for (millis, day) in [
            (0, 0),
            (DAY - 1, 0),
            (DAY, 1),
            (-1, -1),
            (i64::MAX, i32::MAX),
        ] {
            assert_eq!(Day::of(Timestamp::from_millis(millis)), Day(day));
        }
        assert_eq!(Day(180).minus(180), Day(0));
        assert_eq!(Day(i32::MIN).minus(1), Day(i32::MIN));
        assert_eq!(Day(i32::MAX).next(), Day(i32::MAX));
    }
}

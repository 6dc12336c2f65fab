//! When users were last named by a caller, to the day: what decides which pairs are forgotten because nobody
//! needs them any more. A part of the contract of a store.

use async_trait::async_trait;

use super::{Error, StoreClock};
use crate::clock::Timestamp;
use crate::principal::Principal;

/// A day of the store's clock, counted from the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i32);

/// The milliseconds of a day.
const DAY: i64 = 86_400_000;

impl Day {
    /// The day that `at` lies in.
    pub fn of(at: Timestamp) -> Day {
        Day(i32::try_from(at.as_millis().div_euclid(DAY)).unwrap_or(i32::MAX))
    }

    /// The day so many days before this one.
    pub fn minus(self, days: u32) -> Day {
        Day(self.0.saturating_sub_unsigned(days))
    }
}

/// What came of looking for pairs that nobody uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unused {
    /// How many users were looked at; fewer than the limit if there are no more.
    pub looked_at: usize,
    /// Those whose pairs were forgotten.
    pub forgotten: Vec<Principal>,
}

/// Remembers the day on which each user that holds a pair was last named.
///
/// What [`super::Store`] says of all its methods holds here, too.
#[async_trait]
pub trait Uses: StoreClock {
    /// Remembers that these users were named on `day`. A user of whom this day, or a later one, is known
    /// already is not written again; one without a pair is left out. Returns how many were written.
    ///
    /// Errors: [`Error::Unwritable`].
    async fn mark_used(&self, users: Vec<Principal>, day: Day) -> Result<usize, Error>;

    /// Lets those of these users of whom no day is known count as named on `day`. Returns how many were
    /// written.
    ///
    /// Errors: [`Error::Unwritable`].
    async fn mark_unknown(&self, users: Vec<Principal>, day: Day) -> Result<usize, Error>;

    /// [Forgets](super::Store::forget) up to `limit` users whose last day lies before `before`, those first
    /// that were named longest ago.
    ///
    /// Errors: [`Error::Unwritable`].
    async fn forget_unused(&self, before: Day, limit: usize) -> Result<Unused, Error>;
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
    }
}

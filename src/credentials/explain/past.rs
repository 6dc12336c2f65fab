//! How the last renewal of a principal ended, from what the store keeps of it.

use std::time::Duration;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::store::Entry;

/// The last renewal that left a trace in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LastRenewal {
    /// How it ended.
    pub outcome: RenewalOutcome,
    /// When; `None` if the store does not keep that.
    #[serde(rename = "at_millis")]
    pub at: Option<Timestamp>,
    /// How long ago that is.
    #[serde(rename = "age_seconds", serialize_with = "super::as_seconds_or_null")]
    pub age: Option<Duration>,
}

/// How a renewal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RenewalOutcome {
    /// It brought the stored pair: by a refresh, a login, a registration or an import.
    Renewed,
    /// The answer to its refresh was lost.
    AnswerLost,
    /// Damoov rejected its RefreshToken.
    RefreshRejected,
    /// Damoov rejected its login.
    LoginRejected,
}

impl LastRenewal {
    /// `remember_rejected`: for how long a rejected login is noted.
    pub(super) fn of(
        entry: &Entry,
        now: Timestamp,
        remember_rejected: Duration,
    ) -> Option<LastRenewal> {
        let (notes, of_this) = (&entry.notes, Some(entry.generation));
        // A commit clears the notes, so that each of them is about what came after the pair; of those, what
        // stands first came last.
        let (outcome, at) = if let Some(rejected) = notes.rejected {
            let at = rejected.until.minus(remember_rejected);
            (RenewalOutcome::LoginRejected, Some(at))
        } else if notes.refresh_dead == of_this {
            (RenewalOutcome::RefreshRejected, None)
        } else if notes.answer_lost == of_this {
            (RenewalOutcome::AnswerLost, None)
        } else {
            let received = entry.record.as_ref()?.received;
            (RenewalOutcome::Renewed, Some(received))
        };
        Some(LastRenewal {
            outcome,
            at,
            age: at.map(|at| now.since(at)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Generation, KeyId, Record, Rejected, RunId};

    fn outcome(entry: &Entry) -> Option<(RenewalOutcome, Option<i64>)> {
        let now = Timestamp::from_millis(90_000);
        let last = LastRenewal::of(entry, now, Duration::from_secs(60))?;
        assert_eq!(last.age, last.at.map(|at| now.since(at)));
        Some((last.outcome, last.at.map(Timestamp::as_millis)))
    }

    #[test]
    fn the_last_thing_that_the_store_learnt_of_a_pair_is_its_last_renewal() {
        let mut entry = Entry {
            generation: Generation(2),
            ..Entry::default()
        };
        assert_eq!(outcome(&entry), None);
        entry.record = Some(Record {
            instance: None,
            known: true,
            sealed: Vec::new(),
            key: KeyId([0; 4]),
            received: Timestamp::from_millis(5_000),
            expires: Timestamp::from_millis(6_000),
            run: RunId(uuid::Uuid::nil()),
        });
        assert_eq!(
            outcome(&entry),
            Some((RenewalOutcome::Renewed, Some(5_000)))
        );
        entry.notes.answer_lost = Some(Generation(1));
        assert_eq!(
            outcome(&entry),
            Some((RenewalOutcome::Renewed, Some(5_000)))
        );
        entry.notes.answer_lost = Some(Generation(2));
        assert_eq!(outcome(&entry), Some((RenewalOutcome::AnswerLost, None)));
        entry.notes.refresh_dead = Some(Generation(2));
        assert_eq!(
            outcome(&entry),
            Some((RenewalOutcome::RefreshRejected, None))
        );
        entry.notes.rejected = Some(Rejected {
            until: Timestamp::from_millis(80_000),
            with: [0; 8],
        });
        assert_eq!(
            outcome(&entry),
            Some((RenewalOutcome::LoginRejected, Some(20_000)))
        );
    }
}

//! A pair that the store has not acknowledged, and what an entry is while the store lacks it. Pure.

use crate::principal::Principal;
use crate::store::{Entry, LeaseId, Notes, Record, Version};

/// A pair that is to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    /// Whose.
    pub(super) principal: Principal,
    /// The pair, sealed.
    pub(super) record: Record,
    /// The version that it replaces.
    pub(super) over: Version,
    /// The lease that ends once it is committed.
    pub(super) lease: Option<LeaseId>,
}

impl Pending {
    /// The entry that a commit makes of it.
    pub(super) fn entry(&self) -> Entry {
        Entry {
            generation: self.over.generation.next(),
            epoch: self.over.epoch,
            record: Some(self.record.clone()),
            notes: Notes::default(),
        }
    }
}

/// Whether the store lost `ours`, or never had it: `ours` outranks what `stands` there.
///
/// What stands with a later version was committed on top of ours, or of its like, even if the clocks of
/// two processes differ so much that it was received earlier.
pub(super) fn lacks(stands: &Entry, ours: &Entry) -> bool {
    let version = |entry: &Entry| (entry.epoch, entry.generation);
    version(stands) <= version(ours) && ours.outranks(stands)
}

/// What will stand in the place of `stands` once `ours`, which the store lacks, is restored there.
pub(super) fn overlaid(stands: &Entry, ours: &Entry) -> Entry {
    let generation = match stands.generation < ours.generation {
        true => ours.generation,
        false => stands.generation.next(),
    };
    // Those that outlive a commit; a forget clears them, too.
    let notes = match stands.epoch == ours.epoch {
        true => Notes {
            refresh_dead: None,
            answer_lost: None,
            rejected: None,
            registered_in: None,
            ..stands.notes.clone()
        },
        false => Notes::default(),
    };
    Entry {
        generation,
        notes,
        ..ours.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::store::Generation;
    use crate::store::contract::record;

    fn entry(epoch: u64, generation: u64, received: i64) -> Entry {
        Entry {
            generation: Generation(generation),
            epoch,
            record: Some(crate::store::Record {
                received: Timestamp::from_millis(received),
                ..record(1)
            }),
            notes: Notes::default(),
        }
    }

    fn tombstone(epoch: u64, generation: u64) -> Entry {
        Entry {
            record: None,
            ..entry(epoch, generation, 0)
        }
    }

    #[test]
    fn what_stands_lacks_what_is_newer_and_what_was_forgotten() {
        let ours = entry(0, 5, 1_000);
        assert!(lacks(&Entry::default(), &ours));
        assert!(lacks(&entry(0, 4, 900), &ours), "the one that it replaces");
        assert!(lacks(&entry(0, 5, 900), &ours), "another, received earlier");
        assert!(!lacks(&ours, &ours), "itself");
        assert!(!lacks(&entry(0, 5, 1_100), &ours), "received later");
        assert!(!lacks(&entry(0, 6, 1_100), &ours), "on top of it");
        assert!(!lacks(&entry(0, 6, 900), &ours), "on top, by another clock");
        assert!(!lacks(&tombstone(1, 5), &ours), "forgotten since");
        assert!(lacks(&entry(0, 5, 1_100), &tombstone(1, 5)), "a forget");
    }

    #[test]
    fn an_overlaid_entry_has_a_generation_that_no_other_pair_had() {
        let ours = entry(0, 5, 1_000);
        assert_eq!(overlaid(&entry(0, 4, 900), &ours), ours);
        let other = overlaid(&entry(0, 5, 900), &ours);
        assert_eq!(
            (other.generation, other.record),
            (Generation(6), ours.record.clone())
        );
        let went_back = overlaid(&entry(0, 2, 900), &ours);
        assert_eq!(went_back, ours);
    }

    #[test]
    fn notes_about_the_old_pair_end_and_those_about_the_user_stay() {
        let mut stands = entry(0, 4, 900);
        let displaced = Some(Timestamp::from_millis(7));
        stands.notes = Notes {
            refresh_dead: Some(Generation(4)),
            answer_lost: Some(Generation(4)),
            displaced,
            ..Notes::default()
        };
        let after = overlaid(&stands, &entry(0, 5, 1_000));
        let left = Notes {
            displaced,
            ..Notes::default()
        };
        assert_eq!(after.notes, left);
        assert_eq!(overlaid(&stands, &tombstone(1, 4)).notes, Notes::default());
    }
}

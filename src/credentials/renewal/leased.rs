//! The pair that a renewal is about.

use std::sync::Arc;

use crate::credentials::vault::hold::Hold;
use crate::store::{Entry, Generation};

/// What was in the store, and what the renewal has learnt of that pair since. The two are kept apart: what
/// is learnt is noted in the store as well, which may fail.
#[derive(Debug)]
pub(crate) struct Found {
    entry: Entry,
    learnt: Learnt,
}

/// What was found once the lease was taken, and the lease.
#[derive(Debug)]
pub(crate) struct Leased {
    found: Found,
    /// Shared with its heartbeat.
    hold: Arc<Hold>,
}

/// What a renewal has learnt of a pair.
#[derive(Debug, Default)]
struct Learnt {
    /// The answer to a refresh of it was lost: its RefreshToken may have been rotated.
    answer_lost: bool,
    /// Its RefreshToken was definitely rejected.
    refresh_dead: bool,
}

impl Found {
    /// This entry, of which nothing else is known.
    pub(crate) fn new(entry: Entry) -> Found {
        Found {
            entry,
            learnt: Learnt::default(),
        }
    }

    /// As it was in the store.
    pub(crate) fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Whether the answer to a refresh of this pair was lost, now or before.
    pub(crate) fn answer_was_lost(&self) -> bool {
        self.learnt.answer_lost || self.is_this(self.entry.notes.answer_lost)
    }

    /// Whether the RefreshToken was rejected, now or before, and no lost answer explains that.
    pub(crate) fn was_rejected_for_no_reason(&self) -> bool {
        let is_dead = self.learnt.refresh_dead || self.is_this(self.entry.notes.refresh_dead);
        is_dead && !self.answer_was_lost()
    }

    /// Whether a note is about this pair, rather than one before it.
    fn is_this(&self, noted: Option<Generation>) -> bool {
        noted == Some(self.entry.generation)
    }
}

impl Leased {
    /// `entry` was read under the lease `hold`.
    pub(crate) fn new(entry: Entry, hold: Arc<Hold>) -> Leased {
        let found = Found::new(entry);
        Leased { found, hold }
    }

    /// What is known of the pair.
    pub(crate) fn found(&self) -> &Found {
        &self.found
    }

    /// As it was in the store.
    pub(crate) fn entry(&self) -> &Entry {
        self.found.entry()
    }

    /// The lease, under which it was read.
    pub(crate) fn hold(&self) -> &Hold {
        &self.hold
    }

    /// The answer to a refresh was lost.
    pub(crate) fn learn_answer_lost(&mut self) {
        self.found.learnt.answer_lost = true;
    }

    /// Whether the store knows that.
    pub(crate) fn is_lost_answer_noted(&self) -> bool {
        self.found.is_this(self.entry().notes.answer_lost)
    }

    /// The store knows that the answer to a refresh was lost.
    pub(crate) fn note_lost_answer(&mut self) {
        self.found.entry.notes.answer_lost = Some(self.found.entry.generation);
    }

    /// The RefreshToken was rejected.
    pub(crate) fn learn_refresh_dead(&mut self) {
        self.found.learnt.refresh_dead = true;
    }

    /// Another pair is in the store now, of which nothing is learnt yet.
    pub(crate) fn replace(&mut self, entry: Entry) {
        self.found = Found::new(entry);
    }
}

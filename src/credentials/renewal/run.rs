//! One renewal, top to bottom: adopt what is stored; if that will not do, take the lease, and refresh or
//! log in. Runs in its own task; nothing that callers do cancels it.

use std::sync::Arc;

use super::lease::LeaseTurn;
use super::leased::Leased;
use super::means::Means;
use super::ready::Ready;
use super::refresh::Refreshed;
use super::renewals::{Outcome, Probing, Renewal};
use crate::credentials::Error;
use crate::credentials::engine::Engine;
use crate::credentials::guards::pace;
use crate::credentials::guards::remembered::holds;
use crate::credentials::guards::seeker::Seeker;
use crate::credentials::vault::cache::SUPPRESSED_FOR;
use crate::metrics::Trigger;
use crate::store::{Entry, LeaseId};

impl Engine {
    /// Runs `renewal` to its outcome.
    pub(crate) async fn run(&self, renewal: &Renewal) -> Outcome {
        let (mut turn, mut ready) = (None, None);
        match renewal.ask.trigger {
            // What asks knows what is in the store: it is read under the lease, not before.
            Trigger::Ahead | Trigger::Keep | Trigger::Rejected
                if renewal.ask.probing == Probing::No =>
            {
                self.check_not_waiting(renewal).await?;
                let comes = self.guards.pace.turn(&renewal.needed);
                turn = Some(self.closing().unless_closing(comes).await?);
            }
            Trigger::Ahead
            | Trigger::Keep
            | Trigger::Rejected
            | Trigger::Missing
            | Trigger::Asked => {
                let entry = self.read(renewal).await?;
                if let Some(found) = self.adopt(renewal, &entry)? {
                    return Ok(Some(found));
                }
                if let Means::LogIn = self.means(renewal, &entry)? {
                    // The budget comes before the lease: a refusal of it writes nothing.
                    ready = Box::pin(self.get_ready(renewal, entry)).await?;
                    if ready.is_none() {
                        return Ok(None);
                    }
                }
            }
        }
        let outcome = self.run_leased(renewal, turn, &mut ready).await;
        if let Some(unused) = ready {
            self.not_needed(unused).await;
        }
        outcome
    }

    /// Takes the lease and renews under it.
    async fn run_leased(
        &self,
        renewal: &Renewal,
        turn: Option<pace::Turn<'_>>,
        ready: &mut Option<Ready<'_>>,
    ) -> Outcome {
        let (principal, id) = (&renewal.principal, LeaseId::fresh());
        let leased = self.lease(renewal, id, ready).await?;
        let (hold, orphaned, entry) = match leased {
            Some(LeaseTurn::Ours {
                hold,
                orphaned,
                entry,
            }) => (Arc::new(hold), orphaned, entry),
            Some(LeaseTurn::Adopted(found)) => return Ok(Some(found)),
            None => return Ok(None),
        };
        let mut leased = Leased::new(entry, hold.clone());
        let renewed = async {
            if orphaned && leased.entry().record.is_some() {
                // The lease says so once: it is noted, lest this renewal ends before a refresh tells.
                Box::pin(self.note_lost(principal, &mut leased)).await;
            }
            self.renew(renewal, turn, &mut leased, ready).await
        };
        let outcome = tokio::select! {
            outcome = renewed => outcome,
            never = self.heartbeat(principal, &hold) => match never {},
        };
        self.vault.release(principal, &hold);
        outcome
    }

    /// Renews under the lease.
    async fn renew(
        &self,
        renewal: &Renewal,
        turn: Option<pace::Turn<'_>>,
        leased: &mut Leased,
        ready: &mut Option<Ready<'_>>,
    ) -> Outcome {
        if let Some(found) = self.adopt(renewal, leased.entry())? {
            return Ok(Some(found));
        }
        if let Some(found) = self.suppressed_elsewhere(renewal, leased.entry())? {
            return Ok(Some(found));
        }
        match self.means(renewal, leased.entry())? {
            Means::Refresh(pair) => match self.refresh(renewal, leased, pair).await? {
                Refreshed::Ended(outcome) => return outcome,
                Refreshed::Dead => {}
            },
            Means::LogIn => {}
        }
        if renewal.is_deserted() {
            return Ok(None);
        }
        // A renewal that waits for a login must not hold up others.
        drop(turn);
        // Boxed: it is seldom, and larger than the rest of a renewal.
        Box::pin(self.log_in(renewal, leased, ready)).await
    }

    /// The token in the entry, if it is what the renewal is asked for.
    pub(super) fn adopt(&self, renewal: &Renewal, entry: &Entry) -> Outcome {
        self.check_instance(renewal, entry)?;
        if let Some(record) = &entry.record {
            self.vault.check_key(record)?;
        }
        self.usable(renewal, entry)
    }

    fn usable(&self, renewal: &Renewal, entry: &Entry) -> Outcome {
        let generation = entry.generation;
        if renewal.newer_than().is_some_and(|old| generation <= old)
            || !self.vault.cache.may_use(&renewal.principal, generation)
            || entry
                .record
                .as_ref()
                .is_none_or(|record| record.expires <= self.vault.wall())
        {
            return Ok(None);
        }
        self.publish(renewal, entry)
    }

    /// The rejected token itself, if another process found a moment ago that a newer one does not help:
    /// then it stays in use, and its 401 is the answer.
    fn suppressed_elsewhere(&self, renewal: &Renewal, entry: &Entry) -> Outcome {
        if renewal.ask.trigger != Trigger::Rejected
            || renewal.newer_than() != Some(entry.generation)
        {
            return Ok(None);
        }
        let now = self.vault.wall();
        let left = entry.notes.suppressed_until.map(|until| until.since(now));
        let Some(left) = left.filter(|left| holds(*left, SUPPRESSED_FOR)) else {
            return Ok(None);
        };
        let cache = &self.vault.cache;
        cache.pardon(&renewal.principal, entry.generation);
        let published = self.publish(renewal, entry)?;
        if published.is_some() {
            cache.suppress_for(&renewal.principal, entry.epoch, left);
        }
        Ok(published)
    }

    fn publish(&self, renewal: &Renewal, entry: &Entry) -> Outcome {
        let vault = &self.vault;
        let pair = vault.open(&renewal.principal, entry)?;
        Ok(pair.and_then(|pair| vault.publish_entry(&renewal.principal, entry, &pair)))
    }

    /// A user known under another instance than the one named, or under one that is configured no longer, is
    /// an error, not a login.
    fn check_instance(&self, renewal: &Renewal, entry: &Entry) -> Result<(), Error> {
        match (renewal.ask.instance, entry.known_instance()) {
            (Some(asked), Some(known)) if asked != known => Err(Error::InstanceMismatch),
            (_, Some(known)) if !self.current.has(known) => Err(Error::InstanceGone),
            _ => Ok(()),
        }
    }
}

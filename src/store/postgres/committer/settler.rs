//! What comes of a pair in the outbox: it is in the store, or overtaken there, or it stays.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::principal::Principal;
use crate::store::postgres::database::Database;
use crate::store::postgres::outbox::Outbox;
use crate::store::postgres::pending::{Pending, lacks, overlaid};
use crate::store::postgres::reassertion::Acknowledged;
use crate::store::{Commit, Entry, Error, Restored};

/// Sends pairs of the outbox, one at a time, and removes those that need not stay.
pub(super) struct Settler<D> {
    pub(super) database: Arc<D>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) acknowledged: Arc<Acknowledged>,
    /// Whose pairs are refused: each is logged once.
    pub(super) refused: Mutex<HashSet<Principal>>,
}

/// What came of a pair that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The store has it, or has a later one: it left the outbox.
    Settled,
    /// It is not known whether the store has it: it stays, and is sent again soon.
    Unanswered,
    /// The store does not take it: it stays, for there is no other copy of it.
    Refused,
}

impl<D: Database> Settler<D> {
    /// Sends a pair that waits.
    pub(super) async fn send(&self, waiting: Pending) -> Sent {
        let Pending {
            principal,
            record,
            over,
            lease,
        } = waiting.clone();
        let answer = self.database.commit(&principal, record, over, lease).await;
        self.settle(waiting, answer).await
    }

    /// The server has answered, or has not.
    pub(super) async fn settle(&self, waiting: Pending, answer: Result<Commit, Error>) -> Sent {
        let settled = match answer {
            Ok(Commit::Committed(_)) => {
                self.acknowledged
                    .remember(&waiting.principal, waiting.entry());
                Ok(())
            }
            // The comparison fails also if the server has lost what this pair replaces, or if it has
            // what was received earlier.
            Ok(Commit::Superseded(stands)) if lacks(&stands, &waiting.entry()) => {
                self.restore(&waiting, &stands).await.map(drop)
            }
            // It was restored, and the answer was lost.
            Ok(Commit::Superseded(stands)) if stands.record.as_ref() == Some(&waiting.record) => {
                self.acknowledged.remember(&waiting.principal, stands);
                Ok(())
            }
            Ok(Commit::Superseded(_)) => {
                tracing::debug!("a pair of the outbox was overtaken in the store");
                Ok(())
            }
            Err(error) => Err(error),
        };
        match settled {
            Ok(()) => self.remove(waiting).await,
            Err(error) if error.is_of_one_entry() => {
                self.tell_refused(waiting.principal, &error);
                Sent::Refused
            }
            Err(error) => {
                tracing::debug!(%error, "a pair stays in the outbox");
                Sent::Unanswered
            }
        }
    }

    /// Takes a pair out of the outbox, where it need not stay.
    pub(super) async fn remove(&self, waiting: Pending) -> Sent {
        self.refused().remove(&waiting.principal);
        match self.outbox.remove(waiting).await {
            Ok(()) => Sent::Settled,
            Err(_) => Sent::Unanswered,
        }
    }

    fn tell_refused(&self, principal: Principal, error: &Error) {
        if !self.refused().insert(principal) {
            return;
        }
        match error {
            Error::Refused(why) => tracing::error!(
                why,
                "the store does not take a new pair, which stays in this machine's outbox: its user is \
                 served by this process alone, until the server takes it or the user is forgotten"
            ),
            _ => tracing::error!(
                "an entry of the store is damaged, and the new pair of its user stays in this machine's \
                 outbox: find the user by `tokens verify` and forget it, which costs a login"
            ),
        }
    }

    fn refused(&self) -> MutexGuard<'_, HashSet<Principal>> {
        self.refused.lock().expect("no code panics under this lock")
    }

    /// Writes a pair in the place of what `stands` there, which it outranks.
    pub(super) async fn restore(
        &self,
        pending: &Pending,
        stands: &Entry,
    ) -> Result<Restored, Error> {
        let entry = overlaid(stands, &pending.entry());
        let entries = vec![(pending.principal.clone(), entry.clone())];
        let restored = self.database.restore(entries).await?;
        match restored.as_slice() {
            [Restored::Written] => {
                self.acknowledged.remember(&pending.principal, entry);
                Ok(Restored::Written)
            }
            _ => Ok(Restored::Kept),
        }
    }
}

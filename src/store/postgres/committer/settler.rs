//! What comes of a pair in the outbox: it is in the store, or overtaken there, or it stays.

use std::sync::Arc;

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
}

impl<D: Database> Settler<D> {
    /// Sends a pair that waits. Returns whether it waits no longer.
    pub(super) async fn send(&self, waiting: Pending) -> bool {
        let Pending {
            principal,
            record,
            over,
            lease,
        } = waiting.clone();
        let answer = self.database.commit(&principal, record, over, lease).await;
        self.settle(waiting, answer).await
    }

    /// The server has answered, or has not. Returns whether the pair waits no longer.
    pub(super) async fn settle(&self, waiting: Pending, answer: Result<Commit, Error>) -> bool {
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
            Ok(Commit::Superseded(_)) => {
                tracing::debug!("a pair of the outbox was overtaken in the store");
                Ok(())
            }
            Err(error) => Err(error),
        };
        match settled {
            Ok(()) => self.outbox.remove(waiting).await.is_ok(),
            Err(error) => {
                tracing::debug!(%error, "a pair stays in the outbox");
                false
            }
        }
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

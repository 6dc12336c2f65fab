//! How a pair becomes durable: the server acknowledges it, or else the outbox keeps it.
//!
//! ```text
//!            acknowledged within 250 ms
//!  commit ───────────────────────────────▶ committed
//!     │ no answer, or an error                  ▲
//!     ▼                                         │ acknowledged, or overtaken there
//!  in the outbox: committed, for its caller ────┤
//!     │                                         │
//!     └───────────── sent again ◀───────────────┘ no answer, or an error
//! ```
//!
//! If the outbox takes nothing either, the server's answer is the caller's. A pair that the server does not
//! take at all stays in the outbox, for there is no other copy of it, until its user is forgotten.
//!
//! While a pair waits, or the server has lost one that it acknowledged, nobody here is given the older one
//! that stands there: its RefreshToken is spent.

mod sender;
mod settler;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::sender::{Attempt, Sender};
use self::settler::{Sent, Settler};
use super::database::Database;
use super::outbox::Outbox;
use super::pending::{Pending, lacks, overlaid};
use super::presence::Arrival;
use super::reassertion::{Acknowledged, Doubt};
use crate::principal::Principal;
use crate::store::{Commit, Day, Entry, Error, Lease, LeaseId, Note, Restored};

/// A pair that the server has not acknowledged within this time goes to the outbox: the process may be
/// killed at any moment.
pub(super) const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(250);
/// For how long a call waits until the pair of its principal is sent.
const SENT_WITHIN: Duration = Duration::from_millis(500);

/// What this process keeps beside the server.
#[derive(Clone)]
pub(super) struct Beside {
    /// Pairs that the server has not acknowledged.
    pub(super) outbox: Arc<Outbox>,
    /// What it acknowledged lately.
    pub(super) acknowledged: Arc<Acknowledged>,
    /// Whether it may have lost some of that.
    pub(super) doubt: Arc<Doubt>,
}

/// Where the pair is that a commit replaces.
enum Replaced {
    /// In the store.
    Standing,
    /// In the outbox, so that an older one stands; this is what the store is known to have acknowledged.
    Waiting(Option<Box<Entry>>),
}

impl Replaced {
    /// Whether the store had a later entry than what `stands` there, an older one than the commit replaces.
    fn was_lost(&self, stands: &Entry) -> bool {
        match self {
            Replaced::Standing => true,
            Replaced::Waiting(acknowledged) => acknowledged
                .as_ref()
                .is_some_and(|acknowledged| lacks(stands, acknowledged)),
        }
    }
}

/// Does on the server what the store's methods of the same names promise, with the outbox beside it. Its
/// methods run on the runtime that it was started on.
pub(super) struct Committer<D> {
    database: Arc<D>,
    beside: Beside,
    /// How long a commit waits for the server's answer.
    patience: Duration,
    settler: Arc<Settler<D>>,
    /// Where attempts go whose callers have their answer already.
    handed_over: mpsc::UnboundedSender<Attempt>,
    /// Sends what is in the outbox; aborted when this is dropped.
    sending: JoinHandle<()>,
}

impl<D: Database> Committer<D> {
    /// Starts to send what is in the outbox, on the current runtime; at once whenever `connected` changes.
    /// A commit waits for the server's answer no longer than `patience`.
    pub(super) fn start(
        database: Arc<D>,
        beside: Beside,
        connected: Arrival,
        patience: Duration,
    ) -> Committer<D> {
        let settler = Arc::new(Settler {
            database: Arc::clone(&database),
            outbox: Arc::clone(&beside.outbox),
            acknowledged: Arc::clone(&beside.acknowledged),
            refused: Mutex::default(),
        });
        let (handed_over, attempts) = mpsc::unbounded_channel();
        let sender = Sender::new(Arc::clone(&settler), attempts, connected);
        Committer {
            database,
            beside,
            patience,
            settler,
            handed_over,
            sending: tokio::spawn(sender.run()),
        }
    }

    /// [`Store::load`](crate::store::Store::load).
    pub(super) async fn load(&self, principal: &Principal) -> Result<Entry, Error> {
        // An outbox that cannot be read holds up renewals, not those who read.
        let waiting = self.beside.outbox.find(principal).await.unwrap_or_default();
        let before = self.beside.acknowledged.of(principal);
        let stands = self.database.load(principal).await?;
        Ok(self.current(stands, before, waiting))
    }

    /// [`Store::lease`](crate::store::Store::lease). A pair of the principal that waits is sent first.
    pub(super) async fn lease(
        &self,
        principal: &Principal,
        id: LeaseId,
        ttl: Duration,
    ) -> Result<(Lease, Result<Entry, Error>), Error> {
        self.beside.outbox.admit()?;
        let waiting = match self.beside.outbox.find(principal).await? {
            Some(waiting) if self.send(waiting.clone()).await == Sent::Settled => None,
            waiting => waiting,
        };
        let before = self.beside.acknowledged.of(principal);
        let (lease, stands) = self.database.lease(principal, id, ttl).await?;
        let entry = stands.map(|stands| self.current(stands, before, waiting));
        Ok((lease, entry))
    }

    /// [`Store::commit`](crate::store::Store::commit). Returns soon after 250 ms, whatever the server
    /// does, unless the outbox takes nothing.
    pub(super) async fn commit(&self, pending: Pending) -> Result<Commit, Error> {
        // An outbox that cannot be read says that it takes nothing below.
        let under = self.beside.outbox.find(&pending.principal).await;
        let replaced = match under.unwrap_or_default() {
            Some(_) => {
                let acknowledged = self.beside.acknowledged.of(&pending.principal);
                Replaced::Waiting(acknowledged.map(Box::new))
            }
            None => Replaced::Standing,
        };
        let mut direct = attempt(Arc::clone(&self.database), pending.clone());
        let answered = timeout(self.patience, &mut direct).await;
        if let Ok(Ok(commit)) = answered {
            return self.answered(pending, replaced, commit).await;
        }
        let committed = Commit::Committed(pending.over.generation.next());
        if self.beside.outbox.put(pending.clone()).await.is_ok() {
            if answered.is_err() {
                // It ends with the process if the sender has ended: the pair is in the outbox.
                let _ = self.handed_over.send(Attempt { pending, direct });
            }
            return Ok(committed);
        }
        let commit = match answered {
            Ok(answer) => answer?,
            Err(_) => direct.await?,
        };
        self.answered(pending, replaced, commit).await
    }

    /// [`Store::note`](crate::store::Store::note).
    pub(super) async fn note(&self, principal: &Principal, note: Note) -> Result<(), Error> {
        self.send_first(principal).await?;
        self.database.note(principal, note).await
    }

    /// [`Store::forget`](crate::store::Store::forget).
    pub(super) async fn forget(&self, principal: &Principal) -> Result<bool, Error> {
        self.forget_if(principal, None).await
    }

    /// [`Uses::forget_unused`](crate::store::Uses::forget_unused).
    pub(super) async fn forget_unused(&self, user: &Principal, before: Day) -> Result<bool, Error> {
        self.forget_if(user, Some(before)).await
    }

    async fn forget_if(
        &self,
        principal: &Principal,
        unused_since: Option<Day>,
    ) -> Result<bool, Error> {
        let refused = self.send_first(principal).await?;
        if unused_since.is_some() && refused.is_some() {
            // It was renewed a moment ago.
            return Ok(false);
        }
        let forgotten = self.database.forget(principal, unused_since).await;
        let forgotten = match (forgotten, &refused) {
            // Under such a name nothing stands.
            (Err(Error::Refused(_)), Some(_)) => None,
            (forgotten, _) => forgotten?,
        };
        let tombstone = match forgotten {
            Some(version) => Entry {
                generation: version.generation,
                epoch: version.epoch,
                ..Entry::default()
            },
            // An earlier attempt may have left it, whose answer was lost.
            None => self.database.load(principal).await.unwrap_or_default(),
        };
        if tombstone.epoch > 0 && tombstone.record.is_none() {
            self.beside.acknowledged.remember(principal, tombstone);
        }
        let was_refused = refused.is_some();
        if let Some(refused) = refused {
            self.settler.remove(refused).await;
        }
        Ok(forgotten.is_some() || was_refused)
    }

    /// [`Store::restore`](crate::store::Store::restore).
    pub(super) async fn restore(
        &self,
        entries: Vec<(Principal, Entry)>,
    ) -> Result<Vec<Restored>, Error> {
        let restored = self.database.restore(entries.clone()).await?;
        let mut kept = HashMap::new();
        for ((principal, entry), restored) in entries.into_iter().zip(&restored) {
            match restored {
                Restored::Written => self.beside.acknowledged.remember(&principal, entry),
                Restored::Kept => drop(kept.insert(principal, entry)),
            }
        }
        if kept.is_empty() {
            return Ok(restored);
        }
        // The answer to an earlier attempt may have been lost.
        let whose: Vec<_> = kept.keys().cloned().collect();
        for (principal, stands) in self.database.standing(&whose).await.unwrap_or_default() {
            let ours = kept.get(&principal);
            if ours.is_some_and(|ours| (ours.epoch, &ours.record) == (stands.epoch, &stands.record))
            {
                self.beside.acknowledged.remember(&principal, stands);
            }
        }
        Ok(restored)
    }

    /// The server has answered a commit. If what stands there is older than what the pair replaces, the pair
    /// is not overtaken.
    async fn answered(
        &self,
        pending: Pending,
        replaced: Replaced,
        commit: Commit,
    ) -> Result<Commit, Error> {
        let stands = match commit {
            Commit::Committed(_) => {
                self.beside
                    .acknowledged
                    .remember(&pending.principal, pending.entry());
                return Ok(commit);
            }
            Commit::Superseded(stands)
                if pending.lease.is_some()
                    && (stands.epoch, stands.generation)
                        < (pending.over.epoch, pending.over.generation) =>
            {
                stands
            }
            Commit::Superseded(_) => return Ok(commit),
        };
        if replaced.was_lost(&stands) {
            self.beside.doubt.went_back();
        }
        let committed = Commit::Committed(pending.over.generation.next());
        match self.settler.restore(&pending, &stands).await {
            Ok(Restored::Written) => Ok(committed),
            Ok(Restored::Kept) => {
                let stands = self.database.load(&pending.principal).await?;
                Ok(Commit::Superseded(stands))
            }
            Err(error) => match self.beside.outbox.put(pending).await {
                Ok(()) => Ok(committed),
                Err(_) => Err(error),
            },
        }
    }

    /// Sends the pair of `principal` that waits, if there is one; returns it if the server refuses it, so
    /// that it never gets there. An error if it still waits then: what is written now would be undone by it,
    /// or undo it.
    async fn send_first(&self, principal: &Principal) -> Result<Option<Pending>, Error> {
        let Some(waiting) = self.beside.outbox.find(principal).await? else {
            return Ok(None);
        };
        match self.send(waiting.clone()).await {
            Sent::Settled => Ok(None),
            Sent::Refused => Ok(Some(waiting)),
            Sent::Unanswered => Err(Error::Away(
                "a pair of this principal waits in the outbox".to_owned(),
            )),
        }
    }

    /// Sends a pair that waits.
    async fn send(&self, waiting: Pending) -> Sent {
        let sent = timeout(SENT_WITHIN, self.settler.send(waiting)).await;
        sent.unwrap_or(Sent::Unanswered)
    }

    /// The entry that stands, or what it will be. What was acknowledged `before` it was read stands there,
    /// unless the server went back in time; what was `waiting` then may not yet.
    fn current(&self, stands: Entry, before: Option<Entry>, waiting: Option<Pending>) -> Entry {
        let mut entry = stands;
        if let Some(before) = before
            && lacks(&entry, &before)
        {
            self.beside.doubt.went_back();
            entry = overlaid(&entry, &before);
        }
        match waiting.map(|waiting| waiting.entry()) {
            Some(waiting) if lacks(&entry, &waiting) => overlaid(&entry, &waiting),
            _ => entry,
        }
    }
}

impl<D> Committer<D> {
    /// Sends nothing of the outbox any more: the next process does.
    pub(super) fn close(&self) {
        self.sending.abort();
    }
}

impl<D> Drop for Committer<D> {
    fn drop(&mut self) {
        self.close();
    }
}

/// Asks the server to commit a pair.
fn attempt<D: Database>(
    database: Arc<D>,
    pending: Pending,
) -> BoxFuture<'static, Result<Commit, Error>> {
    Box::pin(async move {
        let Pending {
            principal,
            record,
            over,
            lease,
        } = pending;
        database.commit(&principal, record, over, lease).await
    })
}

#[cfg(test)]
mod tests;

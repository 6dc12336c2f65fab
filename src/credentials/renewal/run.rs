//! One renewal, top to bottom: adopt what is stored; if that will not do, take the lease, and refresh or
//! log in. Runs in its own task; nothing that callers do cancels it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::leased::Leased;
use super::means::Means;
use super::refresh::Refreshed;
use super::renewals::{Outcome, Probing, Renewal};
use crate::credentials::engine::Engine;
use crate::credentials::guards::pace;
use crate::credentials::guards::seeker::Seeker;
use crate::credentials::{Credentials, Error};
use crate::metrics::{StoreOperation, Trigger};
use crate::principal::Principal;
use crate::store::{Entry, Lease, LeaseId};

/// How long a lease lasts without a heartbeat, in real time.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// How often it is extended.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often a lease that another process holds is asked for again, in real time.
const LEASE_AGAIN: Duration = Duration::from_millis(50);

/// Who renews.
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart where it arrives"
)]
enum LeaseTurn {
    /// This process: it holds the lease.
    Ours {
        /// A former holder died without releasing it, and a refresh may have been under way.
        orphaned: bool,
        /// The entry, read under the lease.
        entry: Result<Entry, Error>,
    },
    /// Another process renewed meanwhile.
    Adopted(Arc<Credentials>),
}

impl Engine {
    /// Runs `renewal` to its outcome.
    pub(crate) async fn run(&self, renewal: &Renewal) -> Outcome {
        let mut turn = None;
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
            | Trigger::Probe => {
                let entry = self.vault.load(&renewal.principal).await?;
                if let Some(found) = self.adopt(renewal, &entry)? {
                    return Ok(Some(found));
                }
                self.means(renewal, &entry)?;
            }
        }
        let id = LeaseId::fresh();
        let leased = self
            .closing()
            .unless_closing(self.lease(renewal, id))
            .await??;
        let (orphaned, entry) = match leased {
            Some(LeaseTurn::Ours { orphaned, entry }) => (orphaned, entry),
            Some(LeaseTurn::Adopted(found)) => return Ok(Some(found)),
            None => return Ok(None),
        };
        let outcome = tokio::select! {
            outcome = self.renew(renewal, turn, id, orphaned, entry) => outcome,
            never = self.heartbeat(&renewal.principal, id) => match never {},
        };
        self.vault.store.release(&renewal.principal, id);
        outcome
    }

    /// Renews under the lease.
    async fn renew(
        &self,
        renewal: &Renewal,
        turn: Option<pace::Turn<'_>>,
        lease: LeaseId,
        orphaned: bool,
        entry: Result<Entry, Error>,
    ) -> Outcome {
        let entry = entry?;
        if let Some(found) = self.adopt(renewal, &entry)? {
            return Ok(Some(found));
        }
        let means = self.means(renewal, &entry)?;
        let mut leased = Leased::new(entry, lease, orphaned);
        match means {
            Means::Refresh(pair) => match self.refresh(renewal, &mut leased, pair).await? {
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
        Box::pin(self.log_in(renewal, &leased)).await
    }

    /// The token in the entry, if it is what the renewal is asked for.
    fn adopt(&self, renewal: &Renewal, entry: &Entry) -> Outcome {
        self.check_instance(renewal, entry)?;
        if let Some(record) = &entry.record {
            self.vault.check_key(record)?;
        }
        self.usable(renewal, entry)
    }

    fn usable(&self, renewal: &Renewal, entry: &Entry) -> Outcome {
        let generation = entry.generation;
        if renewal.ask.newer_than.is_some_and(|old| generation <= old)
            || !self.vault.cache.may_use(&renewal.principal, generation)
            || entry
                .record
                .as_ref()
                .is_none_or(|record| record.expires <= self.vault.wall())
        {
            return Ok(None);
        }
        let vault = &self.vault;
        let pair = vault.open(&renewal.principal, entry)?;
        Ok(pair.and_then(|pair| vault.publish_entry(&renewal.principal, entry, &pair)))
    }

    /// A user known under another instance than the one named is an error, not a login.
    fn check_instance(&self, renewal: &Renewal, entry: &Entry) -> Result<(), Error> {
        match (renewal.ask.instance, entry.known_instance()) {
            (Some(asked), Some(known)) if asked != known => Err(Error::InstanceMismatch),
            _ => Ok(()),
        }
    }

    /// Takes the lease, or adopts what its holder commits. Returns `None` once no caller is patient any
    /// more.
    async fn lease(&self, renewal: &Renewal, id: LeaseId) -> Result<Option<LeaseTurn>, Error> {
        loop {
            let vault = &self.vault;
            let leased = vault.store.lease(&renewal.principal, id, LEASE).await;
            let (lease, entry) = vault.counted(StoreOperation::Lease, leased)?;
            let entry = vault
                .counted(StoreOperation::Load, entry)
                .map_err(Error::from);
            if let Lease::Granted { orphaned } = lease {
                return Ok(Some(LeaseTurn::Ours { orphaned, entry }));
            }
            if let Some(found) = self.adopt(renewal, &entry?)? {
                return Ok(Some(LeaseTurn::Adopted(found)));
            }
            if self.clock.now() >= renewal.patience() {
                return Ok(None);
            }
            tokio::time::sleep(LEASE_AGAIN).await;
        }
    }

    async fn heartbeat(&self, principal: &Principal, id: LeaseId) -> Infallible {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            // A lease that is lost all the same only costs: the commit finds itself superseded.
            let _ = self.vault.store.extend(principal, id, LEASE).await;
        }
    }

    /// Whether another process renews, or renewed, in this one's place: a process that was stopped,
    /// or a machine that slept, for longer than a lease wakes up with a pair that is no longer
    /// the newest. Its login would revoke the tokens of the other one.
    pub(crate) async fn is_overtaken(
        &self,
        principal: &Principal,
        leased: &Leased,
    ) -> Result<bool, Error> {
        let held = self
            .vault
            .store
            .extend(principal, leased.lease(), LEASE)
            .await;
        if !self.vault.counted(StoreOperation::Lease, held)? {
            return Ok(true);
        }
        let entry = leased.entry();
        let now = self.vault.load(principal).await?;
        Ok((now.generation, now.epoch) != (entry.generation, entry.epoch))
    }
}

//! Who renews a principal: the holder of its lease. How a renewal gets the lease, or waits for what its
//! holder commits; how it keeps it; and whether it may still call in its name.
//!
//! ```text
//!   ask ── granted ──▶ renew, with a heartbeat; before each call: is enough of it left?
//!    ▲ └── held ──▶ read now and then ── its holder committed what will do ──▶ adopt
//!    │                    │
//!    └────────────────────┘ it may be free: released, its time has passed, or the entry is another one
//! ```

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ready::Ready;
use super::renewals::Renewal;
use super::token_endpoint::LEASE_TOO_SHORT;
use crate::credentials::engine::Engine;
use crate::credentials::guards::seeker::Seeker;
use crate::credentials::vault::hold::{Hold, Leasing};
use crate::credentials::{Credentials, Error};
use crate::principal::Principal;
use crate::store::{self, Entry, Generation, LeaseId};

/// A heartbeat comes each time that this part of a lease has passed.
const HEARTBEATS: u32 = 3;
/// How often a lease is prolonged before a call, at most: a busy store may take so long that what is left of
/// the lease is too short once more.
const EXTENSIONS: usize = 4;
/// The pauses between two readings of one that waits, in real time. Each is up to half as much longer, so
/// that processes that wait for the same lease do not read together.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(650);

/// Who renews.
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart where it arrives"
)]
pub(super) enum LeaseTurn {
    /// This process: it holds the lease.
    Ours {
        hold: Hold,
        /// A former holder died without releasing it, and a refresh may have been under way.
        orphaned: bool,
        /// The entry, read under the lease.
        entry: Entry,
    },
    /// Another process renewed meanwhile.
    Adopted(Arc<Credentials>),
}

/// How long one that waits pauses before it reads again.
struct Pauses(Duration);

impl Pauses {
    fn new() -> Pauses {
        Pauses(FIRST_PAUSE)
    }

    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        pause.mul_f64(1.0 + fastrand::f64() / 2.0)
    }
}

impl Engine {
    /// How long a lease lasts without a heartbeat, in real time.
    pub(crate) fn lease_time(&self) -> Duration {
        self.current.now().settings.lease_time(self.clock)
    }

    /// The entry of the renewal's principal, freshly read.
    pub(crate) async fn read(&self, renewal: &Renewal) -> Result<Entry, Error> {
        let known = self.known(renewal);
        let entry = self.vault.load_uncompared(&renewal.principal).await?;
        self.look_back(renewal, known, &entry);
        Ok(entry)
    }

    /// The newest generation that the renewal knows of.
    fn known(&self, renewal: &Renewal) -> Option<Generation> {
        let newest = self.vault.cache.newest(&renewal.principal);
        newest.max(renewal.newer_than())
    }

    /// If the entry that was read is older than what the renewal `known` before, the store went back: a
    /// renewal that was asked for something newer is content with what follows on that entry.
    fn look_back(&self, renewal: &Renewal, known: Option<Generation>, entry: &Entry) {
        if self.vault.went_back(&renewal.principal, known, entry) {
            renewal.starts_over_from(entry.generation);
        }
    }

    /// Takes the lease `id`, or adopts what its holder commits. Returns `None` once no caller is patient any
    /// more. What is `ready` for a login is given back while another process holds the lease; a process that
    /// closes meanwhile does not interrupt that.
    pub(super) async fn lease(
        &self,
        renewal: &Renewal,
        id: LeaseId,
        ready: &mut Option<Ready<'_>>,
    ) -> Result<Option<LeaseTurn>, Error> {
        let mut pauses = Pauses::new();
        loop {
            let known = self.known(renewal);
            let asking = self.vault.lease(&renewal.principal, id, self.lease_time());
            let leasing = self.closing().unless_closing(asking).await;
            if let Err(Error::Closing) = leasing {
                // It may have been granted meanwhile.
                self.vault.store.release(&renewal.principal, id);
            }
            let (left, entry) = match leasing?? {
                Leasing::Ours {
                    hold,
                    orphaned,
                    entry: Ok(entry),
                } => {
                    self.look_back(renewal, known, &entry);
                    return Ok(Some(LeaseTurn::Ours {
                        hold,
                        orphaned,
                        entry,
                    }));
                }
                Leasing::Ours {
                    hold,
                    entry: Err(error),
                    ..
                } => {
                    self.vault.release(&renewal.principal, &hold);
                    return Err(error.into());
                }
                Leasing::Theirs { left, entry } => (left, entry),
            };
            if let Some(unused) = ready.take() {
                self.not_needed(unused).await;
            }
            self.look_back(renewal, known, &entry);
            if let Some(found) = self.adopt(renewal, &entry)? {
                return Ok(Some(LeaseTurn::Adopted(found)));
            }
            let free = Instant::now() + left;
            let until_free = self.until_free(renewal, &entry, free, &mut pauses);
            match self.closing().unless_closing(until_free).await?? {
                Some(found) => return Ok(Some(LeaseTurn::Adopted(found))),
                None if self.clock.now() >= renewal.patience() => return Ok(None),
                None => {}
            }
        }
    }

    /// Reads now and then what the holder of the lease makes of `entry`. Returns what can be adopted, or
    /// `None` if the lease may be free, at the latest at `free`, or if no caller is patient any more.
    async fn until_free(
        &self,
        renewal: &Renewal,
        entry: &Entry,
        free: Instant,
        pauses: &mut Pauses,
    ) -> Result<Option<Arc<Credentials>>, Error> {
        while self.clock.now() < renewal.patience() {
            let left = free.saturating_duration_since(Instant::now());
            tokio::time::sleep(pauses.next().min(left.max(FIRST_PAUSE))).await;
            if Instant::now() >= free {
                break;
            }
            let is_held = self.vault.is_leased(&renewal.principal).await?;
            let now = self.read(renewal).await?;
            if let Some(found) = self.adopt(renewal, &now)? {
                return Ok(Some(found));
            }
            if !is_held || now != *entry {
                break;
            }
        }
        Ok(None)
    }

    /// Keeps the lease. A heartbeat that gets no answer changes nothing: what is left of the lease is known
    /// here.
    pub(super) async fn heartbeat(&self, principal: &Principal, hold: &Hold) -> Infallible {
        loop {
            let lasts = self.lease_time();
            tokio::time::sleep(lasts / HEARTBEATS).await;
            if let Ok(false) = self.vault.extend(principal, hold, lasts).await {
                // No further call is sent; what is under way goes on.
                return std::future::pending().await;
            }
        }
    }

    /// Whether a call to the Auth endpoints may be sent: the store can be reached, so that what the call
    /// brings can be kept, and the lease outlasts the call's deadline. Prolongs it if it does not. Returns
    /// false if the lease is lost.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`].
    pub(crate) async fn may_call(&self, principal: &Principal, hold: &Hold) -> Result<bool, Error> {
        if let Some(away) = self.vault.store.condition().away {
            return Err(store::Error::Away(away.why).into());
        }
        let deadline = self.call_timeout();
        for _ in 0..EXTENSIONS {
            if hold.outlasts(deadline) {
                return Ok(true);
            }
            let extended = self.vault.extend(principal, hold, self.lease_time());
            if !extended.await? {
                return Ok(false);
            }
        }
        match hold.outlasts(deadline) {
            true => Ok(true),
            false => Err(store::Error::Away(LEASE_TOO_SHORT.to_owned()).into()),
        }
    }

    /// Whether another process renews, or renewed, in this one's place: a process that was stopped,
    /// or a machine that slept, for longer than a lease wakes up with a pair that is no longer
    /// the newest. Its login would revoke the tokens of the other one.
    pub(crate) async fn is_overtaken(
        &self,
        renewal: &Renewal,
        hold: &Hold,
        entry: &Entry,
    ) -> Result<bool, Error> {
        let extended = self
            .vault
            .extend(&renewal.principal, hold, self.lease_time());
        if !extended.await? {
            return Ok(true);
        }
        Ok(self.read(renewal).await?.version() != entry.version())
    }
}

#[cfg(test)]
mod tests;

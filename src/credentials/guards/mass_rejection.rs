//! The guard against a broken deploy of the API: if the RefreshTokens of many principals are rejected at
//! once, the API is at fault and not the tokens. Then logins of principals that hold a pair are
//! suspended, and probes find out whether the API works again.
//!
//! If a pair that is newer than the rejected ones refreshes, the API works and the others are too old: a
//! backup was restored, or Damoov revoked older pairs. From then on the rejection of an old pair is
//! believed once it has come a second time, after a newer pair was seen to refresh.
//!
//! All processes on one store share the [`State`], which says how it changes; which principals wait is
//! this process's own.

mod state;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::shared::{self, Shared, SharedMoment};
use crate::clock::{Clock, Moment, Timestamp};
use crate::credentials;
use crate::metrics::Metrics;
use crate::principal::Principal;
use crate::store::{Entry, Error, Generation, Guard, GuardRows};
use crate::telemetry::episode::Episode;
pub(crate) use state::{How, Verdict};
use state::{Probe as Claimed, State};

/// The row of the store.
pub(crate) const ROW: &str = "mass rejection";
/// Callers of a suspended principal are told to come back after this time, in which two refreshes are
/// tried.
const AGAIN: Duration = state::REFRESH_EVERY.saturating_mul(2);
/// The patience of a probe that may log in.
pub(crate) const PROBE_PATIENCE: Duration = state::LOGIN_EVERY;
/// A rejection waits this long for a newer pair to refresh; after that nothing is proven any more.
const CONFIRMED_WITHIN: Duration = state::REFRESH_EVERY.saturating_mul(3);
/// After this time another process withdraws the notes that the process that suspended did not.
const WITHDRAWN_WITHIN: Duration = Duration::from_secs(10);
/// While pairs are rejected because they are too old, that is logged once in this time.
const OUTLIVED_AGAIN: Duration = Duration::from_secs(60);

/// Counts rejections and, once there are many, holds logins back.
pub(crate) struct MassRejection {
    /// What all processes agree on; written by compare-and-swap, and followed once a second.
    shared: Shared<State>,
    store: Arc<dyn GuardRows>,
    /// The principals of this process that were rejected during this suspension. Behind a lock, because
    /// renewals add themselves and the probes take turns; emptied when a suspension begins or ends.
    waiting: Mutex<Waiting>,
    /// How many rejections wait to be confirmed: while there are any, refreshes are tried.
    unsure: AtomicUsize,
    /// Whether it was logged that logins are suspended, so that each change is logged once.
    suspended_logged: AtomicBool,
    outlived: Mutex<Outlived>,
    /// How long logins are suspended, and how many were refused.
    suspension: Episode,
    /// Wakes the task that makes probes.
    wake: Notify,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// The principals that were rejected during this suspension, to be probed in turn, with the generation
/// and epoch that were rejected.
#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Principal>,
    rejected: HashMap<Principal, (Generation, u64)>,
}

/// Pairs that are dead because they are older than pairs that refresh.
#[derive(Debug, Default)]
struct Outlived {
    /// When they were last logged.
    told: Option<Moment>,
    /// How many since.
    count: u64,
}

/// How to find out whether the API works.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Refresh this principal's pair; do not log it in.
    Refresh(Principal),
    /// Refresh this principal's pair, and log it in if that is rejected.
    LogIn(Principal),
}

impl Waiting {
    fn add(&mut self, principal: &Principal, entry: &Entry) {
        let rejected = (entry.generation, entry.epoch);
        if self.rejected.insert(principal.clone(), rejected).is_none() {
            self.queue.push_back(principal.clone());
        }
    }

    fn remove(&mut self, principal: &Principal) {
        if self.rejected.remove(principal).is_some() {
            self.queue.retain(|waits| waits != principal);
        }
    }

    /// The next in turn; it stays among those that wait.
    fn next(&mut self) -> Option<Principal> {
        let next = self.queue.pop_front()?;
        self.queue.push_back(next.clone());
        Some(next)
    }
}

/// Whether a row says that logins of principals that hold a pair are suspended.
pub(crate) fn suspends(row: &Guard) -> bool {
    shared::read::<State>(row).is_ok_and(|state| state.is_suspended())
}

impl MassRejection {
    pub(crate) fn new(
        store: Arc<dyn GuardRows>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> MassRejection {
        MassRejection {
            shared: Shared::new(ROW),
            store,
            waiting: Mutex::default(),
            unsure: AtomicUsize::new(0),
            suspended_logged: AtomicBool::new(false),
            outlived: Mutex::default(),
            suspension: Episode::new(),
            wake: Notify::new(),
            clock,
            metrics,
        }
    }

    /// Looks at what other processes wrote.
    pub(crate) async fn follow(&self) -> Result<(), Error> {
        let now = self.shared.load(&*self.store).await?;
        self.log_change(&now);
        Ok(())
    }

    /// A refresh of `principal`'s pair, received at `received`, succeeded. Costs nothing while
    /// nothing is wrong, unless it was a `probe`.
    pub(crate) async fn refreshed(
        &self,
        principal: &Principal,
        received: Timestamp,
        probe: bool,
    ) -> Result<(), Error> {
        if !probe && self.shared.last_seen().is_calm() {
            return Ok(());
        }
        let now = self.now();
        self.update(|state| state.refreshed(principal, received, &now))
            .await
    }

    /// A refresh of the pair in `entry` was definitely rejected.
    pub(crate) async fn rejected(
        &self,
        principal: &Principal,
        entry: &Entry,
        how: How,
    ) -> Result<Verdict, Error> {
        let received = entry.record.as_ref().map(|record| record.received);
        let (received, now) = (received.unwrap_or_default(), self.now());
        let verdict = self
            .update(|state| state.rejected(principal, received, how, &now))
            .await?;
        match &verdict {
            Verdict::StillBroken | Verdict::Broken(_) => self.lock().add(principal, entry),
            Verdict::Outlived => self.count_outlived(),
            Verdict::Dead | Verdict::Unsure(_) => {}
        }
        Ok(verdict)
    }

    /// Waits until a newer pair refreshes, that is until the count of confirmations is above `since`.
    /// Returns false if none does, or if nothing is proven any more.
    pub(crate) async fn confirmed(&self, since: u64) -> Result<bool, Error> {
        let _unsure = Unsure::new(self);
        self.wake.notify_one();
        let mut seen = self.shared.watch();
        let told = seen.wait_for(|seen| seen.value.confirmed().is_none_or(|count| count > since));
        let within = self.clock.to_real(CONFIRMED_WITHIN);
        if let Ok(Ok(seen)) = tokio::time::timeout(within, told).await {
            return Ok(seen.value.confirmed().is_some());
        }
        self.update(State::unproven).await?;
        Ok(false)
    }

    /// `principal` was given a new pair, not by a refresh.
    pub(crate) async fn logged_in(&self, principal: &Principal) -> Result<(), Error> {
        self.lock().remove(principal);
        if self.shared.last_seen().is_calm() {
            return Ok(());
        }
        let now = self.now();
        self.update(|state| state.logged_in(principal, &now)).await
    }

    /// Whether logins of principals that hold a pair are suspended, as the store says at this moment. If
    /// so, `principal` will be probed in its turn.
    pub(crate) async fn hold(&self, principal: &Principal, entry: &Entry) -> Result<bool, Error> {
        self.follow().await?;
        let suspended = self.shared.last_seen().is_suspended();
        if suspended {
            self.lock().add(principal, entry);
        }
        Ok(suspended)
    }

    /// The generation and epoch of `principal` that were rejected during this suspension: before its
    /// probe they are not tried again.
    pub(crate) fn waits_with(&self, principal: &Principal) -> Option<(Generation, u64)> {
        if !self.shared.last_seen().is_suspended() {
            return None;
        }
        self.lock().rejected.get(principal).copied()
    }

    /// Those of this process that were rejected during this suspension.
    pub(crate) fn principals(&self) -> Vec<Principal> {
        self.lock().rejected.keys().cloned().collect()
    }

    /// `principal` has another pair than the rejected one, or none.
    pub(crate) fn moved_on(&self, principal: &Principal) {
        self.lock().remove(principal);
    }

    /// Whether the pair in `entry` is rejected because pairs as old as it are: newer ones refresh.
    pub(crate) fn has_outlived(&self, entry: &Entry) -> bool {
        let record = entry.record.as_ref();
        record.is_some_and(|record| self.shared.last_seen().outlives(record.received))
    }

    /// Whether nothing is wrong, as far as this process knows.
    pub(crate) fn is_calm(&self) -> bool {
        self.shared.last_seen().is_calm() && self.unsure.load(Ordering::Acquire) == 0
    }

    /// There is nothing to probe `principal` with.
    pub(crate) async fn no_witness(&self, principal: &Principal) -> Result<(), Error> {
        self.moved_on(principal);
        self.update(|state| state.forgotten(principal)).await
    }

    /// Returns when it may be time for a probe.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Takes the next probe, if one is due and no other process has it.
    pub(crate) async fn claim_probe(&self) -> Result<Option<Probe>, Error> {
        let wanted = self.unsure.load(Ordering::Acquire) > 0;
        let now = self.now();
        let would = State::clone(&self.shared.last_seen()).claim_probe(wanted, &now);
        if would.is_none() {
            return Ok(None);
        }
        let claimed = self.update(|state| state.claim_probe(wanted, &now)).await?;
        let next = |listed| self.lock().next().unwrap_or(listed);
        Ok(claimed.map(|claimed| match claimed {
            Claimed::Witness(witness) => Probe::Refresh(witness),
            Claimed::Waiting(listed) => Probe::Refresh(next(listed)),
            Claimed::LogIn(listed) => Probe::LogIn(next(listed)),
        }))
    }

    /// The principals whose notes were not withdrawn because a process ended early.
    pub(crate) fn to_withdraw(&self) -> Vec<Principal> {
        let now = self.now();
        self.shared.last_seen().to_withdraw(WITHDRAWN_WITHIN, &now)
    }

    /// The notes on the rejected principals are withdrawn.
    pub(crate) async fn withdrew(&self) -> Result<(), Error> {
        self.update(State::withdrew).await
    }

    async fn update<R>(&self, change: impl FnMut(&mut State) -> R) -> Result<R, Error> {
        let result = self.shared.update(&*self.store, change).await?;
        self.log_change(&self.shared.last_seen());
        Ok(result)
    }

    /// Logs again and again while pairs are rejected because they are too old.
    fn count_outlived(&self) {
        self.metrics.old_pairs_rejected.inc();
        let now = self.clock.now();
        let mut outlived = self
            .outlived
            .lock()
            .expect("no code panics under this lock");
        outlived.count += 1;
        if outlived
            .told
            .is_none_or(|told| now.since(told) >= OUTLIVED_AGAIN)
        {
            tracing::error!(
                count = outlived.count,
                "Damoov rejects RefreshTokens that are older than others that it accepts: was a \
                 backup restored? Each of them costs a login"
            );
            *outlived = Outlived {
                told: Some(now),
                count: 0,
            };
        }
    }

    /// What a principal that is held back is told; each is counted.
    pub(crate) fn refusal(&self) -> credentials::Error {
        // Logged when it began.
        let _ = self.suspension.failed();
        credentials::Error::Suspended {
            retry_after: self.clock.to_real(AGAIN),
        }
    }

    /// Logs what changed, whichever process changed it.
    fn log_change(&self, now: &State) {
        let suspended = now.is_suspended();
        if self.suspended_logged.swap(suspended, Ordering::AcqRel) == suspended {
            return;
        }
        self.metrics.logins_suspended.set(suspended.into());
        let over = match suspended {
            // Logged below.
            true => {
                let _ = self.suspension.found_failing();
                None
            }
            false => self.suspension.worked(),
        };
        let (seconds, hurt) = (over.map(|over| over.seconds()), over.map(|over| over.hurt));
        *self.lock() = Waiting::default();
        match (suspended, now.confirmed()) {
            (true, _) => tracing::error!(
                "Damoov rejects the RefreshTokens of {} principals in a row: logins of principals \
                 that hold one are suspended, and a refresh is tried every {} s",
                now.count(),
                state::REFRESH_EVERY.as_secs()
            ),
            (false, None) => {
                tracing::warn!(
                    seconds,
                    hurt,
                    "Damoov accepts RefreshTokens again: logins are no longer suspended"
                )
            }
            (false, Some(_)) => tracing::error!(
                seconds,
                hurt,
                "Damoov accepts new RefreshTokens and rejects older ones, as after a backup was \
                 restored: logins are no longer suspended, and users that hold older ones are \
                 logged in, as fast as the budget allows"
            ),
        }
    }

    fn now(&self) -> SharedMoment {
        SharedMoment::now(&*self.store)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no code panics under this lock")
    }
}

/// Counts one rejection that waits to be confirmed, for as long as it lives.
struct Unsure<'a>(&'a AtomicUsize);

impl Unsure<'_> {
    fn new(guard: &MassRejection) -> Unsure<'_> {
        guard.unsure.fetch_add(1, Ordering::AcqRel);
        Unsure(&guard.unsure)
    }
}

impl Drop for Unsure<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

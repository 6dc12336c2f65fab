//! The renewals that run now: at most one for each principal, shared by all callers that wait for it.
//!
//! ```text
//!   join_or_start ─▶ Started ─▶ run in a task ─▶ Completion is dropped: the outcome is published
//!         └────────▶ Joined ──▶ wait: ended() ◀────────────────────────────────────┘
//! ```
//!
//! A renewal outlives the callers that wait for it. If all of them hang up it is *deserted*: it still ends
//! a call that is under way, but no longer logs in.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::watch;

use crate::clock::Moment;
use crate::credentials::guards::pace::Urgency;
use crate::credentials::guards::seeker::{Seeker, Who};
use crate::credentials::{Credentials, Error};
use crate::metrics::Trigger;
use crate::principal::{InstanceId, Principal};
use crate::store::Generation;

/// How a renewal ended. `Ok(None)`: it stopped because only a login would have helped and no caller
/// waited, or because another process took over; a caller that waits starts another one.
pub(crate) type Outcome = Result<Option<Arc<Credentials>>, Error>;

/// What a renewal is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// The instance that the caller named.
    pub(crate) instance: Option<InstanceId>,
    /// Only a newer generation will do.
    pub(crate) newer_than: Option<Generation>,
    /// What asks.
    pub(crate) trigger: Trigger,
    /// Whether it is a probe, which shows if the API works.
    pub(crate) probing: Probing,
    /// Whether its login may take a slot of the reserve.
    pub(crate) reserve: Reserve,
}

/// Whether a login may take a slot of the budget that is kept for principals seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reserve {
    /// If its principal was seen before.
    Open,
    /// It may not: nobody waits for it.
    Closed,
}

/// Whether a renewal is a probe, which shows if the API works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probing {
    /// It is not.
    No,
    /// By a refresh; it does not log in.
    ByRefresh,
    /// By a refresh, and a login if that is rejected, although logins are suspended.
    ByLogin,
}

/// One running renewal.
#[derive(Debug)]
pub(crate) struct Renewal {
    pub(crate) principal: Principal,
    pub(crate) ask: Ask,
    /// Raised by the first caller that waits: from then on the renewal may log in, and no longer waits
    /// among the renewals that no caller waits for.
    pub(crate) needed: Urgency,
    /// Until when a caller waits, in milliseconds of the clock; grows as others join.
    patience: AtomicU64,
    /// How many callers wait now; watched, so that a login is given up once all have hung up.
    callers: watch::Sender<usize>,
    /// When it asked for a login slot for the first time: it keeps its place in the line if it gives a
    /// slot back.
    asked: OnceLock<Moment>,
    /// Set if the store was found to have gone back in time meanwhile: what is asked for then instead of
    /// [`Ask::newer_than`].
    starts_over: OnceLock<Option<Generation>>,
    /// Why there are no credentials yet: what the callers whose patience ends are told.
    last_error: Mutex<Option<Error>>,
    /// `None` while it runs.
    outcome: watch::Sender<Option<Outcome>>,
}

impl Renewal {
    /// A caller waits until then.
    pub(crate) fn extend(&self, until: Moment) {
        self.patience.fetch_max(until.as_millis(), Ordering::AcqRel);
        self.needed.raise();
    }

    /// Only a newer generation than this will do.
    pub(crate) fn newer_than(&self) -> Option<Generation> {
        let over = self.starts_over.get().copied();
        over.unwrap_or(self.ask.newer_than)
    }

    /// The store went back in time, to `stands`: whatever follows on that will do, and if the renewal was
    /// only asked for a token, that one.
    pub(crate) fn starts_over_from(&self, stands: Generation) {
        let _ = self.starts_over.set(self.ask.newer_than.map(|_| stands));
    }

    /// Whether `found`, which came of this renewal, is newer than `old`.
    pub(crate) fn is_newer(&self, found: &Credentials, old: Option<Generation>) -> bool {
        old.is_none_or(|old| found.generation > old) || self.starts_over.get().is_some()
    }

    /// Remembers why there are no credentials yet.
    pub(crate) fn set_last_error(&self, error: Error) {
        *self
            .last_error
            .lock()
            .expect("no code panics under this lock") = Some(error);
    }

    /// Why there are no credentials yet: what the callers whose patience ends are told.
    pub(crate) fn last_error(&self) -> Error {
        let last_error = self
            .last_error
            .lock()
            .expect("no code panics under this lock");
        last_error.clone().unwrap_or(Error::WaitedTooLong)
    }

    /// Waits for the end, however it ends.
    pub(crate) async fn ended(&self) -> Outcome {
        let mut outcome = self.outcome.subscribe();
        let ended = outcome.wait_for(Option::is_some).await;
        match ended.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            Ok(None) | Err(_) => Ok(None),
        }
    }
}

/// The callers that wait for it come and go.
impl Seeker for Renewal {
    fn who(&self) -> Who {
        Who::Principal(self.principal.clone())
    }

    fn asked(&self) -> Option<Moment> {
        self.asked.get().copied()
    }

    fn note_asked(&self, asked: Moment) {
        let _ = self.asked.set(asked);
    }

    fn patience(&self) -> Moment {
        Moment::from_millis(self.patience.load(Ordering::Acquire))
    }

    /// Its callers hung up, or none ever came. A probe is wanted by itself.
    fn is_deserted(&self) -> bool {
        self.ask.probing != Probing::ByLogin && *self.callers.borrow() == 0
    }

    /// A caller that comes later finds it there until it has ended.
    async fn deserted(&self) {
        if self.ask.probing == Probing::ByLogin {
            return std::future::pending().await;
        }
        let mut callers = self.callers.subscribe();
        // The sender lives in self, so this cannot fail.
        let _ = callers.wait_for(|callers| *callers == 0).await;
    }
}

/// A caller that waits for a renewal, as long as this lives.
#[derive(Debug)]
#[must_use = "a renewal that no caller waits for does not log in"]
pub(crate) struct Waiter(Arc<Renewal>);

impl Waiter {
    /// Waits until then, unless it is dropped before.
    pub(crate) fn of(renewal: Arc<Renewal>, until: Moment) -> Waiter {
        renewal.callers.send_modify(|callers| *callers += 1);
        renewal.extend(until);
        Waiter(renewal)
    }
}

impl Deref for Waiter {
    type Target = Renewal;

    fn deref(&self) -> &Renewal {
        &self.0
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.callers.send_modify(|callers| *callers -= 1);
    }
}

/// All running renewals.
#[derive(Debug)]
pub(crate) struct Renewals {
    /// The first that asks makes an entry; the renewal's [`Completion`] removes it.
    running: DashMap<Principal, Arc<Renewal>>,
    /// How many renewals run and how many other tasks are under way; a shutdown waits until there are
    /// none.
    count: watch::Sender<usize>,
}

/// The running renewal of a principal.
#[derive(Debug)]
pub(crate) enum Running {
    /// It was running already.
    Joined(Arc<Renewal>),
    /// This call made it: the caller must run it and then drop the [`Completion`].
    Started(Arc<Renewal>, Completion),
}

impl Renewals {
    pub(crate) fn new() -> Arc<Renewals> {
        Arc::new(Renewals {
            running: DashMap::new(),
            count: watch::Sender::new(0),
        })
    }

    /// The running renewal of `principal`, or a new one for `ask`.
    pub(crate) fn join_or_start(self: &Arc<Self>, principal: &Principal, ask: Ask) -> Running {
        if let Some(renewal) = self.running.get(principal) {
            return Running::Joined(renewal.clone());
        }
        match self.running.entry(principal.clone()) {
            Entry::Occupied(renewal) => Running::Joined(renewal.get().clone()),
            Entry::Vacant(vacant) => {
                let renewal = Arc::new(Renewal {
                    principal: principal.clone(),
                    ask,
                    needed: Urgency::default(),
                    patience: AtomicU64::new(0),
                    callers: watch::Sender::new(0),
                    asked: OnceLock::new(),
                    starts_over: OnceLock::new(),
                    last_error: Mutex::new(None),
                    outcome: watch::Sender::new(None),
                });
                vacant.insert(renewal.clone());
                let completion = Completion {
                    under_way: self.under_way(),
                    renewal: renewal.clone(),
                    outcome: Ok(None),
                };
                Running::Started(renewal, completion)
            }
        }
    }

    /// For a task that is no renewal but must end before the process does as well.
    pub(crate) fn under_way(self: &Arc<Self>) -> UnderWay {
        self.count.send_modify(|count| *count += 1);
        UnderWay(self.clone())
    }

    /// Returns once nothing is under way.
    pub(crate) async fn all_ended(&self) {
        let mut count = self.count.subscribe();
        // The sender lives in self, so this cannot fail.
        let _ = count.wait_for(|count| *count == 0).await;
    }
}

/// Counts as under way until it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Renewals>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.count.send_modify(|count| *count -= 1);
    }
}

/// Ends a renewal when it is dropped, even in a panic, so that no caller waits for ever.
#[derive(Debug)]
pub(crate) struct Completion {
    under_way: UnderWay,
    renewal: Arc<Renewal>,
    /// What the callers that wait are given; after a panic `Ok(None)`, so that they start another.
    outcome: Outcome,
}

impl Completion {
    /// Ends the renewal with this outcome.
    pub(crate) fn with(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        // Out of the map first: a caller that comes now finds the published credentials or starts anew.
        self.under_way.0.running.remove(&self.renewal.principal);
        let outcome = std::mem::replace(&mut self.outcome, Ok(None));
        self.renewal.outcome.send_replace(Some(outcome));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Ask {
        Ask {
            instance: None,
            newer_than: None,
            trigger: Trigger::Missing,
            probing: Probing::No,
            reserve: Reserve::Open,
        }
    }

    #[tokio::test]
    async fn all_that_join_share_one_renewal_and_its_outcome() {
        let renewals = Renewals::new();
        let principal = Principal::Account("a".into());
        let Running::Started(_, completion) = renewals.join_or_start(&principal, ask()) else {
            panic!()
        };
        let Running::Joined(renewal) = renewals.join_or_start(&principal, ask()) else {
            panic!()
        };
        let waits = tokio::spawn(async move { renewal.ended().await });
        completion.with(Err(Error::Timeout));
        assert_eq!(waits.await.unwrap().unwrap_err(), Error::Timeout);
        assert!(matches!(
            renewals.join_or_start(&principal, ask()),
            Running::Started(..)
        ));
    }

    #[tokio::test]
    async fn a_renewal_that_panics_ends() {
        let renewals = Renewals::new();
        let principal = Principal::Account("a".into());
        let Running::Started(renewal, completion) = renewals.join_or_start(&principal, ask())
        else {
            panic!()
        };
        let runs = tokio::spawn(async move {
            let _completion = completion;
            panic!("on purpose");
        });
        assert!(renewal.ended().await.unwrap().is_none());
        assert!(runs.await.is_err());
        renewals.all_ended().await;
    }
}

//! The renewals now running: one a principal, shared by all who wait for it.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::watch;

use crate::clock::Moment;
use crate::credentials::guards::pace::Urgency;
use crate::credentials::{Credentials, Error};
use crate::metrics::Trigger;
use crate::principal::{InstanceId, Principal};
use crate::store::Generation;

/// How a flight ended. No credentials and no error: it stopped where only a login would have
/// helped, and nobody was waiting, or another process took over; a caller that waits starts another.
pub(crate) type Outcome = Result<Option<Arc<Credentials>>, Error>;

/// What a flight is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// The instance that the caller named.
    pub(crate) instance: Option<InstanceId>,
    /// Only a newer generation will do.
    pub(crate) newer_than: Option<Generation>,
    /// What asked.
    pub(crate) trigger: Trigger,
    /// Whether it is to show if the API works.
    pub(crate) probing: Probing,
}

/// Whether a flight is to show if the API works.
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
pub(crate) struct Flight {
    pub(crate) principal: Principal,
    pub(crate) ask: Ask,
    /// Raised once somebody waits who needs credentials; only then may it log in.
    pub(crate) needed: Urgency,
    /// Until when somebody waits, in milliseconds of the clock; grows as others join.
    patience: AtomicU64,
    /// How many callers wait now.
    callers: watch::Sender<usize>,
    /// When it asked for a login slot for the first time.
    pub(crate) asked: OnceLock<Moment>,
    /// Why there are no credentials yet: what those are told whose patience ends.
    trouble: Mutex<Option<Error>>,
    /// Empty while it flies.
    outcome: watch::Sender<Option<Outcome>>,
}

impl Flight {
    /// Somebody waits until then.
    pub(crate) fn extend(&self, until: Moment) {
        self.patience.fetch_max(until.as_millis(), Ordering::AcqRel);
        self.needed.raise();
    }

    /// Nobody waits for it any more: its callers hung up, or none ever came. A probe is wanted by
    /// itself.
    pub(crate) fn is_deserted(&self) -> bool {
        self.ask.probing != Probing::ByLogin && *self.callers.borrow() == 0
    }

    /// Returns once nobody waits for it. A caller that comes later finds it there until it has ended.
    pub(crate) async fn deserted(&self) {
        if self.ask.probing == Probing::ByLogin {
            return std::future::pending().await;
        }
        let mut callers = self.callers.subscribe();
        // The sender lives in self, so this cannot fail.
        let _ = callers.wait_for(|callers| *callers == 0).await;
    }

    /// Until when somebody waits.
    pub(crate) fn patience(&self) -> Moment {
        Moment::from_millis(self.patience.load(Ordering::Acquire))
    }

    /// Remembers why it takes so long.
    pub(crate) fn trouble(&self, error: Error) {
        *self.trouble.lock().expect("no code panics under this lock") = Some(error);
    }

    /// What to tell those whose patience ends.
    pub(crate) fn excuse(&self) -> Error {
        let trouble = self.trouble.lock().expect("no code panics under this lock");
        trouble.clone().unwrap_or(Error::WaitedTooLong)
    }

    /// Waits for the end, however it ends.
    pub(crate) async fn landed(&self) -> Outcome {
        let mut outcome = self.outcome.subscribe();
        let landed = outcome.wait_for(Option::is_some).await;
        match landed.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            Ok(None) | Err(_) => Ok(None),
        }
    }
}

/// A caller that waits for a flight, as long as this lives.
#[derive(Debug)]
#[must_use = "a flight that nobody waits for logs nobody in"]
pub(crate) struct Caller(Arc<Flight>);

impl Caller {
    /// Waits until then, unless it is dropped before.
    pub(crate) fn of(flight: Arc<Flight>, until: Moment) -> Caller {
        flight.callers.send_modify(|callers| *callers += 1);
        flight.extend(until);
        Caller(flight)
    }
}

impl Deref for Caller {
    type Target = Flight;

    fn deref(&self) -> &Flight {
        &self.0
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.callers.send_modify(|callers| *callers -= 1);
    }
}

/// All running renewals.
#[derive(Debug)]
pub(crate) struct Flights {
    running: DashMap<Principal, Arc<Flight>>,
    /// How many run, and what else is under way; those who shut down wait for none.
    count: watch::Sender<usize>,
}

/// The running flight of a principal.
#[derive(Debug)]
pub(crate) enum Boarded {
    /// Somebody else started it.
    Joined(Arc<Flight>),
    /// This call made it: the caller must fly it and then drop the [`Landing`].
    Started(Arc<Flight>, Landing),
}

impl Flights {
    pub(crate) fn new() -> Arc<Flights> {
        Arc::new(Flights {
            running: DashMap::new(),
            count: watch::Sender::new(0),
        })
    }

    /// The running flight of `principal`, or a new one for `ask`.
    pub(crate) fn board(self: &Arc<Self>, principal: &Principal, ask: Ask) -> Boarded {
        if let Some(flight) = self.running.get(principal) {
            return Boarded::Joined(flight.clone());
        }
        match self.running.entry(principal.clone()) {
            Entry::Occupied(flight) => Boarded::Joined(flight.get().clone()),
            Entry::Vacant(vacant) => {
                let flight = Arc::new(Flight {
                    principal: principal.clone(),
                    ask,
                    needed: Urgency::default(),
                    patience: AtomicU64::new(0),
                    callers: watch::Sender::new(0),
                    asked: OnceLock::new(),
                    trouble: Mutex::new(None),
                    outcome: watch::Sender::new(None),
                });
                vacant.insert(flight.clone());
                let landing = Landing {
                    under_way: self.under_way(),
                    flight: flight.clone(),
                    outcome: Ok(None),
                };
                Boarded::Started(flight, landing)
            }
        }
    }

    /// Something that is no flight and must end all the same before the process does.
    pub(crate) fn under_way(self: &Arc<Self>) -> UnderWay {
        self.count.send_modify(|count| *count += 1);
        UnderWay(self.clone())
    }

    /// Returns once nothing is under way.
    pub(crate) async fn all_landed(&self) {
        let mut count = self.count.subscribe();
        // The sender lives in self, so this cannot fail.
        let _ = count.wait_for(|count| *count == 0).await;
    }
}

/// Counts as under way until it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Flights>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.count.send_modify(|count| *count -= 1);
    }
}

/// Ends a flight when dropped, in a panic too, so that nobody waits for ever.
#[derive(Debug)]
pub(crate) struct Landing {
    under_way: UnderWay,
    flight: Arc<Flight>,
    /// What those who wait are told; after a panic, to start another.
    outcome: Outcome,
}

impl Landing {
    /// Ends the flight with this outcome.
    pub(crate) fn with(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        // Off the board first: a caller that comes now finds the published credentials or starts anew.
        self.under_way.0.running.remove(&self.flight.principal);
        let outcome = std::mem::replace(&mut self.outcome, Ok(None));
        self.flight.outcome.send_replace(Some(outcome));
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
        }
    }

    #[tokio::test]
    async fn all_who_board_share_one_flight_and_its_outcome() {
        let flights = Flights::new();
        let principal = Principal::Account("a".into());
        let Boarded::Started(_, landing) = flights.board(&principal, ask()) else {
            panic!()
        };
        let Boarded::Joined(flight) = flights.board(&principal, ask()) else {
            panic!()
        };
        let waits = tokio::spawn(async move { flight.landed().await });
        landing.with(Err(Error::Timeout));
        assert_eq!(waits.await.unwrap().unwrap_err(), Error::Timeout);
        assert!(matches!(
            flights.board(&principal, ask()),
            Boarded::Started(..)
        ));
    }

    #[tokio::test]
    async fn a_flight_that_panics_lands() {
        let flights = Flights::new();
        let principal = Principal::Account("a".into());
        let Boarded::Started(flight, landing) = flights.board(&principal, ask()) else {
            panic!()
        };
        let flies = tokio::spawn(async move {
            let _landing = landing;
            panic!("on purpose");
        });
        assert!(flight.landed().await.unwrap().is_none());
        assert!(flies.await.is_err());
        flights.all_landed().await;
    }
}

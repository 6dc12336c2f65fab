//! The thread that gives out turns: it takes a lease and reads, once that is taken, the entry that it
//! is for. Leases that are given back wait a little for others, so that nobody's renewal waits for
//! them.

use std::collections::HashSet;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rusqlite::Connection;

use super::entries;
use super::lane::{Job, Lane};
use super::leases::Leases;
use crate::principal::Principal;
use crate::store::{Entry, Error, Lease};

/// Within this time a lease that was given back is free for other processes, which look every
/// 50 ms.
const GIVEN_BACK_WITHIN: Duration = Duration::from_millis(10);

/// The thread, and what it is to do when it comes to it.
pub(super) struct Turns {
    lane: Lane<Job<Desk>>,
    given_back: GivenBack,
}

type GivenBack = Arc<Mutex<Vec<Principal>>>;

/// What the thread owns.
pub(super) struct Desk {
    leases: Leases,
    /// Of `tokens.db`, for reading.
    tokens: Connection,
    /// Leases of this run that it did not give back yet.
    held: HashSet<Principal>,
    given_back: GivenBack,
}

impl Turns {
    pub(super) fn start(leases: Leases, tokens: Connection) -> io::Result<Turns> {
        let given_back = GivenBack::default();
        let mut desk = Desk {
            leases,
            tokens,
            held: HashSet::new(),
            given_back: given_back.clone(),
        };
        let lane = Lane::start("store-leases", move |jobs| desk.work(&jobs))?;
        Ok(Turns { lane, given_back })
    }

    /// Takes or extends this run's lease on `principal`. Not for somebody who has gone: such a
    /// lease might be taken after it was given back.
    pub(super) async fn lease(
        &self,
        principal: &Principal,
        ttl: Duration,
    ) -> Result<io::Result<Lease>, Error> {
        let principal = principal.clone();
        self.lane
            .ask_while_wanted(move |desk| desk.lease(&principal, ttl))
            .await
    }

    /// The same, and the entry as it stands afterwards.
    #[allow(
        clippy::type_complexity,
        reason = "two outcomes, either of which may fail"
    )]
    pub(super) async fn lease_and_load(
        &self,
        principal: &Principal,
        ttl: Duration,
    ) -> Result<io::Result<(Lease, rusqlite::Result<Entry>)>, Error> {
        let principal = principal.clone();
        self.lane
            .ask_while_wanted(move |desk| {
                let lease = desk.lease(&principal, ttl)?;
                Ok((lease, entries::load(&desk.tokens, &principal)))
            })
            .await
    }

    /// Gives a lease back, before any later one is taken. Wakes nobody up.
    pub(super) fn give_back(&self, principal: &Principal) {
        locked(&self.given_back).push(principal.clone());
    }

    /// Finishes what was asked; frees what was given back.
    pub(super) fn close(&self) {
        self.lane.close();
    }
}

fn locked(given_back: &GivenBack) -> MutexGuard<'_, Vec<Principal>> {
    given_back.lock().expect("nothing panics under this lock")
}

impl Desk {
    fn work(&mut self, jobs: &Receiver<Job<Desk>>) {
        loop {
            // While it holds any, some will be given back; else nothing happens without a job.
            let job = match self.held.is_empty() {
                true => jobs.recv().map_err(RecvTimeoutError::from),
                false => jobs.recv_timeout(GIVEN_BACK_WITHIN),
            };
            match job {
                Ok(job) => job(self),
                Err(RecvTimeoutError::Timeout) => self.free(),
                Err(RecvTimeoutError::Disconnected) => return self.free(),
            }
        }
    }

    fn lease(&mut self, principal: &Principal, ttl: Duration) -> io::Result<Lease> {
        let given_back = std::mem::take(&mut *locked(&self.given_back));
        for principal in &given_back {
            self.held.remove(principal);
        }
        let lease = self.leases.lease(&given_back, principal, ttl)?;
        if lease != Lease::Held && !self.held.contains(principal) {
            self.held.insert(principal.clone());
        }
        Ok(lease)
    }

    fn free(&mut self) {
        let given_back = std::mem::take(&mut *locked(&self.given_back));
        if given_back.is_empty() {
            return;
        }
        if let Err(error) = self.leases.release(&given_back) {
            tracing::warn!(%error, "leases were not released: their ttl ends them");
        }
        for principal in &given_back {
            self.held.remove(principal);
        }
    }
}

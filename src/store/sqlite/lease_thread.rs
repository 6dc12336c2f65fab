//! The thread that takes leases, and then reads the entries that they are for. It drains its queue, so
//! that many leases at once are one transaction. Leases that are given back are freed together a little
//! later: no renewal waits for that.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::db_thread::DbThread;
use super::entries;
use super::health::Health;
use super::leases::Leases;
use super::schema;
use super::transaction::Transaction;
use crate::principal::Principal;
use crate::store::{Entry, Error, Lease};

/// Within this time a lease that was given back is free for other processes, which try again every
/// 50 ms.
const GIVEN_BACK_WITHIN: Duration = Duration::from_millis(10);
/// The most leases of one transaction: all of them are granted when the last one is.
const AT_ONCE: usize = 64;
/// How often leases that fail are tried while nobody asks for one.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// The thread, and the leases that it is to give back.
pub(super) struct LeaseThread {
    thread: DbThread<Request>,
    /// Filled by [`LeaseThread::give_back`], emptied by the thread before it takes the next lease. Beside
    /// the queue, because giving back neither waits for the thread nor wakes it up.
    given_back: GivenBack,
}

type GivenBack = Arc<Mutex<Vec<Principal>>>;

/// A lease that a renewal wants.
struct Request {
    principal: Principal,
    ttl: Duration,
    reply: Reply,
}

/// What a request wants to know, and the channel for it.
enum Reply {
    Lease(oneshot::Sender<Result<Lease, Error>>),
    /// The lease, and the entry as it stands once the lease is taken.
    WithEntry(oneshot::Sender<Result<LeaseAndEntry, Error>>),
}

type LeaseAndEntry = (Lease, rusqlite::Result<Entry>);

/// What the thread owns.
struct LeaseWorker {
    leases: Leases,
    /// Of `tokens.db`, for reading.
    tokens: Connection,
    given_back: GivenBack,
    /// Hears whether leases can be taken.
    health: Arc<Health>,
    /// When a lease was last tried and failed.
    tried: Instant,
}

impl LeaseThread {
    pub(super) fn start(
        leases: Leases,
        tokens: Connection,
        health: Arc<Health>,
    ) -> io::Result<LeaseThread> {
        let given_back = GivenBack::default();
        let mut worker = LeaseWorker {
            leases,
            tokens,
            given_back: given_back.clone(),
            health,
            tried: Instant::now(),
        };
        let thread = DbThread::start("store-leases", move |requests| worker.work(&requests))?;
        Ok(LeaseThread { thread, given_back })
    }

    /// Takes or extends this run's lease on `principal`. A request whose future was dropped is skipped:
    /// its lease might be taken after it was given back.
    pub(super) async fn lease(&self, principal: &Principal, ttl: Duration) -> Result<Lease, Error> {
        self.ask(principal, ttl, Reply::Lease).await
    }

    /// The same, and the entry as it stands afterwards.
    pub(super) async fn lease_and_load(
        &self,
        principal: &Principal,
        ttl: Duration,
    ) -> Result<LeaseAndEntry, Error> {
        self.ask(principal, ttl, Reply::WithEntry).await
    }

    /// Gives a lease back, before any later one is taken. Does not wake the thread up.
    pub(super) fn give_back(&self, principal: &Principal) {
        locked(&self.given_back).push(principal.clone());
    }

    /// Finishes what was asked; frees what was given back.
    pub(super) fn close(&self) {
        self.thread.close();
    }

    async fn ask<T>(
        &self,
        principal: &Principal,
        ttl: Duration,
        reply: fn(oneshot::Sender<Result<T, Error>>) -> Reply,
    ) -> Result<T, Error> {
        let (sender, replied) = oneshot::channel();
        self.thread.send(Request {
            principal: principal.clone(),
            ttl,
            reply: reply(sender),
        })?;
        replied.await.map_err(|_| Error::Closed)?
    }
}

fn locked(given_back: &GivenBack) -> MutexGuard<'_, Vec<Principal>> {
    given_back.lock().expect("no code panics under this lock")
}

impl Reply {
    /// Whether the caller still waits.
    fn is_wanted(&self) -> bool {
        match self {
            Reply::Lease(reply) => !reply.is_closed(),
            Reply::WithEntry(reply) => !reply.is_closed(),
        }
    }
}

impl LeaseWorker {
    fn work(&mut self, requests: &Receiver<Request>) {
        loop {
            // While this run holds leases, some will be given back; while leases fail, they are tried;
            // otherwise nothing happens without a request.
            let first = match (self.leases.holds_any(), self.health.leases_are_failing()) {
                (true, _) => requests.recv_timeout(GIVEN_BACK_WITHIN),
                (false, true) => requests.recv_timeout(PROBE_EVERY),
                (false, false) => requests.recv().map_err(RecvTimeoutError::from),
            };
            match first {
                Ok(first) => {
                    let more = requests.try_iter().take(AT_ONCE - 1);
                    self.serve(std::iter::once(first).chain(more).collect());
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.free();
                    self.leases.look();
                    self.probe();
                }
                Err(RecvTimeoutError::Disconnected) => return self.free(),
            }
        }
    }

    fn serve(&mut self, mut requests: Vec<Request>) {
        // In this order: a caller that gave its lease back no longer waits, and is not given it again.
        let given_back = std::mem::take(&mut *locked(&self.given_back));
        requests.retain(|request| request.reply.is_wanted());
        match self.lease(&given_back, &requests) {
            Ok(leased) => self.reply(requests, leased),
            Err(error) if requests.len() > 1 => {
                tracing::debug!(%error, "leases are taken one by one");
                locked(&self.given_back).extend(given_back);
                for request in requests {
                    self.serve(vec![request]);
                }
            }
            Err(error) => {
                for request in requests {
                    let refused = error.clone();
                    // The caller may have gone.
                    match request.reply {
                        Reply::Lease(reply) => drop(reply.send(Err(refused))),
                        Reply::WithEntry(reply) => drop(reply.send(Err(refused))),
                    }
                }
            }
        }
    }

    fn lease(
        &mut self,
        given_back: &[Principal],
        requests: &[Request],
    ) -> Result<Vec<Lease>, Error> {
        if given_back.is_empty() && requests.is_empty() {
            return Ok(Vec::new());
        }
        // No renewal is started whose pair could not be written.
        schema::expect_current(&self.tokens)
            .map_err(|error| Error::Unwritable(self.health.misread(error).to_string()))?;
        let wanted: Vec<_> = requests
            .iter()
            .map(|request| (&request.principal, request.ttl))
            .collect();
        match self.leases.lease(given_back, &wanted) {
            Ok(leased) => {
                self.health.leases_work();
                Ok(leased)
            }
            // They are then taken one by one, which shows which one fails.
            Err(error) if requests.len() > 1 => Err(Error::Unwritable(error.to_string())),
            Err(error) => {
                self.tried = Instant::now();
                Err(self.health.leases_failed(&error, !requests.is_empty()))
            }
        }
    }

    /// Tries leases that fail now and then: a process that is not ready gets no requests.
    fn probe(&mut self) {
        if !self.health.leases_are_failing() || self.tried.elapsed() < PROBE_EVERY {
            return;
        }
        self.tried = Instant::now();
        match self.leases.probe() {
            Ok(()) => self.health.leases_work(),
            Err(error) => drop(self.health.leases_failed(&error, false)),
        }
    }

    /// Reads the entries that are wanted, now that the leases are taken, and replies.
    fn reply(&self, requests: Vec<Request>, leased: Vec<Lease>) {
        // All of them may be read at the same moment, and one transaction is less work. If none can
        // begin, reading fails and says so.
        let _together = match requests.len() {
            0 | 1 => None,
            _ => Transaction::reading(&self.tokens).ok(),
        };
        for (request, lease) in requests.into_iter().zip(leased) {
            // The caller may have gone; the lease is given back, or ends by itself.
            match request.reply {
                Reply::Lease(reply) => drop(reply.send(Ok(lease))),
                Reply::WithEntry(reply) => {
                    let entry = entries::load(&self.tokens, &request.principal);
                    drop(reply.send(Ok((lease, entry))));
                }
            }
        }
    }

    fn free(&mut self) {
        let given_back = std::mem::take(&mut *locked(&self.given_back));
        if given_back.is_empty() {
            return;
        }
        if let Err(error) = self.leases.release(&given_back) {
            tracing::warn!(%error, "leases were not released; they end when their time to live is over");
        }
    }
}

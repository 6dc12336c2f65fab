//! The thread that takes leases, and then reads the entries that they are for. It drains its queue, so
//! that many leases at once are one transaction. Leases that are given back are freed together a little
//! later: no renewal waits for that.

use std::collections::HashSet;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::db_thread::{DbThread, Job};
use super::health::Health;
use super::leases::{Leases, Wanted, Wish};
use super::schema;
use super::tombstones;
use super::transaction::Transaction;
use crate::principal::Principal;
use crate::store::{Entry, Error, Lease, LeaseHolder, LeaseId, Pseudonyms};

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

type GivenBack = Arc<Mutex<Vec<(Principal, LeaseId)>>>;

/// What the thread is asked.
enum Request {
    /// For a lease.
    Lease(Wanted, Reply),
    /// For anything else that stands in their file.
    Other(Job<Leases>),
}

/// What the caller wants to know of its lease, and the channel for it.
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
    pseudonyms: Pseudonyms,
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
        pseudonyms: Pseudonyms,
        health: Arc<Health>,
    ) -> io::Result<LeaseThread> {
        let given_back = GivenBack::default();
        let mut worker = LeaseWorker {
            leases,
            tokens,
            pseudonyms,
            given_back: given_back.clone(),
            health,
            tried: Instant::now(),
        };
        let thread = DbThread::start("store-leases", move |requests| worker.work(&requests))?;
        Ok(LeaseThread { thread, given_back })
    }

    /// Takes a lease, or extends it, and reads the entry as it stands afterwards. A request whose future was
    /// dropped is skipped: its lease might be taken after it was given back.
    pub(super) async fn lease(
        &self,
        principal: &Principal,
        id: LeaseId,
        ttl: Duration,
    ) -> Result<LeaseAndEntry, Error> {
        let (sender, replied) = oneshot::channel();
        let wanted = wanted(principal, id, ttl, Wish::Take);
        self.thread
            .send(Request::Lease(wanted, Reply::WithEntry(sender)))?;
        replied.await.map_err(|_| Error::Closed)?
    }

    /// Extends a lease. Returns false if it is not held any more.
    pub(super) async fn extend(
        &self,
        principal: &Principal,
        id: LeaseId,
        ttl: Duration,
    ) -> Result<bool, Error> {
        let (sender, replied) = oneshot::channel();
        let wanted = wanted(principal, id, ttl, Wish::Extend);
        self.thread
            .send(Request::Lease(wanted, Reply::Lease(sender)))?;
        let lease = replied.await.map_err(|_| Error::Closed)??;
        Ok(matches!(lease, Lease::Granted { .. }))
    }

    /// Who holds the lease on `principal`.
    pub(super) async fn holder(&self, principal: &Principal) -> Result<Option<LeaseHolder>, Error> {
        let principal = principal.clone();
        let holder = self.ask(move |leases| leases.holder(&principal)).await?;
        holder.map_err(|error| Error::Unreadable(error.to_string()))
    }

    /// Whose due pairs are claimed.
    pub(super) async fn claimed(&self) -> Result<HashSet<Principal>, Error> {
        let claimed = self.ask(Leases::claimed).await?;
        claimed.map_err(|error| Error::Unreadable(error.to_string()))
    }

    /// Claims those of `due` that nobody has claimed, and returns them.
    pub(super) async fn claim(
        &self,
        due: Vec<Principal>,
        hold: Duration,
    ) -> Result<Vec<Principal>, Error> {
        let claimed = self.ask(move |leases| leases.claim(&due, hold)).await?;
        claimed.map_err(|error| Error::Unwritable(error.to_string()))
    }

    async fn ask<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Leases) -> R + Send + 'static,
    ) -> Result<R, Error> {
        let (sender, replied) = oneshot::channel();
        self.thread.send(Request::Other(Box::new(move |leases| {
            // The caller may have gone; the work is done all the same.
            let _ = sender.send(work(leases));
        })))?;
        replied.await.map_err(|_| Error::Closed)
    }

    /// Gives a lease back, before any later one is taken. Does not wake the thread up.
    pub(super) fn give_back(&self, principal: &Principal, id: LeaseId) {
        locked(&self.given_back).push((principal.clone(), id));
    }

    /// Finishes what was asked; frees what was given back.
    pub(super) fn close(&self) {
        self.thread.close();
    }
}

fn wanted(principal: &Principal, id: LeaseId, ttl: Duration, wish: Wish) -> Wanted {
    Wanted {
        principal: principal.clone(),
        id,
        ttl,
        wish,
    }
}

fn locked(given_back: &GivenBack) -> MutexGuard<'_, Vec<(Principal, LeaseId)>> {
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

    fn serve(&mut self, requests: Vec<Request>) {
        let (mut wanted, mut replies, mut others) = (Vec::new(), Vec::new(), Vec::new());
        // In this order: a caller that gave its lease back no longer waits, and is not given it again.
        let given_back = std::mem::take(&mut *locked(&self.given_back));
        for request in requests {
            match request {
                Request::Lease(_, reply) if !reply.is_wanted() => {}
                Request::Lease(one, reply) => {
                    wanted.push(one);
                    replies.push(reply);
                }
                Request::Other(other) => others.push(other),
            }
        }
        match self.lease(&given_back, &wanted) {
            Ok(leased) => self.reply(wanted, leased, replies),
            Err(error) if wanted.len() > 1 => {
                tracing::debug!(%error, "leases are taken one by one");
                locked(&self.given_back).extend(given_back);
                for (one, reply) in wanted.into_iter().zip(replies) {
                    self.serve(vec![Request::Lease(one, reply)]);
                }
            }
            Err(error) => {
                for reply in replies {
                    let refused = error.clone();
                    match reply {
                        Reply::Lease(reply) => drop(reply.send(Err(refused))),
                        Reply::WithEntry(reply) => drop(reply.send(Err(refused))),
                    }
                }
            }
        }
        // Last: no renewal waits for them.
        for other in others {
            other(&mut self.leases);
        }
    }

    fn lease(
        &mut self,
        given_back: &[(Principal, LeaseId)],
        wanted: &[Wanted],
    ) -> Result<Vec<Lease>, Error> {
        if given_back.is_empty() && wanted.is_empty() {
            return Ok(Vec::new());
        }
        // No renewal is started whose pair could not be written.
        schema::expect_current(&self.tokens)
            .map_err(|error| Error::Unwritable(self.health.misread(error).to_string()))?;
        match self.leases.lease(given_back, wanted) {
            Ok(leased) => {
                self.health.leases_work();
                Ok(leased)
            }
            // They are then taken one by one, which shows which one fails.
            Err(error) if wanted.len() > 1 => Err(Error::Unwritable(error.to_string())),
            Err(error) => {
                self.tried = Instant::now();
                Err(self.health.leases_failed(&error, !wanted.is_empty()))
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
    fn reply(&self, wanted: Vec<Wanted>, leased: Vec<Lease>, replies: Vec<Reply>) {
        // All of them may be read at the same moment, and one transaction is less work. If none can
        // begin, reading fails and says so.
        let _together = match wanted.len() {
            0 | 1 => None,
            _ => Transaction::reading(&self.tokens).ok(),
        };
        for ((one, lease), reply) in wanted.into_iter().zip(leased).zip(replies) {
            // The caller may have gone; the lease is given back, or ends by itself.
            match reply {
                Reply::Lease(reply) => drop(reply.send(Ok(lease))),
                Reply::WithEntry(reply) => {
                    let entry =
                        tombstones::standing(&self.tokens, &self.pseudonyms, &one.principal);
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

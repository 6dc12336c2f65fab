//! Pairs that the store did not acknowledge in time, in a file of this machine: a pair that was put here
//! is durable, although the store may be away. They stay until the store has them, or has later ones.
//!
//! The file is SQLite's, `outbox.db` in the folder that `path` names. Processes that run one after the
//! other, or beside each other during a rolling restart, may share it: each finds what the others put.
//! There is at most one pair of a principal: a later one takes the place of an earlier one. Knows
//! neither the server nor who sends what is kept here.

mod file;
mod glance;
mod look;
mod pairs;
mod refusal;
mod thread;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use self::file::OutboxFile;
use self::glance::Glance;
pub(super) use self::look::waiting_in;
pub(super) use self::refusal::Refusal;
use self::thread::{Request, Worker, Write};
use super::pending::Pending;
use crate::principal::Principal;
use crate::store::Error;
use crate::store::sqlite::db_thread::DbThread;
use crate::store::sqlite::folder;
use crate::store::sqlite::health::Health;

/// The pairs that wait for the store. Dropping it finishes the calls under way; what waits then is found
/// by the next process.
pub(super) struct Outbox {
    /// The only thread that reads and writes the file.
    thread: DbThread<Request>,
    /// Whether a pair could be put now. The thread reports what fails; the leases ask before a renewal.
    health: Arc<Health>,
    /// Whether the thread need not be asked. It says when it found the outbox empty.
    glance: Arc<Glance>,
    /// How many pairs wait. The thread counts after each write, and each second for other processes.
    waiting: watch::Receiver<u64>,
}

impl Outbox {
    /// Opens the outbox in the folder `path`; makes both if there are none. A damaged one is moved aside.
    /// Blocks.
    pub(super) fn open(path: &Path) -> Result<Outbox, Refusal> {
        folder::refuse(path)?;
        let refused = |error| Refusal::Unopened(path.to_owned(), error);
        folder::create(path).map_err(refused)?;
        let file = OutboxFile::open(path)?;
        let health = Arc::new(Health::of(path.to_owned()).named("the outbox"));
        let glance = Arc::new(Glance::at(file.log().to_owned()));
        let (count, waiting) = watch::channel(0);
        let mut worker = Worker::new(file, Arc::clone(&health), Arc::clone(&glance), count);
        worker.look();
        let work = move |queue| worker.run(&queue);
        let thread = DbThread::start("store-outbox", work).map_err(refused)?;
        Ok(Outbox {
            thread,
            health,
            glance,
            waiting,
        })
    }

    /// Keeps a pair, in the place of an earlier one of the same principal. Does nothing if a later one is
    /// there. Durable on return.
    pub(super) async fn put(&self, pending: Pending) -> Result<(), Error> {
        self.write(Write::Put(Box::new(pending))).await
    }

    /// Removes this very pair, which the store has, or has a later one of. Does nothing if another is there.
    pub(super) async fn remove(&self, pending: Pending) -> Result<(), Error> {
        self.write(Write::Remove(Box::new(pending))).await
    }

    /// Returns the pair of `principal` that waits, also if another process has just put it.
    pub(super) async fn find(&self, principal: &Principal) -> Result<Option<Pending>, Error> {
        if self.glance.is_empty() {
            return Ok(None);
        }
        let principal = principal.clone();
        self.ask(|answer| Request::Find(principal, answer)).await
    }

    /// Returns up to `limit` pairs in the order in which they were put, each with its place in it; the
    /// first of them after the place `after`, which is 0 at first.
    pub(super) async fn page(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<(i64, Pending)>, Error> {
        self.ask(|answer| Request::Page {
            after,
            limit,
            answer,
        })
        .await
    }

    /// How many pairs wait; those of other processes are counted each second.
    pub(super) fn waiting(&self) -> watch::Receiver<u64> {
        self.waiting.clone()
    }

    /// Whether a pair that is put now would be durable.
    pub(super) fn writable(&self) -> Result<(), Error> {
        self.health.check()
    }

    /// The same, asked for a renewal that is not started if it is not so.
    pub(super) fn admit(&self) -> Result<(), Error> {
        self.health.admit()
    }

    /// Finishes the calls under way; every later one returns [`Error::Closed`]. Blocks until then.
    pub(super) fn close(&self) {
        self.thread.close();
        self.health.close();
    }

    async fn write(&self, write: Write) -> Result<(), Error> {
        self.ask(|answer| Request::Write(write, answer)).await
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Request,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.thread.send(request(answer))?;
        answered.await.map_err(|_| Error::Closed)?
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests;

//! The one thread that reads and writes `outbox.db`. It drains its queue into one transaction, so that
//! many pairs at once cost few fsyncs, and answers when that transaction is durable.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::file::OutboxFile;
use super::glance::Glance;
use super::pairs;
use crate::principal::Principal;
use crate::store::Error;
use crate::store::postgres::pending::Pending;
use crate::store::sqlite::errors::is_damage;
use crate::store::sqlite::health::Health;
use crate::store::sqlite::transaction::Transaction;

/// How often the thread looks for what other processes put, and tries a medium that failed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is asked of the thread.
pub(super) enum Request {
    Write(Write, oneshot::Sender<Result<(), Error>>),
    Find(Principal, oneshot::Sender<Result<Option<Pending>, Error>>),
    Page {
        after: i64,
        limit: usize,
        answer: oneshot::Sender<Result<Vec<(i64, Pending)>, Error>>,
    },
}

/// A change of the file.
pub(super) enum Write {
    Put(Box<Pending>),
    Remove(Box<Pending>),
}

/// What the thread owns.
pub(super) struct Worker {
    file: OutboxFile,
    /// Where it reports what fails, and what works again.
    health: Arc<Health>,
    /// Where it says that nothing waits.
    glance: Arc<Glance>,
    /// How many pairs wait, for those who wait for them.
    waiting: watch::Sender<u64>,
    /// When it looked last.
    looked: Instant,
}

impl Write {
    fn run(&self, db: &Connection) -> rusqlite::Result<()> {
        match self {
            Write::Put(pending) => pairs::put(db, pending),
            Write::Remove(pending) => pairs::remove(db, pending),
        }
    }
}

impl Worker {
    pub(super) fn new(
        file: OutboxFile,
        health: Arc<Health>,
        glance: Arc<Glance>,
        waiting: watch::Sender<u64>,
    ) -> Worker {
        Worker {
            file,
            health,
            glance,
            waiting,
            looked: Instant::now(),
        }
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self, queue: &Receiver<Request>) {
        loop {
            match queue.recv_timeout(LOOK_EVERY.saturating_sub(self.looked.elapsed())) {
                Ok(first) => self.serve(std::iter::once(first).chain(queue.try_iter())),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.looked.elapsed() >= LOOK_EVERY {
                self.look();
            }
        }
    }

    /// Counts the pairs; tries a small write if the last one failed.
    pub(super) fn look(&mut self) {
        self.looked = Instant::now();
        if self.health.is_failing() && self.mended(pairs::probe).is_ok() {
            self.health.recovered();
        }
        self.count();
    }

    fn count(&mut self) {
        let before = self.glance.before_count();
        match self.mended(pairs::count) {
            Ok(found) => {
                self.glance.counted(before, found);
                self.waiting
                    .send_if_modified(|waiting| std::mem::replace(waiting, found) != found);
            }
            Err(error) => {
                self.glance.counted(None, 0);
                tracing::debug!(%error, "the outbox cannot be read");
            }
        }
    }

    fn serve(&mut self, requests: impl Iterator<Item = Request>) {
        let mut writes = Vec::new();
        let mut written = Vec::new();
        for request in requests {
            match request {
                Request::Write(write, answer) => {
                    writes.push(write);
                    written.push(answer);
                }
                // A read that came first may not see what is written with it: no caller was told yet.
                Request::Find(principal, answer) => {
                    let found = self.read(|db| pairs::find(db, &principal));
                    let _ = answer.send(found);
                }
                Request::Page {
                    after,
                    limit,
                    answer,
                } => {
                    let page = self.read(|db| pairs::page(db, after, limit));
                    let _ = answer.send(page);
                }
            }
        }
        if writes.is_empty() {
            return;
        }
        let durable = self.write(&writes);
        for answer in written {
            // The caller may have gone; the write stands all the same.
            let _ = answer.send(durable.clone());
        }
    }

    fn read<T>(&mut self, work: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        self.mended(work)
            .map_err(|error| Error::Unreadable(format!("outbox.db: {error}")))
    }

    /// Does all writes in one transaction.
    fn write(&mut self, writes: &[Write]) -> Result<(), Error> {
        let done = self.mended(|db| {
            let transaction = Transaction::writing(db)?;
            for write in writes {
                write.run(&transaction)?;
            }
            transaction.commit()
        });
        match done {
            Ok(()) => {
                self.count();
                if self.health.is_failing() {
                    self.health.recovered();
                }
                Ok(())
            }
            Err(error) => Err(self.health.failed(format!("outbox.db: {error}"))),
        }
    }

    /// Does `work` on the file that has the name; once more on a new one if it turns out to be damaged.
    fn mended<T>(
        &mut self,
        work: impl Fn(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        if !self.file.is_in_place() {
            self.file.reopen(None)?;
        }
        match work(self.file.db()) {
            Err(error) if is_damage(&error) => {
                self.file.reopen(Some(&error.to_string()))?;
                work(self.file.db())
            }
            done => done,
        }
    }
}

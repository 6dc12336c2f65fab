//! The one thread that writes `tokens.db`. It drains its queue into one transaction, so that a
//! thousand commits at once cost a few fsyncs, and answers when that transaction is durable.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::connections::empty_log;
use super::db_thread::DbThread;
use super::errors::is_damage;
use super::health::Health;
use super::lineage;
use super::schema;
use super::transaction::Transaction;
use crate::principal::Principal;
use crate::store::Error;

/// How often a medium that failed is tried again.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Writes by group commit.
pub(super) struct Writer {
    thread: DbThread<Box<dyn Write>>,
}

/// One write of a group: does its statements, and tells its caller once they are durable.
trait Write: Send {
    /// Does the statements; false if they failed and must be undone. May be called again once they were
    /// undone.
    fn run(&mut self, db: &Connection, health: &Health) -> bool;

    /// Tells the caller what came of it. `group` says whether the transaction became durable.
    fn finish(self: Box<Self>, group: Result<(), Error>);
}

/// A write that answers a `T`.
struct WriteRequest<T, F> {
    /// The only principal concerned; `None` if there are several, or none.
    principal: Option<Principal>,
    /// The statements.
    work: F,
    /// What they returned; [`Error::Closed`] until they have run.
    result: Result<T, Error>,
    answer: oneshot::Sender<Result<T, Error>>,
}

impl Writer {
    /// Takes over a connection with synchronous=FULL.
    pub(super) fn start(db: Connection, health: Arc<Health>) -> io::Result<Writer> {
        let thread = DbThread::start("store-writer", move |queue| write(db, &queue, &health))?;
        Ok(Writer { thread })
    }

    /// Does `work` in a transaction; durable on return. What was undone because another write of the
    /// same transaction failed is done again. A row that cannot be understood is an
    /// [`Error::Damaged`] if `principal` is given.
    pub(super) async fn ask<T, F>(&self, principal: Option<&Principal>, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.thread.send(Box::new(WriteRequest {
            principal: principal.cloned(),
            work,
            result: Err(Error::Closed),
            answer,
        }))?;
        answered.await.map_err(|_| Error::Closed)?
    }

    /// Finishes the queue, then checkpoints.
    pub(super) fn close(&self) {
        self.thread.close();
    }
}

impl<T, F> Write for WriteRequest<T, F>
where
    T: Send,
    F: FnMut(&Connection) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, db: &Connection, health: &Health) -> bool {
        let done = (self.work)(db).map_err(|e| health.misread(e));
        self.result = done.map_err(|e| match &self.principal {
            Some(principal) if is_damage(&e) => Error::Damaged(principal.clone()),
            None if is_damage(&e) => Error::Unreadable(e.to_string()),
            _ => health.failed(e.to_string()),
        });
        self.result.is_ok()
    }

    fn finish(self: Box<Self>, group: Result<(), Error>) {
        // The caller may have gone; the write stands all the same.
        let _ = self.answer.send(group.and(self.result));
    }
}

/// The thread: one group after the other, and a probe now and then while the medium fails.
fn write(db: Connection, queue: &Receiver<Box<dyn Write>>, health: &Health) {
    let mut probed = Instant::now();
    loop {
        let first = if health.is_failing() {
            queue.recv_timeout(PROBE_EVERY.saturating_sub(probed.elapsed()))
        } else {
            queue.recv().map_err(RecvTimeoutError::from)
        };
        match first {
            Ok(first) => {
                let mut group: Vec<_> = std::iter::once(first).chain(queue.try_iter()).collect();
                let durable = commit_in_place(&db, &mut group, health);
                for write in group {
                    write.finish(durable.clone());
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if health.is_failing() && probed.elapsed() >= PROBE_EVERY {
            probed = Instant::now();
            if probe(&db).is_ok() {
                health.recovered();
            }
        }
    }
    end(&db, health);
}

/// Leaves one whole file that can be copied; not needed for durability.
fn end(db: &Connection, health: &Health) {
    let emptied = match health.in_place() {
        Ok(()) => db.busy_timeout(Duration::ZERO).and_then(|()| empty_log(db)),
        // Closing must not touch the files that have these names now.
        Err(_) => db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true),
    };
    if let Err(error) = emptied {
        tracing::debug!(%error, "no checkpoint at the end");
    }
}

/// Runs a group in one transaction, on files that have kept their names until it was durable.
fn commit_in_place(
    db: &Connection,
    group: &mut [Box<dyn Write>],
    health: &Health,
) -> Result<(), Error> {
    health.in_place()?;
    commit(db, group, health)?;
    health.in_place()
}

/// Runs a group in one transaction.
fn commit(db: &Connection, group: &mut [Box<dyn Write>], health: &Health) -> Result<(), Error> {
    let failed = |e: rusqlite::Error| health.failed(e.to_string());
    // SQLite undid the whole transaction; what is written next would be durable by itself.
    let undone = || Err(health.failed("the transaction was undone".into()));
    let before = db.total_changes();
    let transaction = begin(db).map_err(failed)?;
    // Nearly always all succeed, and a savepoint for each would cost as much as the write.
    let all = group.iter_mut().all(|write| {
        let done = write.run(&transaction, health);
        done && !transaction.is_autocommit()
    });
    if transaction.is_autocommit() {
        return undone();
    }
    if all {
        end_group(transaction, before).map_err(failed)?;
        health.committed();
        return Ok(());
    }
    transaction.rollback().map_err(failed)?;
    if let [_] = group {
        // The write has its error, and was undone.
        return Ok(());
    }
    let transaction = begin(db).map_err(failed)?;
    for write in group {
        transaction
            .part(|db| write.run(db, health))
            .map_err(failed)?;
        if transaction.is_autocommit() {
            return undone();
        }
    }
    end_group(transaction, before).map_err(failed)?;
    health.committed();
    Ok(())
}

/// Begins a transaction, unless a newer version has migrated the tables: this one would not know what
/// it writes to.
fn begin(db: &Connection) -> rusqlite::Result<Transaction<'_>> {
    let transaction = Transaction::writing(db)?;
    schema::expect_current(&transaction)?;
    Ok(transaction)
}

/// Makes a transaction last that began when `before` rows had been changed. One that changed none
/// writes nothing down, and costs no fsync.
fn end_group(transaction: Transaction<'_>, before: u64) -> rusqlite::Result<()> {
    if transaction.total_changes() != before {
        lineage::follow(&transaction)?;
    }
    transaction.commit()
}

/// A small write that is durable when it works.
fn probe(db: &Connection) -> rusqlite::Result<()> {
    let before = db.total_changes();
    let transaction = begin(db)?;
    transaction.execute(
        "INSERT INTO meta (key, value) VALUES ('probe', randomblob(8))
         ON CONFLICT DO UPDATE SET value = excluded.value",
        [],
    )?;
    end_group(transaction, before)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database of this format with one table, which is none of a store's.
    fn written(path: &std::path::Path) -> Connection {
        let db = Connection::open(path).unwrap();
        db.execute_batch(
            "CREATE TABLE written (n);
             CREATE TABLE lineage (id, previous, current);",
        )
        .unwrap();
        db.pragma_update(None, "user_version", schema::FORMAT)
            .unwrap();
        db
    }

    #[tokio::test]
    async fn a_lone_write_that_fails_leaves_nothing_behind_and_the_next_one_works() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let db = written(&path);
        let writer = Writer::start(db, Arc::new(Health::of(directory.path().to_owned()))).unwrap();
        let failed = writer.ask(None, |db| {
            db.execute("INSERT INTO written VALUES (1)", [])?;
            Err::<(), _>(rusqlite::Error::InvalidQuery)
        });
        let failed = failed.await;
        assert!(matches!(failed, Err(Error::Unwritable(_))), "{failed:?}");
        let next = writer.ask(None, |db| db.execute("INSERT INTO written VALUES (2)", []));
        assert_eq!(next.await, Ok(1));
        let written: i64 = Connection::open(&path)
            .unwrap()
            .query_row("SELECT sum(n) FROM written", [], |row| row.get(0))
            .unwrap();
        assert_eq!(written, 2);
    }

    #[tokio::test]
    async fn a_write_that_changes_nothing_writes_nothing_down() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let db = written(&path);
        db.execute(
            "INSERT INTO lineage VALUES (1, zeroblob(8), zeroblob(8))",
            [],
        )
        .unwrap();
        let writer = Writer::start(db, Arc::new(Health::of(directory.path().to_owned()))).unwrap();
        let looking = Connection::open(&path).unwrap();
        let current = || -> Vec<u8> {
            looking
                .query_row("SELECT current FROM lineage", [], |row| row.get(0))
                .unwrap()
        };
        let refused = writer.ask(None, |db| db.execute("DELETE FROM written", []));
        assert_eq!(refused.await, Ok(0));
        assert_eq!(current(), [0; 8]);
        let changed = writer.ask(None, |db| db.execute("INSERT INTO written VALUES (1)", []));
        assert_eq!(changed.await, Ok(1));
        assert_ne!(current(), [0; 8]);
    }

    /// Asks for `others` while the writer is busy, so that they are one group.
    async fn at_once<T>(writer: &Writer, others: impl Future<Output = T>) -> T {
        let (started, busy) = oneshot::channel();
        let mut started = Some(started);
        let (all_queued, wait) = std::sync::mpsc::channel();
        let first = writer.ask(None, move |_| {
            let _ = started.take().map(|started| started.send(()));
            wait.recv().map_err(|_| rusqlite::Error::InvalidQuery)
        });
        let others = async {
            busy.await.unwrap();
            tokio::join!(others, async { all_queued.send(()).unwrap() }).0
        };
        let (first, others) = tokio::join!(first, others);
        assert_eq!(first, Ok(()));
        others
    }

    #[tokio::test]
    async fn a_failed_write_of_a_group_is_undone_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let db = written(&path);
        let health = Arc::new(Health::of(directory.path().to_owned()));
        let writer = Writer::start(db, health.clone()).unwrap();
        let insert = |n: i64| {
            writer.ask(None, move |db| {
                db.execute("INSERT INTO written VALUES (?1)", [n])
            })
        };
        let fails = writer.ask(None, |db| {
            db.execute("INSERT INTO written VALUES (10)", [])?;
            Err::<(), _>(rusqlite::Error::InvalidQuery)
        });
        let group = async { tokio::join!(insert(1), fails, insert(2)) };
        let (before, failed, after) = at_once(&writer, group).await;
        assert_eq!((before, after), (Ok(1), Ok(1)));
        assert!(matches!(failed, Err(Error::Unwritable(_))), "{failed:?}");
        // The busy one, and all that succeeded of the group.
        assert_eq!(health.transactions(), 2);
        let written: i64 = Connection::open(&path)
            .unwrap()
            .query_row("SELECT sum(n) FROM written", [], |row| row.get(0))
            .unwrap();
        assert_eq!(written, 3);
    }

    #[tokio::test]
    async fn a_group_that_sqlite_undid_is_acknowledged_to_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let db = written(&path);
        let health = Arc::new(Health::of(directory.path().to_owned()));
        let writer = Writer::start(db, health).unwrap();
        let insert = |n: i64| {
            writer.ask(None, move |db| {
                db.execute("INSERT INTO written VALUES (?1)", [n])
            })
        };
        let group = async {
            tokio::join!(
                insert(1),
                writer.ask(None, |db| db.execute_batch("ROLLBACK")),
                insert(2),
            )
        };
        let (before, undone, after) = at_once(&writer, group).await;
        assert!(matches!(before, Err(Error::Unwritable(_))), "{before:?}");
        assert!(matches!(undone, Err(Error::Unwritable(_))), "{undone:?}");
        assert!(matches!(after, Err(Error::Unwritable(_))), "{after:?}");
        let written: i64 = Connection::open(&path)
            .unwrap()
            .query_row("SELECT count(*) FROM written", [], |row| row.get(0))
            .unwrap();
        assert_eq!(written, 0);
    }
}

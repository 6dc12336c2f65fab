//! The thread that looks after the files of an open store: whether the open files still have their
//! names, whether the lock file is there that says that this run lives, and whether the write-ahead log
//! can be emptied.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use tokio::time::Instant;

use super::connections;
use super::db_thread::DbThread;
use super::health::Health;
use super::owners::Alive;
use crate::telemetry::episode::Episode;

/// How often it looks: that takes a few calls of stat(2).
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The log is emptied once it has not been written to for this long. A log is worth little as a copy:
/// one bad page of it loses everything that was committed after that page.
const QUIET: Duration = Duration::from_secs(1);

/// The thread.
pub(super) struct Watch {
    thread: DbThread<()>,
}

/// What the thread owns.
struct Watcher {
    /// For checkpoints: never waits for a lock.
    db: Connection,
    /// Knows the files, and hears about free space.
    health: Arc<Health>,
    /// This run's lock file. Shared with the engine, which drops it when the store is closed.
    alive: Arc<Mutex<Alive>>,
    /// Lasts while the lock file cannot be made anew.
    locking: Episode,
    /// The write-ahead log when this thread last looked.
    log: LogState,
}

/// What the log looked like, and since when.
struct LogState {
    seen: Option<(u64, SystemTime)>,
    since: Instant,
}

impl Watch {
    /// Takes over a connection of its own.
    pub(super) fn start(
        db: Connection,
        health: Arc<Health>,
        alive: Arc<Mutex<Alive>>,
    ) -> io::Result<Watch> {
        db.busy_timeout(Duration::ZERO).map_err(io::Error::other)?;
        let mut watcher = Watcher {
            db,
            health,
            alive,
            locking: Episode::new(),
            log: LogState {
                seen: None,
                since: Instant::now(),
            },
        };
        let thread = DbThread::start("store-watch", move |closed: Receiver<()>| {
            while closed.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                watcher.look();
            }
        })?;
        Ok(Watch { thread })
    }

    pub(super) fn close(&self) {
        self.thread.close();
    }
}

impl Watcher {
    fn look(&mut self) {
        // Logs too little space, and its end, also while no call comes.
        let _ = self.health.check();
        if self.health.in_place().is_err() {
            return;
        }
        let renewed = self
            .alive
            .lock()
            .expect("no code panics under this lock")
            .renew();
        match renewed {
            Ok(false) => self.lock_works(),
            Ok(true) => tracing::warn!(
                "owners/ was removed, or this run's lock file in it: both are made anew; other \
                 processes wait for the leases of a run without one until they end"
            ),
            Err(error) => {
                if self.locking.failed() {
                    tracing::warn!(%error, "the lock file in owners/ cannot be created again");
                }
            }
        }
        if self.log.is_quiet(&self.health) && !self.health.is_damaged() {
            self.empty_log();
        }
    }

    fn lock_works(&self) {
        if let Some(over) = self.locking.worked() {
            let seconds = over.seconds();
            tracing::warn!(seconds, "the lock file in owners/ is in its place again");
        }
    }

    /// Moves what the log holds into `tokens.db`, unless another process is using it.
    fn empty_log(&mut self) {
        let Ok(Some(_lock)) = self.health.try_lock() else {
            return;
        };
        match connections::empty_log(&self.db) {
            Ok(true) => tracing::debug!("the write-ahead log is empty"),
            Ok(false) => tracing::debug!("the write-ahead log is in use"),
            Err(error) => tracing::debug!(%error, "no checkpoint"),
        }
    }
}

impl LogState {
    /// Whether the log holds something and has not changed for [`QUIET`]. Says so once in that time.
    fn is_quiet(&mut self, health: &Health) -> bool {
        let seen = health.log_state().filter(|(length, _)| *length > 0);
        if seen != self.seen {
            (self.seen, self.since) = (seen, Instant::now());
            return false;
        }
        let quiet = seen.is_some() && self.since.elapsed() >= QUIET;
        if quiet {
            self.since = Instant::now();
        }
        quiet
    }
}

//! Watches `tokens.db` for commits of any process, this one included.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::db_thread::DbThread;
use super::entries;
use super::health::Health;
use crate::store::Change;
use crate::telemetry::episode::Episode;

/// How often the file is looked at. Most looks compare one number in shared memory.
const POLL_EVERY: Duration = Duration::from_millis(200);

/// The thread that watches.
pub(super) struct Changes {
    /// A job means: look at once.
    thread: DbThread<()>,
    /// The receiver's end; `None` if there is no receiver. The thread sends under this lock, so that a new
    /// receiver misses nothing that is committed after it came.
    to: Arc<Mutex<Option<UnboundedSender<Change>>>>,
}

impl Changes {
    /// Watches from the state that `db` sees now.
    pub(super) fn start(db: Connection, health: Arc<Health>) -> io::Result<Changes> {
        let to = Arc::new(Mutex::new(None));
        let told = Arc::clone(&to);
        let mut seen = entries::newest_seq(&db).map_err(io::Error::other)?;
        let thread = DbThread::start("store-changes", move |look: Receiver<()>| {
            let (mut version, unread) = (None, Episode::new());
            while look.recv_timeout(POLL_EVERY) != Err(RecvTimeoutError::Disconnected) {
                match poll(&db, &mut version, &mut seen, &told) {
                    Err(error) => {
                        let error = health.misread(error);
                        if unread.failed() {
                            tracing::warn!(%error, "changes of the store cannot be read");
                        }
                    }
                    Ok(_) => {
                        if let Some(over) = unread.worked() {
                            let seconds = over.seconds();
                            tracing::warn!(seconds, "changes of the store can be read again");
                        }
                    }
                }
            }
            // Ends the receiver's stream.
            *told.lock().expect("no code panics under this lock") = None;
        })?;
        Ok(Changes { thread, to })
    }

    /// Returns a receiver that is told from now on. Ends the stream of the one before it.
    pub(super) fn subscribe(&self) -> UnboundedReceiver<Change> {
        let (sender, receiver) = unbounded_channel();
        *self.to.lock().expect("no code panics under this lock") = Some(sender);
        if self.thread.send(()).is_err() {
            // Closed: the thread is gone, and cannot end the stream.
            *self.to.lock().expect("no code panics under this lock") = None;
        }
        receiver
    }

    pub(super) fn close(&self) {
        self.thread.close();
    }
}

fn poll(
    db: &Connection,
    version: &mut Option<i64>,
    seen: &mut i64,
    to: &Mutex<Option<UnboundedSender<Change>>>,
) -> rusqlite::Result<()> {
    let current: i64 = db
        .prepare_cached("PRAGMA data_version")?
        .query_row([], |row| row.get(0))?;
    if *version == Some(current) {
        return Ok(());
    }
    let (changes, newest) = entries::changed_since(db, *seen)?;
    if let Some(to) = &*to.lock().expect("no code panics under this lock") {
        for change in changes {
            // A receiver that went away wants no changes.
            let _ = to.send(change);
        }
    }
    (*version, *seen) = (Some(current), newest);
    Ok(())
}

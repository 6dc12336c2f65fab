//! Checks a large `tokens.db` as a whole while it is used: a check before would hold up the first answer
//! for seconds. Until it ends, damage shows as an error of the read that meets it.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, InterruptHandle};

use super::errors::is_damage;
use super::files::finding;
use super::health::Health;

/// The lowest priority there is: requests come first.
const NICE: i32 = 19;
/// When the check begins: after the first answers.
const BEGINS_AFTER: Duration = Duration::from_secs(1);
/// How often a check that is to end is interrupted.
const INTERRUPT_EVERY: Duration = Duration::from_millis(1);

/// The thread that checks.
pub(super) struct Integrity {
    interrupt: InterruptHandle,
    /// What ends the thread's wait when it is dropped, and the thread; `None` once closed.
    open: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

impl Integrity {
    /// Reads all that `db` sees a second from now, and reports to `health` what it finds. While it
    /// reads, the write-ahead log cannot start over.
    pub(super) fn start(db: Connection, health: Arc<Health>) -> io::Result<Integrity> {
        let interrupt = db.get_interrupt_handle();
        let (open, closed) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("store-check".to_owned())
            .spawn(move || check(&db, &health, &closed))?;
        Ok(Integrity {
            interrupt,
            open: Mutex::new(Some((open, thread))),
        })
    }

    /// Ends the check, finished or not. Does nothing the second time.
    pub(super) fn close(&self) {
        let open = self
            .open
            .lock()
            .expect("no code panics under this lock")
            .take();
        let Some((open, thread)) = open else { return };
        drop(open);
        while !thread.is_finished() {
            // An interrupt before the statement runs has no effect: hence again and again.
            self.interrupt.interrupt();
            thread::sleep(INTERRUPT_EVERY);
        }
        // The panic hook has reported a panic of the thread.
        let _ = thread.join();
    }
}

fn check(db: &Connection, health: &Health, closed: &Receiver<()>) {
    if closed.recv_timeout(BEGINS_AFTER) == Err(RecvTimeoutError::Disconnected) {
        return;
    }
    // On Linux this is the calling thread's own priority. Without it the check is only less kind.
    let _ = rustix::process::setpriority_process(None, NICE);
    match finding(db) {
        Ok(None) => tracing::debug!("the store is whole"),
        Ok(Some(why)) => health.damaged(why),
        Err(error) if is_damage(&error) => health.damaged(error.to_string()),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {}
        Err(error) => tracing::warn!(%error, "the check of the whole store failed"),
    }
}

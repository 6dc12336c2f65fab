//! Checks a large `tokens.db` as a whole while it is used: before, it would hold up the first
//! answer for seconds. Until the check ends damage shows where it is read, as an error of that
//! read.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, InterruptHandle};

use super::health::Health;
use super::is_damage;

/// The lowest priority there is: requests come first.
const NICE: i32 = 19;
/// How often a check that is to end is told so.
const INTERRUPT_EVERY: Duration = Duration::from_millis(1);

/// The thread that checks.
pub(super) struct Integrity {
    interrupt: InterruptHandle,
    /// None once closed.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Integrity {
    /// Starts to read all that `db` sees now, and reports to `health` what it finds. Meanwhile the
    /// write-ahead log cannot start over.
    pub(super) fn start(db: Connection, health: Arc<Health>) -> io::Result<Integrity> {
        let interrupt = db.get_interrupt_handle();
        let thread = thread::Builder::new()
            .name("store-check".to_owned())
            .spawn(move || check(&db, &health))?;
        Ok(Integrity {
            interrupt,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Ends the check where it stands. Does nothing the second time.
    pub(super) fn close(&self) {
        let thread = self
            .thread
            .lock()
            .expect("nothing panics under this lock")
            .take();
        let Some(thread) = thread else { return };
        while !thread.is_finished() {
            // Not heard before the statement runs: hence again.
            self.interrupt.interrupt();
            thread::sleep(INTERRUPT_EVERY);
        }
        // A panic of the thread was reported by the panic hook.
        let _ = thread.join();
    }
}

fn check(db: &Connection, health: &Health) {
    // On Linux this is the calling thread's own priority. Without it the check is only less kind.
    let _ = rustix::process::setpriority_process(None, NICE);
    match finding(db) {
        Ok(None) => tracing::debug!("the store is whole"),
        Ok(Some(why)) => health.damaged(why),
        Err(error) if is_damage(&error) => health.damaged(error.to_string()),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {}
        Err(error) => tracing::warn!(%error, "the store could not be checked as a whole"),
    }
}

/// What is wrong with a database, if anything.
pub(super) fn finding(db: &Connection) -> rusqlite::Result<Option<String>> {
    let finding: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok((finding != "ok").then_some(finding))
}

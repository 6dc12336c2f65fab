//! Whether an outbox is empty, as far as can be told without asking the thread that reads it: what is put
//! there is written to the log beside the file. Nearly always nothing waits, and each load and each lease
//! asks.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

/// A file that is changed twice within this time may look the same after the second change as after the
/// first: kernels stamp by ticks of a few milliseconds.
const TICK: Duration = Duration::from_millis(20);

/// Compares the log with what it was when the outbox was found empty.
pub(super) struct Glance {
    log: PathBuf,
    /// The log as it was then; `None` if something waits, or if that cannot be told.
    empty: Mutex<Option<LogState>>,
}

/// What a write changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogState {
    /// Device and inode.
    file: (u64, u64),
    length: u64,
    modified: SystemTime,
}

impl Glance {
    pub(super) fn at(log: PathBuf) -> Glance {
        Glance {
            log,
            empty: Mutex::new(None),
        }
    }

    /// Whether certainly nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        let empty = *self.empty.lock().expect("no code panics under this lock");
        empty.is_some() && empty == LogState::of(&self.log)
    }

    /// The log as it is now, to be taken before the pairs are counted; `None` if a write that follows
    /// might not show.
    pub(super) fn before_count(&self) -> Option<LogState> {
        let state = LogState::of(&self.log)?;
        let age = SystemTime::now().duration_since(state.modified);
        age.is_ok_and(|age| age > TICK).then_some(state)
    }

    /// How many pairs were counted, after the log was seen like this.
    pub(super) fn counted(&self, before: Option<LogState>, waiting: u64) {
        let mut empty = self.empty.lock().expect("no code panics under this lock");
        *empty = before.filter(|_| waiting == 0);
    }
}

impl LogState {
    fn of(log: &Path) -> Option<LogState> {
        let found = fs::metadata(log).ok()?;
        Some(LogState {
            file: (found.dev(), found.ino()),
            length: found.len(),
            modified: found.modified().ok()?,
        })
    }
}

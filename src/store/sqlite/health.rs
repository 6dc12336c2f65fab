//! Whether a write would be durable now. The threads report what failed and what works again; free
//! space is looked up before a renewal starts, because a token that was rotated but cannot be stored is
//! lost.
//!
//! ```text
//!                        failed()
//!   writable ─────────────────────────────▶ failing ──▶ recovered(): writable
//!      │  ▲                                    (the writer tries a small write each second)
//!      │  │ enough space, files in place
//!      │  └──────────────────────────────┐
//!      ├─ too little space, files moved ─▶ refused for as long as that lasts
//!      ├─ damaged() ──▶ damaged: until the process ends
//!      └─ close()   ──▶ closed
//! ```

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, SystemTime};

use rustix::fs::StatVfsMountFlags;
use tokio::time::Instant;

use super::errors::is_file_damage;
use super::files;
use super::open_files::OpenFiles;
use crate::store::Error;
use crate::telemetry::episode::Episode;

/// Below this many free bytes no write is started: room for a full write-ahead log.
const MIN_FREE: u64 = 8 * 1024 * 1024;
/// For how long a finding about free space holds.
const SPACE_HOLDS: Duration = Duration::from_millis(100);

/// The state of the medium under a store. Every thread of the engine has it; each value has a lock of
/// its own, so that a thread that reports never waits for one that looks at the filesystem.
#[derive(Debug)]
pub(in crate::store) struct Health {
    /// What is said to be written, in log lines.
    name: &'static str,
    /// The store's folder.
    path: PathBuf,
    /// Why the last write failed; `None` once one works again. The writer sets it, all others read it.
    failure: Mutex<Option<String>>,
    /// Why the last lease could not be taken; `None` once one can be taken again. The lease thread sets
    /// it. Apart from `failure`, because a write that works says nothing about `leases.db`.
    lease_failure: Mutex<Option<String>>,
    /// The files that are open; `None` in tests that have no store.
    held: Option<OpenFiles>,
    /// Lasts while one of these files is removed or replaced, so that this is logged once.
    misplaced: Episode,
    /// Lasts while writes fail, or would.
    unwritable: Episode,
    /// Lasts while leases cannot be taken.
    unleased: Episode,
    /// Set once the files are closed.
    closed: AtomicBool,
    /// What is wrong with the file, once damage was found; no write makes that good again.
    damage: OnceLock<String>,
    /// What was found about free space, and when: every lease asks, and statvfs(2) may wait for a disk.
    space: Mutex<Option<(Instant, Result<(), Error>)>>,
    /// How many transactions became durable, for tests of group commit.
    transactions: AtomicU64,
}

impl Health {
    pub(in crate::store) fn of(path: PathBuf) -> Health {
        Health {
            name: "the store",
            path,
            failure: Mutex::new(None),
            lease_failure: Mutex::new(None),
            held: None,
            misplaced: Episode::new(),
            unwritable: Episode::new(),
            unleased: Episode::new(),
            closed: AtomicBool::new(false),
            damage: OnceLock::new(),
            space: Mutex::new(None),
            transactions: AtomicU64::new(0),
        }
    }

    /// The same for another file than a store's.
    pub(in crate::store) fn named(mut self, name: &'static str) -> Health {
        self.name = name;
        self
    }

    /// The same for a store that has these files open.
    pub(super) fn watching(mut self, held: OpenFiles) -> Health {
        self.held = Some(held);
        self
    }

    /// Refuses with [`Error::Unwritable`] while a file that is open was removed or replaced: what
    /// is written to it would be gone with this process.
    pub(super) fn in_place(&self) -> Result<(), Error> {
        let Some(path) = self.held.as_ref().and_then(OpenFiles::moved) else {
            if let Some(over) = self.misplaced.worked() {
                let (seconds, hurt) = (over.seconds(), over.hurt);
                tracing::warn!(seconds, hurt, "the store's files are back in their place");
            }
            return Ok(());
        };
        let why = format!(
            "{} was removed or replaced while it was open: put the same file back, or stop every \
             process that uses it and start again",
            path.display()
        );
        if self.misplaced.found_failing() {
            tracing::error!(%why, "the store's files are not in their place: no renewal is started");
        }
        Err(Error::Unwritable(why))
    }

    /// Length and last change of the write-ahead log; `None` if there is none.
    pub(super) fn log_state(&self) -> Option<(u64, SystemTime)> {
        let found = fs::metadata(self.held.as_ref()?.log()).ok()?;
        Some((found.len(), found.modified().ok()?))
    }

    /// The lock for opening the store, if it is free now.
    pub(super) fn try_lock(&self) -> io::Result<Option<File>> {
        files::try_lock(&self.path)
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.damage.get().is_some()
    }

    /// Refuses a renewal with [`Error::Unwritable`] while a write could not be made durable. If only
    /// leases fail, the next one is tried all the same.
    pub(in crate::store) fn admit(&self) -> Result<(), Error> {
        self.medium().inspect_err(|_| {
            // What is wrong was logged when it was found.
            let hurt = [&self.misplaced, &self.unwritable];
            for episode in hurt.into_iter().filter(|episode| episode.is_failing()) {
                let _ = episode.failed();
            }
        })
    }

    /// An [`Error::Unwritable`] while a write could not be made durable, or no lease can be taken.
    pub(in crate::store) fn check(&self) -> Result<(), Error> {
        self.medium()?;
        match &*locked(&self.lease_failure) {
            Some(why) => Err(Error::Unwritable(why.clone())),
            None => Ok(()),
        }
    }

    fn medium(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::Closed);
        }
        if let Some(why) = self.damage.get() {
            return Err(Error::Unwritable(why.clone()));
        }
        if let Some(why) = &*locked(&self.failure) {
            return Err(Error::Unwritable(why.clone()));
        }
        self.in_place()?;
        let mut space = self.space.lock().expect("no code panics under this lock");
        match &*space {
            Some((at, found)) if at.elapsed() < SPACE_HOLDS => found.clone(),
            _ => {
                let found = self.space_left();
                match &found {
                    Ok(()) => self.works(),
                    Err(why) => self.fails(self.unwritable.found_failing(), why),
                }
                let found = found.map_err(Error::Unwritable);
                *space = Some((Instant::now(), found.clone()));
                found
            }
        }
    }

    /// The files are closed.
    pub(in crate::store) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Says that a write failed. Returns the reason as an error.
    pub(in crate::store) fn failed(&self, why: String) -> Error {
        let mut failure = locked(&self.failure);
        self.fails(self.unwritable.failed(), &why);
        *failure = Some(why.clone());
        Error::Unwritable(why)
    }

    fn fails(&self, is_news: bool, why: &str) {
        if is_news {
            let name = self.name;
            tracing::error!(why, "{name} cannot be written: no renewal is started");
        }
    }

    fn works(&self) {
        if let Some(over) = self.unwritable.worked() {
            let (seconds, hurt) = (over.seconds(), over.hurt);
            let name = self.name;
            tracing::warn!(seconds, hurt, "{name} can be written again");
        }
    }

    /// Says that no lease could be taken, and whether a renewal wanted one. Returns the reason as an error.
    pub(super) fn leases_failed(&self, error: &io::Error, hurts: bool) -> Error {
        let why = format!("leases.db: {error}");
        let mut failure = locked(&self.lease_failure);
        let is_news = match hurts {
            true => self.unleased.failed(),
            false => self.unleased.found_failing(),
        };
        if is_news {
            tracing::error!(why, "leases cannot be taken: renewals fail");
        }
        *failure = Some(why.clone());
        Error::Unwritable(why)
    }

    /// Says that a lease was taken, or could be.
    pub(super) fn leases_work(&self) {
        // Only the lease thread says so: what it said last stands.
        if !self.unleased.is_failing() {
            return;
        }
        *locked(&self.lease_failure) = None;
        if let Some(over) = self.unleased.worked() {
            let (seconds, hurt) = (over.seconds(), over.hurt);
            tracing::warn!(seconds, hurt, "leases can be taken again");
        }
    }

    pub(super) fn leases_are_failing(&self) -> bool {
        self.unleased.is_failing()
    }

    /// Says that the file is damaged: what is still readable is served, and nothing is renewed.
    pub(super) fn damaged(&self, why: String) {
        let first = self.damage.set(format!(
            "it is damaged ({why}): stop every process that uses it and restore it from a backup"
        ));
        if let (Ok(()), Some(why)) = (first, self.damage.get()) {
            tracing::error!(%why, "the store cannot be trusted: no renewal is started");
        }
    }

    /// Says that a read failed. If SQLite blames the file, all of it counts as damaged; an error of one
    /// row does not. Returns the error.
    pub(super) fn misread(&self, error: rusqlite::Error) -> rusqlite::Error {
        // If files were replaced, their names are what is wrong.
        if is_file_damage(&error) && self.in_place().is_ok() {
            self.damaged(error.to_string());
        }
        error
    }

    /// Says that a write works again.
    pub(in crate::store) fn recovered(&self) {
        *locked(&self.failure) = None;
        // There may still be too little space: the next look finds out.
        *self.space.lock().expect("no code panics under this lock") = None;
        let _ = self.check();
    }

    pub(in crate::store) fn is_failing(&self) -> bool {
        locked(&self.failure).is_some()
    }

    /// Says that a transaction became durable.
    pub(super) fn committed(&self) {
        self.transactions.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn transactions(&self) -> u64 {
        self.transactions.load(Ordering::Relaxed)
    }

    fn space_left(&self) -> Result<(), String> {
        let found = rustix::fs::statvfs(&self.path).map_err(|e| e.to_string())?;
        let read_only = found.f_flag.contains(StatVfsMountFlags::RDONLY);
        enough(found.f_bavail.saturating_mul(found.f_frsize), read_only)
    }
}

fn locked(why: &Mutex<Option<String>>) -> MutexGuard<'_, Option<String>> {
    why.lock().expect("no code panics under this lock")
}

fn enough(free: u64, read_only: bool) -> Result<(), String> {
    if read_only {
        Err("the filesystem is mounted read-only".into())
    } else if free < MIN_FREE {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let (free, required) = (megabytes(free), megabytes(MIN_FREE));
        Err(format!(
            "only {free:.1} MB are free, {required:.1} MB are required"
        ))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_or_read_only_filesystem_is_refused_before_anything_is_written() {
        assert_eq!(enough(MIN_FREE, false), Ok(()));
        assert!(enough(MIN_FREE - 1, false).unwrap_err().contains("free"));
        assert!(enough(u64::MAX, true).unwrap_err().contains("read-only"));
    }

    #[test]
    fn a_failure_stands_until_a_write_works_again() {
        let health = Health::of(std::env::temp_dir());
        let error = health.failed("disk I/O error".into());
        assert_eq!(health.check(), Err(error));
        health.recovered();
        assert_eq!(health.check(), Ok(()));
    }

    #[test]
    fn damage_stands_whatever_works_again() {
        let health = Health::of(std::env::temp_dir());
        health.damaged("a page is not of this tree".into());
        health.recovered();
        let error = health.check().unwrap_err().to_string();
        assert!(error.contains("a page is not of this tree"), "{error}");
        assert!(error.contains("restore it from a backup"), "{error}");
    }
}

//! The embedded engine: SQLite files in one directory, which several processes of one machine may
//! share. `tokens.db` holds what must survive a power cut; `leases.db` what need not; `owners/`
//! the locks by which processes know each other alive.
//!
//! SQLite blocks, so it runs on threads of its own: a writer with group commit, one that reads
//! single entries, one for listings, one for leases and what is read under them, one that looks for
//! changes, and for a while one that checks a large file. The engine's methods ask them by channel.

mod backup;
mod budget;
mod changes;
mod columns;
mod db_thread;
mod entries;
mod files;
mod folder;
mod guards;
mod health;
mod integrity;
mod lease_thread;
mod leases;
mod lineage;
mod look;
mod open_files;
mod owners;
mod refusals;
mod schema;
mod transaction;
mod watch;
mod writer;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::mpsc;

use crate::clock::{Clock, Timestamp};
use crate::principal::Principal;
use crate::store::{
    Change, Class, Commit, Entry, Error, Generation, Guard, Guarded, KeyId, Lease, LoginBudget,
    LoginWindows, Note, Record, Resealed, RunId, Slot, SlotId, Store,
};
pub use backup::{Backup, BackupError};
use changes::Changes;
use db_thread::{DbThread, Job};
use files::{Checked, is_damage};
pub use folder::give;
use health::Health;
use integrity::Integrity;
use lease_thread::LeaseThread;
use leases::Leases;
pub use look::{Look, look};
use open_files::OpenFiles;
use owners::{Alive, Owners};
pub use refusals::OpenError;
use watch::Watch;
use writer::Writer;

/// A token store in a directory. Dropping it finishes what was asked and frees its leases.
pub struct Sqlite {
    clock: Clock,
    health: Arc<Health>,
    watch: Watch,
    writer: Writer,
    /// Reads one entry at a time, for the requests.
    entries: DbThread<Job<Connection>>,
    /// Reads all the rest: a long listing must not hold up a request.
    listings: DbThread<Job<Connection>>,
    lease_thread: LeaseThread,
    changes: Changes,
    /// Checks a large file; `None` if it was checked before it was opened.
    integrity: Option<Integrity>,
    /// Says to other processes that this run lives; none once closed.
    alive: Mutex<Option<Arc<Mutex<Alive>>>>,
}

/// Opens the store in the directory `path` for one process run. A directory that is new, empty or
/// holds other files only becomes a store. Blocks for as long as it takes to check the files; a
/// large one is checked as a whole afterwards, and damage that is found then ends all renewals. What
/// the store says of time is by `clock`, which is that of all processes on it.
pub fn open(path: &Path, run: RunId, clock: Clock) -> Result<Sqlite, OpenError> {
    let refused = |error| OpenError::Refused(path.to_owned(), error);
    folder::refuse(path)?;
    folder::create(path).map_err(refused)?;
    let opening = files::lock(path).map_err(refused)?;
    let in_use = Owners::of_the_living(path);
    OpenFiles::of(path).refuse_others(&in_use)?;
    if in_use.is_empty() {
        look::refuse_foreign_log(path)?;
    }
    let checked =
        files::prepare(path, clock).map_err(|error| look::its_log_is_foreign(path, error))?;
    let sqlite = Sqlite::start(path, run, clock, checked).map_err(refused)?;
    drop(opening);
    Ok(sqlite)
}

/// Whether there is a store in the directory `path`. Fails if there was one.
pub fn is_there(path: &Path) -> Result<bool, OpenError> {
    files::is_there(path)
}

/// Refuses a directory that [`open`] would refuse because of who may write to it, or who owns what
/// lies in it. Changes nothing.
pub fn refuse_folder(path: &Path) -> Result<(), OpenError> {
    folder::refuse(path)
}

/// What an operator should know of a directory that is not refused: each a sentence.
pub fn warnings(path: &Path) -> Vec<String> {
    folder::warnings(path)
}

impl Sqlite {
    fn start(path: &Path, run: RunId, clock: Clock, checked: Checked) -> io::Result<Sqlite> {
        let tokens = path.join("tokens.db");
        let connect = || files::connect(&tokens, "FULL").map_err(io::Error::other);
        let connect_to_read = || files::connect_to_read(&tokens).map_err(io::Error::other);
        let writing = connect()?;
        let held = OpenFiles::of(path);
        let files = held.written_down();
        let health = Arc::new(Health::of(path.to_owned()).watching(held));
        let (leases, mut alive) = Leases::open(path.to_owned(), run, Arc::clone(&health))?;
        alive.write(files)?;
        let alive = Arc::new(Mutex::new(alive));
        let integrity = match checked {
            Checked::Whole => None,
            Checked::Header => Some(Integrity::start(connect_to_read()?, Arc::clone(&health))?),
        };
        Ok(Sqlite {
            clock,
            watch: Watch::start(connect_to_read()?, Arc::clone(&health), Arc::clone(&alive))?,
            writer: Writer::start(writing, Arc::clone(&health))?,
            entries: DbThread::owning("store-entries", connect_to_read()?)?,
            listings: DbThread::owning("store-listings", connect_to_read()?)?,
            lease_thread: LeaseThread::start(leases, connect()?, Arc::clone(&health))?,
            changes: Changes::start(connect_to_read()?, Arc::clone(&health))?,
            integrity,
            health,
            alive: Mutex::new(Some(alive)),
        })
    }

    /// Finishes what was asked and frees this run's leases; everything asked later is answered
    /// with [`Error::Closed`]. Blocks until then.
    pub fn close(&self) {
        if let Some(integrity) = &self.integrity {
            integrity.close();
        }
        self.watch.close();
        self.changes.close();
        self.lease_thread.close();
        self.entries.close();
        self.listings.close();
        // Before the log goes: a process that finds this run alive expects its files there.
        drop(
            self.alive
                .lock()
                .expect("nothing panics under this lock")
                .take(),
        );
        self.writer.close();
        self.health.close();
    }

    /// The canary, if there is one yet.
    pub async fn stored_canary(&self) -> Result<Option<Vec<u8>>, Error> {
        self.list_with(look::canary).await
    }

    /// How many transactions became durable: beside the number of writes, what group commit saves.
    pub fn transactions(&self) -> u64 {
        self.health.transactions()
    }

    async fn list_with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.listings
            .ask(move |db| work(db))
            .await?
            .map_err(|error| unreadable(self.health.misread(error)))
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn load(&self, principal: &Principal) -> Result<Entry, Error> {
        let whose = principal.clone();
        self.entries
            .ask(move |db| entries::load(db, &whose))
            .await?
            .map_err(|error| unloaded(principal, self.health.misread(error)))
    }

    async fn lease(&self, principal: &Principal, ttl: Duration) -> Result<Lease, Error> {
        self.health.admit()?;
        self.lease_thread.lease(principal, ttl).await
    }

    async fn lease_and_load(
        &self,
        principal: &Principal,
        ttl: Duration,
    ) -> Result<(Lease, Result<Entry, Error>), Error> {
        self.health.admit()?;
        let (lease, entry) = self.lease_thread.lease_and_load(principal, ttl).await?;
        Ok((
            lease,
            entry.map_err(|error| unloaded(principal, self.health.misread(error))),
        ))
    }

    fn release(&self, principal: &Principal) {
        self.lease_thread.give_back(principal);
    }

    async fn commit(
        &self,
        principal: &Principal,
        record: Record,
        expected: Generation,
        epoch: u64,
    ) -> Result<Commit, Error> {
        let whose = principal.clone();
        self.writer
            .ask(Some(principal), move |db| {
                entries::commit(db, &whose, &record, expected, epoch)
            })
            .await
    }

    async fn note(&self, principal: &Principal, note: Note) -> Result<(), Error> {
        let whose = principal.clone();
        self.writer
            .ask(Some(principal), move |db| entries::note(db, &whose, &note))
            .await
    }

    async fn drop_rejected(
        &self,
        now: Timestamp,
        latest: Timestamp,
        limit: usize,
    ) -> Result<usize, Error> {
        self.writer
            .ask(None, move |db| {
                entries::drop_rejected(db, now, latest, limit)
            })
            .await
    }

    async fn forget(&self, principal: &Principal) -> Result<bool, Error> {
        let whose = principal.clone();
        self.writer
            .ask(Some(principal), move |db| entries::forget(db, &whose))
            .await
    }

    async fn take_login(
        &self,
        id: SlotId,
        class: Class,
        windows: &LoginWindows,
    ) -> Result<Slot, Error> {
        let (windows, clock) = (windows.clone(), self.clock);
        self.writer
            .ask(None, move |db| {
                budget::update(db, &windows.group, |history| {
                    history.take(id, class, &windows, clock.stamp())
                })
            })
            .await
    }

    async fn end_login(&self, group: &str, id: SlotId) -> Result<(), Error> {
        let (group, now) = (group.to_owned(), self.clock.stamp());
        self.writer
            .ask(None, move |db| {
                budget::update(db, &group, |history| history.end(id, now))
            })
            .await
    }

    async fn give_login_back(&self, group: &str, id: SlotId) -> Result<(), Error> {
        let group = group.to_owned();
        self.writer
            .ask(None, move |db| {
                budget::update(db, &group, |history| history.give_back(id))
            })
            .await
    }

    async fn block_logins(
        &self,
        group: &str,
        blocked: Duration,
        halved: Option<Duration>,
    ) -> Result<(), Error> {
        let (group, now) = (group.to_owned(), self.clock.stamp());
        self.writer
            .ask(None, move |db| {
                budget::update(db, &group, |history| history.block(blocked, halved, now))
            })
            .await
    }

    async fn unblock_logins(&self, group: &str) -> Result<bool, Error> {
        let (group, now) = (group.to_owned(), self.clock.stamp());
        self.writer
            .ask(None, move |db| {
                budget::update(db, &group, |history| history.unblock(now))
            })
            .await
    }

    async fn login_budget(&self, windows: &LoginWindows) -> Result<LoginBudget, Error> {
        let group = windows.group.clone();
        let history = self.list_with(move |db| budget::load(db, &group)).await?;
        Ok(history.budget(windows, self.clock.stamp()))
    }

    fn changes(&self) -> mpsc::UnboundedReceiver<Change> {
        self.changes.subscribe()
    }

    async fn due(
        &self,
        before: Timestamp,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<Principal>, Error> {
        self.list_with(move |db| entries::due(db, before, skip, limit))
            .await
    }

    async fn list(
        &self,
        after: Option<&Principal>,
        limit: usize,
    ) -> Result<Vec<(Principal, Entry)>, Error> {
        let after = after.cloned();
        self.list_with(move |db| entries::list(db, after.as_ref(), limit))
            .await
    }

    async fn reseal(&self, resealed: Vec<Resealed>) -> Result<usize, Error> {
        self.writer
            .ask(None, move |db| entries::reseal(db, &resealed))
            .await
    }

    async fn keys(&self) -> Result<Vec<(KeyId, u64)>, Error> {
        self.list_with(entries::keys).await
    }

    async fn count(&self) -> Result<u64, Error> {
        self.list_with(entries::count).await
    }

    async fn guard(&self, name: &str) -> Result<Guard, Error> {
        let name = name.to_owned();
        self.list_with(move |db| guards::load(db, &name)).await
    }

    async fn set_guard(&self, name: &str, expected: u64, value: Vec<u8>) -> Result<Guarded, Error> {
        let name = name.to_owned();
        self.writer
            .ask(None, move |db| guards::set(db, &name, expected, &value))
            .await
    }

    async fn canary(&self, fresh: Vec<u8>) -> Result<Vec<u8>, Error> {
        self.writer
            .ask(None, move |db| {
                db.execute(
                    "INSERT INTO meta (key, value) VALUES ('canary', ?1) ON CONFLICT DO NOTHING",
                    [&fresh],
                )?;
                db.query_row("SELECT value FROM meta WHERE key = 'canary'", [], |row| {
                    row.get(0)
                })
            })
            .await
    }

    async fn replace_canary(&self, fresh: Vec<u8>) -> Result<(), Error> {
        self.writer
            .ask(None, move |db| {
                db.execute("UPDATE meta SET value = ?1 WHERE key = 'canary'", [&fresh])?;
                Ok(())
            })
            .await
    }

    fn writable(&self) -> Result<(), Error> {
        self.health.check()
    }
}

fn unloaded(principal: &Principal, error: rusqlite::Error) -> Error {
    match is_damage(&error) {
        true => Error::Damaged(principal.clone()),
        false => unreadable(error),
    }
}

fn unreadable(error: rusqlite::Error) -> Error {
    Error::Unreadable(error.to_string())
}

#[cfg(test)]
mod tests;

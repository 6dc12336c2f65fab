//! The embedded engine: SQLite files in one directory, which several processes of one machine may
//! share. `tokens.db` holds what must survive a power cut; `leases.db` what need not; `owners/`
//! the locks by which processes know each other alive.
//!
//! SQLite blocks, so it runs on threads of its own, which the engine's methods ask by channel: a writer
//! with group commit, a reader of single entries, one for listings, one for leases and the entries that
//! are read under them, one that looks for changes, one that looks after the files, and for a while one
//! that checks a large file. How such threads and files are kept, the outbox of `postgres` uses as well.

mod backup;
mod boot_clock;
mod budgets;
mod canary;
mod changes;
mod claims;
mod columns;
pub(super) mod connections;
pub(super) mod db_thread;
pub(super) mod entries;
mod entry_writes;
pub(super) mod errors;
pub(super) mod files;
mod filesystem;
pub(super) mod folder;
mod foreign_log;
mod guards;
pub(super) mod health;
mod integrity;
mod lease_file;
mod lease_rows;
mod lease_thread;
mod leases;
mod lineage;
pub(super) mod open_files;
mod owners;
pub(super) mod private_copy;
mod reader;
mod refusals;
mod schema;
mod tombstones;
pub(super) mod transaction;
mod uses;
mod watch;
mod writer;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::mpsc;

use self::changes::Changes;
use self::connections::{connect, connect_to_read};
use self::db_thread::{DbThread, Job};
use self::errors::{unloaded, unreadable};
use self::files::Checked;
pub(super) use self::files::is_there;
pub(super) use self::filesystem::warnings;
pub(super) use self::folder::refuse as refuse_folder;
use self::health::Health;
use self::integrity::Integrity;
use self::lease_thread::LeaseThread;
use self::leases::Leases;
use self::open_files::OpenFiles;
use self::owners::{Alive, Owners};
pub(super) use self::reader::view;
pub(super) use self::refusals::Refusal;
use self::watch::Watch;
use self::writer::Writer;
use crate::clock::{Clock, Stamp, Timestamp};
use crate::principal::Principal;
use crate::store::{
    Change, Commit, Condition, Cursor, Entry, Error, KeyId, Lease, LeaseHolder, LeaseId, Listed,
    Note, Page, Pseudonyms, Record, Resealed, Restored, RunId, Store, StoreClock, Tombstone,
    Version,
};

/// A token store in a directory. Dropping it finishes the calls under way and gives its leases back.
///
/// Each thread owns the connection that it works on, so that no connection needs a lock.
pub(super) struct Sqlite {
    /// The machine's, which is the store's: it lies on one machine.
    clock: Clock,
    /// What the forgotten are called.
    pseudonyms: Pseudonyms,
    /// Whether a write would be durable now. Every thread reports into it what it finds; readiness and
    /// the lease methods read it.
    health: Arc<Health>,
    /// Looks after the files while no call comes.
    watch: Watch,
    /// The only thread that writes `tokens.db`.
    writer: Writer,
    /// Reads one entry at a time, for the requests.
    entries: DbThread<Job<Connection>>,
    /// Reads everything else: a long listing must not hold up a request.
    listings: DbThread<Job<Connection>>,
    /// Takes leases, and reads the entries that they are for; keeps the claims on due pairs.
    lease_thread: LeaseThread,
    /// Tells of changes that any process committed.
    changes: Changes,
    /// Checks a large file; `None` if the file was checked before it was opened.
    integrity: Option<Integrity>,
    /// Says to other processes that this run lives; `None` once closed. The outer lock is for closing
    /// alone; the inner one is shared with [`Watch`], which makes the file anew if somebody removed it.
    alive: Mutex<Option<Arc<Mutex<Alive>>>>,
}

/// Opens the store in the directory `path` for one process run. A directory that is new, empty, or
/// holds no file with a store's name becomes a store. Blocks while the files are checked; a large one is
/// checked as a whole afterwards, and damage that is found then ends all renewals. `clock` must be that
/// of all processes on the store.
pub(super) fn open(
    path: &Path,
    pseudonyms: Pseudonyms,
    run: RunId,
    clock: Clock,
) -> Result<Sqlite, Refusal> {
    let refused = |error| Refusal::Unopened(path.to_owned(), error);
    make_folder(path)?;
    let opening = files::lock(path).map_err(refused)?;
    let in_use = Owners::of_the_living(path);
    OpenFiles::of(path).refuse_others(&in_use)?;
    if in_use.is_empty() {
        foreign_log::refuse_foreign_log(path)?;
    }
    let checked = files::prepare(path, clock)
        .map_err(|error| foreign_log::its_log_is_foreign(path, error))?;
    let sqlite = Sqlite::start(path, pseudonyms, run, clock, checked).map_err(refused)?;
    drop(opening);
    Ok(sqlite)
}

/// Makes the directory `path`, if it is not there; refuses one that others may write to. Blocks.
pub(super) fn make_folder(path: &Path) -> Result<(), Refusal> {
    folder::refuse(path)?;
    folder::create(path).map_err(|error| Refusal::Unopened(path.to_owned(), error))
}

impl Sqlite {
    fn start(
        path: &Path,
        pseudonyms: Pseudonyms,
        run: RunId,
        clock: Clock,
        checked: Checked,
    ) -> io::Result<Sqlite> {
        let tokens = path.join("tokens.db");
        let connect = || connect(&tokens, "FULL").map_err(io::Error::other);
        let connect_to_read = || connect_to_read(&tokens).map_err(io::Error::other);
        let writing = connect()?;
        let held = OpenFiles::of(path);
        let files = held.written_down();
        let health = Arc::new(Health::of(path.to_owned()).watching(held));
        let (leases, mut alive) = Leases::open(path, run, Arc::clone(&health))?;
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
            lease_thread: LeaseThread::start(
                leases,
                connect()?,
                pseudonyms.clone(),
                Arc::clone(&health),
            )?,
            changes: Changes::start(connect_to_read()?, Arc::clone(&health))?,
            integrity,
            pseudonyms,
            health,
            alive: Mutex::new(Some(alive)),
        })
    }

    /// Finishes the calls under way and gives this run's leases back; every later call returns
    /// [`Error::Closed`]. Blocks until then.
    fn close(&self) {
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
                .expect("no code panics under this lock")
                .take(),
        );
        self.writer.close();
        self.health.close();
    }

    /// How many transactions became durable: fewer than there were writes, thanks to group commit.
    #[cfg(test)]
    fn transactions(&self) -> u64 {
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

impl StoreClock for Sqlite {
    fn stamp(&self) -> Stamp {
        self.clock.stamp()
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn load(&self, principal: &Principal) -> Result<Entry, Error> {
        let (whose, pseudonyms) = (principal.clone(), self.pseudonyms.clone());
        self.entries
            .ask(move |db| tombstones::standing(db, &pseudonyms, &whose))
            .await?
            .map_err(|error| unloaded(principal, self.health.misread(error)))
    }

    async fn lease(
        &self,
        principal: &Principal,
        id: LeaseId,
        ttl: Duration,
    ) -> Result<(Lease, Result<Entry, Error>), Error> {
        self.health.admit()?;
        let (lease, entry) = self.lease_thread.lease(principal, id, ttl).await?;
        Ok((
            lease,
            entry.map_err(|error| unloaded(principal, self.health.misread(error))),
        ))
    }

    async fn extend(
        &self,
        principal: &Principal,
        id: LeaseId,
        ttl: Duration,
    ) -> Result<bool, Error> {
        self.health.admit()?;
        self.lease_thread.extend(principal, id, ttl).await
    }

    fn release(&self, principal: &Principal, id: LeaseId) {
        self.lease_thread.give_back(principal, id);
    }

    async fn commit(
        &self,
        principal: &Principal,
        record: Record,
        over: Version,
        lease: Option<LeaseId>,
    ) -> Result<Commit, Error> {
        let (whose, pseudonyms) = (principal.clone(), self.pseudonyms.clone());
        let committed = self
            .writer
            .ask(Some(principal), move |db| {
                entry_writes::commit(db, &pseudonyms, &whose, &record, over)
            })
            .await?;
        if let Some(id) = lease {
            self.lease_thread.give_back(principal, id);
        }
        Ok(committed)
    }

    async fn note(&self, principal: &Principal, note: Note) -> Result<(), Error> {
        let whose = principal.clone();
        self.writer
            .ask(Some(principal), move |db| {
                entry_writes::note(db, &whose, &note)
            })
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
                entry_writes::drop_rejected(db, now, latest, limit)
            })
            .await
    }

    async fn forget(&self, principal: &Principal) -> Result<bool, Error> {
        let (whose, pseudonyms) = (principal.clone(), self.pseudonyms.clone());
        self.writer
            .ask(Some(principal), move |db| {
                entry_writes::forget(db, &pseudonyms, &whose)
            })
            .await
    }

    async fn bury(&self, tombstones: Vec<Tombstone>) -> Result<Vec<Restored>, Error> {
        self.writer
            .ask(None, move |db| {
                let buried = |tombstone: &_| tombstones::bury(db, tombstone);
                tombstones.iter().map(buried).collect()
            })
            .await
    }

    async fn restore(&self, entries: Vec<(Principal, Entry)>) -> Result<Vec<Restored>, Error> {
        let pseudonyms = self.pseudonyms.clone();
        self.writer
            .ask(None, move |db| {
                let restored = |(principal, entry): &_| {
                    entry_writes::restore(db, &pseudonyms, principal, entry)
                };
                entries.iter().map(restored).collect()
            })
            .await
    }

    fn changes(&self) -> mpsc::UnboundedReceiver<Change> {
        self.changes.subscribe()
    }

    async fn claim_due(
        &self,
        before: Timestamp,
        limit: usize,
        hold: Duration,
    ) -> Result<Vec<Principal>, Error> {
        loop {
            let claimed = self.lease_thread.claimed().await?;
            let due = self
                .list_with(move |db| entries::due(db, before, limit, |one| !claimed.contains(one)))
                .await?;
            if due.is_empty() {
                return Ok(due);
            }
            let claimed = self.lease_thread.claim(due, hold).await?;
            // Another process may have claimed all of them in the meantime.
            if !claimed.is_empty() {
                return Ok(claimed);
            }
        }
    }

    async fn list(
        &self,
        listed: Listed,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        let (after, pseudonyms) = (after.cloned(), self.pseudonyms.clone());
        self.list_with(move |db| tombstones::list_standing(db, &pseudonyms, listed, after, limit))
            .await
    }

    async fn reseal(&self, resealed: Vec<Resealed>) -> Result<usize, Error> {
        self.writer
            .ask(None, move |db| entry_writes::reseal(db, &resealed))
            .await
    }

    async fn keys(&self) -> Result<Vec<(KeyId, u64)>, Error> {
        self.list_with(entries::keys).await
    }

    async fn count(&self) -> Result<u64, Error> {
        self.list_with(entries::count).await
    }

    async fn canary(&self) -> Result<Option<Vec<u8>>, Error> {
        self.list_with(canary::load).await
    }

    async fn leave_canary(&self, fresh: Vec<u8>) -> Result<Vec<u8>, Error> {
        self.writer
            .ask(None, move |db| canary::leave(db, &fresh))
            .await
    }

    async fn replace_canary(&self, stands: Vec<u8>, fresh: Vec<u8>) -> Result<bool, Error> {
        self.writer
            .ask(None, move |db| canary::replace(db, &stands, &fresh))
            .await
    }

    async fn lease_holder(&self, principal: &Principal) -> Result<Option<LeaseHolder>, Error> {
        self.lease_thread.holder(principal).await
    }

    fn writable(&self) -> Result<(), Error> {
        self.health.check()
    }

    fn condition(&self) -> Condition {
        Condition::default()
    }
}

#[cfg(test)]
mod tests;

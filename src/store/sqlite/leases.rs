//! Leases, in a database of their own without a single fsync: a power cut ends all leases anyway.
//! A lease holds while its owner lives, on the boot that it was given on, until its ttl ends.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ffi, params};
use rustix::time::ClockId;

use super::files;
use super::owners::{Alive, Owners};
use super::transaction::Transaction;
use crate::principal::Principal;
use crate::store::{Lease, RunId};

/// Pages in the write-ahead log after which it starts over. It holds the same few pages again and
/// again, and SQLite steps over all copies of a page to add one; starting over costs no fsync here.
const CHECKPOINT_AFTER: u32 = 200;

/// The leases of one process run, and its view on those of others.
#[derive(Debug)]
pub(super) struct Leases {
    db: Connection,
    /// Device and inode of the file that `db` has open: another process may replace a damaged one.
    file: (u64, u64),
    directory: PathBuf,
    owners: Owners,
    /// This process run, as it stands in the rows.
    owner: String,
    /// This boot: CLOCK_BOOTTIME of another one means nothing.
    boot: String,
    /// Ends this run's leases when dropped.
    _alive: Alive,
}

/// A row of another, or an earlier, lease.
struct Held {
    owner: String,
    boot: String,
    until: i64,
}

impl Leases {
    /// Declares `run` alive and opens the leases. Callers hold the store's opening lock.
    pub(super) fn open(directory: PathBuf, run: RunId) -> io::Result<Leases> {
        let owners = Owners::open(directory.join("owners"))?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let (db, file) = open_or_replace(&directory)?;
        Ok(Leases {
            db,
            file,
            _alive: owners.enter(run)?,
            directory,
            owners,
            owner: run.to_string(),
            boot: boot.trim().to_owned(),
        })
    }

    /// Gives back those of `given_back` that this run holds, then takes or extends its lease on each
    /// of `wanted`, in order; all in one transaction.
    pub(super) fn lease(
        &mut self,
        given_back: &[Principal],
        wanted: &[(&Principal, Duration)],
    ) -> io::Result<Vec<Lease>> {
        self.healed(|leases| {
            if let ([], [(principal, ttl)]) = (given_back, wanted)
                // One statement is a transaction by itself.
                && leases.insert(principal, until(*ttl))?
            {
                return Ok(vec![Lease::Granted { orphaned: false }]);
            }
            let transaction = Transaction::writing(&leases.db)?;
            leases.delete(given_back)?;
            let leased = wanted
                .iter()
                .map(|(principal, ttl)| leases.take(principal, until(*ttl)))
                .collect::<rusqlite::Result<_>>()?;
            transaction.commit()?;
            Ok(leased)
        })
    }

    /// Gives back those of these leases that this run holds.
    pub(super) fn release(&mut self, given_back: &[Principal]) -> io::Result<()> {
        self.healed(|leases| {
            if given_back.len() == 1 {
                return leases.delete(given_back);
            }
            let transaction = Transaction::writing(&leases.db)?;
            leases.delete(given_back)?;
            transaction.commit()
        })
    }

    fn take(&self, principal: &Principal, until: i64) -> rusqlite::Result<Lease> {
        match self.insert(principal, until)? {
            true => Ok(Lease::Granted { orphaned: false }),
            false => self.judge(principal, until),
        }
    }

    /// Takes a lease of which there is no row, as of nearly every one; false where there is.
    fn insert(&self, principal: &Principal, until: i64) -> rusqlite::Result<bool> {
        let rows = self
            .db
            .prepare_cached(
                "INSERT INTO leases (principal, owner, boot, until) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![principal, self.owner, self.boot, until])?;
        Ok(rows == 1)
    }

    fn delete(&self, given_back: &[Principal]) -> rusqlite::Result<()> {
        let mut statement = self
            .db
            .prepare_cached("DELETE FROM leases WHERE principal = ?1 AND owner = ?2")?;
        for principal in given_back {
            statement.execute(params![principal, self.owner])?;
        }
        Ok(())
    }

    /// Where there is a row: takes it if its lease no longer holds, or is this run's own.
    fn judge(&self, principal: &Principal, until: i64) -> rusqlite::Result<Lease> {
        let held = self
            .db
            .prepare_cached("SELECT owner, boot, until FROM leases WHERE principal = ?1")?
            .query_row([principal], |row| {
                Ok(Held {
                    owner: row.get(0)?,
                    boot: row.get(1)?,
                    until: row.get(2)?,
                })
            })?;
        let orphaned = if held.boot != self.boot || held.until <= since_boot() {
            true
        } else if held.owner == self.owner {
            false
        } else if self.owners.is_alive(&held.owner) {
            return Ok(Lease::Held);
        } else {
            true
        };
        self.db
            .prepare_cached(
                "UPDATE leases SET owner = ?2, boot = ?3, until = ?4 WHERE principal = ?1",
            )?
            .execute(params![principal, self.owner, self.boot, until])?;
        Ok(Lease::Granted { orphaned })
    }

    /// Does `work`; where the file was damaged or replaced, opens it anew before.
    fn healed<T>(&mut self, work: impl Fn(&mut Leases) -> rusqlite::Result<T>) -> io::Result<T> {
        if identity(&self.directory).ok() != Some(self.file) {
            self.reopen()?;
        }
        match work(self) {
            Err(error) if super::is_damage(&error) => {
                self.reopen()?;
                work(self).map_err(io::Error::other)
            }
            done => done.map_err(io::Error::other),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        let _opening = files::lock(&self.directory)?;
        tracing::warn!("leases.db was damaged or replaced; it is opened anew");
        (self.db, self.file) = open_or_replace(&self.directory)?;
        Ok(())
    }
}

/// Opens `leases.db`, or a new one in the place of one that is damaged.
fn open_or_replace(directory: &Path) -> io::Result<(Connection, (u64, u64))> {
    let db = match connect(directory) {
        Err(error) if super::is_damage(&error) => {
            for file in ["leases.db", "leases.db-wal", "leases.db-shm"] {
                files::remove_if_there(&directory.join(file))?;
            }
            connect(directory)
        }
        connected => connected,
    };
    Ok((db.map_err(io::Error::other)?, identity(directory)?))
}

/// Opens or creates `leases.db`.
fn connect(directory: &Path) -> rusqlite::Result<Connection> {
    let path = directory.join("leases.db");
    files::create_new(&path).map_err(|e| files::failure(ffi::SQLITE_CANTOPEN, e.to_string()))?;
    let db = files::connect(&path, "OFF")?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_AFTER)?;
    let check: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(files::failure(ffi::SQLITE_CORRUPT, check));
    }
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS leases (
             principal TEXT PRIMARY KEY,
             owner TEXT NOT NULL,
             boot TEXT NOT NULL,
             until INTEGER NOT NULL -- milliseconds of CLOCK_BOOTTIME
         ) STRICT, WITHOUT ROWID",
    )?;
    Ok(db)
}

fn identity(directory: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::metadata(directory.join("leases.db"))?;
    Ok((found.dev(), found.ino()))
}

/// When a lease of `ttl` ends that is given now.
fn until(ttl: Duration) -> i64 {
    since_boot().saturating_add(ttl.as_millis().try_into().unwrap_or(i64::MAX))
}

/// Milliseconds since the machine booted, suspended ones too.
fn since_boot() -> i64 {
    let now = rustix::time::clock_gettime(ClockId::Boottime);
    now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
}

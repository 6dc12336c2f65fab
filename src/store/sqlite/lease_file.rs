//! `leases.db` as a file: opened, and opened again after it was removed, replaced or damaged. A lease
//! file that is lost costs nobody a login, so that a new one may take its place. What the rows
//! mean is in [`leases`] and [`claims`].
//!
//! [`leases`]: super::leases

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ffi};

use super::claims;
use super::connections;
use super::errors::{failure, is_damage};
use super::files;
use super::lease_rows;
use super::open_files::{Identity, identity};

/// Pages in the write-ahead log after which it starts over. It holds the same few pages again and
/// again, and SQLite steps over all copies of a page to add one; starting over costs no fsync here.
const CHECKPOINT_AFTER: u32 = 200;

/// An open `leases.db`.
#[derive(Debug)]
pub(super) struct LeaseFile {
    db: Connection,
    /// What `db` has open: the database, its log, the log's index.
    files: [Identity; 3],
    /// Where they are.
    paths: [PathBuf; 3],
    /// The store's folder.
    directory: PathBuf,
}

impl LeaseFile {
    /// Opens the file in a store's folder, or makes one; says whether it was made now. Callers hold the
    /// store's opening lock.
    pub(super) fn open(directory: &Path) -> io::Result<(LeaseFile, bool)> {
        let paths =
            ["leases.db", "leases.db-wal", "leases.db-shm"].map(|name| directory.join(name));
        let is_there = paths[0].exists();
        let (db, replaced) = open_or_replace(&paths)?;
        let file = LeaseFile {
            db,
            files: identities(&paths),
            paths,
            directory: directory.to_owned(),
        };
        Ok((file, replaced || !is_there))
    }

    /// The connection to it.
    pub(super) fn db(&self) -> &Connection {
        &self.db
    }

    /// Whether the files that are open are still those with their names.
    pub(super) fn is_in_place(&self) -> bool {
        identities(&self.paths) == self.files
    }

    /// Opens the file that is there now. Returns the store's opening lock, to be held until what this run
    /// holds is written down in it.
    pub(super) fn reopen(&mut self) -> io::Result<File> {
        let opening = files::lock(&self.directory)?;
        let nothing = Connection::open_in_memory().map_err(io::Error::other)?;
        let old = std::mem::replace(&mut self.db, nothing);
        // Closing must not touch the files that have these names now.
        old.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .map_err(io::Error::other)?;
        drop(old);
        let now = identities(&self.paths);
        let mut still = now.iter().zip(&self.files);
        // Some of the old files with some new ones make no database. What another process has made
        // anew in the meantime are three new ones.
        if still.any(|(now, before)| now.is_some() && now == before) {
            for file in &self.paths {
                files::remove_if_there(file)?;
            }
        }
        (self.db, _) = open_or_replace(&self.paths)?;
        self.files = identities(&self.paths);
        Ok(opening)
    }
}

/// Opens `leases.db`; puts a new one in the place of one that is damaged, and says whether it did.
fn open_or_replace(paths: &[PathBuf; 3]) -> io::Result<(Connection, bool)> {
    match connect(&paths[0]) {
        Err(error) if is_damage(&error) => {
            for file in paths {
                files::remove_if_there(file)?;
            }
            connect(&paths[0]).map(|db| (db, true))
        }
        connected => connected.map(|db| (db, false)),
    }
    .map_err(io::Error::other)
}

/// Opens or creates `leases.db`.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    files::create_new(path).map_err(|e| failure(ffi::SQLITE_CANTOPEN, e.to_string()))?;
    let db = connections::connect(path, "OFF")?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_AFTER)?;
    let check: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(failure(ffi::SQLITE_CORRUPT, check));
    }
    db.execute_batch(lease_rows::TABLE)?;
    db.execute_batch(claims::TABLE)?;
    Ok(db)
}

fn identities(paths: &[PathBuf; 3]) -> [Identity; 3] {
    [0, 1, 2].map(|file| identity(&paths[file]))
}

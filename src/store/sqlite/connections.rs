//! Connections to the databases of a store: in WAL mode for work, or so that nothing is changed.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};

use super::errors::failure;

/// The pages that a connection which only reads keeps in memory.
const READ_CACHE_KIB: i64 = 256;
/// How long one process waits for another's transaction.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection in WAL mode. `synchronous` is SQLite's word.
pub(in crate::store) fn connect(path: &Path, synchronous: &str) -> rusqlite::Result<Connection> {
    let db = open(path)?;
    let mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        // SQLite says so instead of failing if the filesystem cannot share memory.
        return Err(failure(
            ffi::SQLITE_CANTOPEN,
            "no WAL mode on this filesystem",
        ));
    }
    db.pragma_update(None, "synchronous", synchronous)?;
    // What is deleted is overwritten: a name that is forgotten is not to be found in an unused part of a page.
    db.query_row("PRAGMA secure_delete = ON", [], |_| Ok(()))?;
    // The log is there once it was read.
    db.query_row("PRAGMA schema_version", [], |_| Ok(()))?;
    Ok(db)
}

/// A connection that only reads. It keeps few pages: the system has the file in memory, too, and
/// what a principal's entry says is remembered elsewhere.
pub(super) fn connect_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let db = connect(path, "FULL")?;
    keep_few_pages(&db)?;
    Ok(db)
}

pub(super) fn keep_few_pages(db: &Connection) -> rusqlite::Result<()> {
    // Negative: KiB, not pages.
    db.pragma_update(None, "cache_size", -READ_CACHE_KIB)
}

/// A connection to a database that exists, in the mode that its file says.
pub(in crate::store) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    Ok(db)
}

/// A connection that changes nothing, not even the files beside the database. `with` is added to the
/// query of SQLite's URI.
pub(super) fn open_read_only(path: &Path, with: &str) -> rusqlite::Result<Connection> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte));
            }
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    let db = Connection::open_with_flags(
        format!("{uri}?mode=ro{with}"),
        OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_URI,
    )?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    keep_few_pages(&db)?;
    Ok(db)
}

/// Moves what the write-ahead log holds into its database and makes it empty; false if it is in use. Most
/// of the work, and all that waits for the disk, is done while others may write.
pub(super) fn empty_log(db: &Connection) -> rusqlite::Result<bool> {
    let checkpoint = |mode: &str| {
        db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
            let (busy, logged, moved): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(busy == 0 && logged == moved)
        })
    };
    Ok(checkpoint("PASSIVE")? && checkpoint("TRUNCATE")?)
}

//! The files of a store: created whole or not at all, and refused when they are not what this
//! version wrote. A store that vanished or broke is never replaced by an empty one: that would cost
//! every user a login.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::refusals::OpenError;
use super::schema::{self, APPLICATION_ID, FORMAT};
use super::{folder, integrity};
use crate::clock::Clock;

/// Files of up to this many bytes, some ten thousand users, are checked as a whole before they are
/// used, which takes some ten milliseconds; larger ones while they are used.
const CHECKED_AT_ONCE: u64 = 16 * 1024 * 1024;
/// The pages that a connection which only reads keeps in memory.
const READ_CACHE_KIB: i64 = 256;
/// How long one process waits for another's transaction.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of a `tokens.db` was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// All of it.
    Whole,
    /// That it is one, of this version; the rest is too much to hold up the start.
    Header,
}

/// Creates `tokens.db` in a directory that never was a store; else checks the one that is there.
/// Callers hold the opening [`lock`].
pub(super) fn prepare(directory: &Path, clock: Clock) -> Result<Checked, OpenError> {
    let path = directory.join("tokens.db");
    if !is_there(directory)? {
        create_tokens(directory, &path).map_err(|error| OpenError::Refused(path, error))?;
        return Ok(Checked::Whole);
    }
    let (found, checked) = check(&path)?;
    if found < FORMAT {
        migrate(&path, found, clock)?;
    }
    Ok(checked)
}

/// Whether there is a store in a directory. Fails where there was one, or cannot be one.
pub(super) fn is_there(directory: &Path) -> Result<bool, OpenError> {
    folder::refuse_misnamed(directory)?;
    let path = directory.join("tokens.db");
    let refused = |error| folder::inaccessible(directory, error);
    if path.try_exists().map_err(refused)? {
        return Ok(true);
    }
    let remains = ["tokens.db-wal", "leases.db", "owners"];
    match remains.iter().any(|name| directory.join(name).exists()) {
        true => Err(OpenError::Missing(path)),
        false => Ok(false),
    }
}

/// Brings an earlier format to this one. Other processes may use the file meanwhile.
fn migrate(path: &Path, found: i64, clock: Clock) -> Result<(), OpenError> {
    let migrated = connect(path, "FULL").and_then(|db| schema::migrate(&db, clock));
    match migrated {
        Ok(found) => {
            tracing::info!(path = %path.display(), from = found, to = FORMAT, "the store was migrated");
            Ok(())
        }
        Err(error) => Err(OpenError::Unmigrated {
            path: path.to_owned(),
            found,
            why: error.to_string(),
        }),
    }
}

/// A connection in WAL mode. `synchronous` is SQLite's word.
pub(super) fn connect(path: &Path, synchronous: &str) -> rusqlite::Result<Connection> {
    let db = open(path)?;
    let mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        // SQLite says so instead of failing where the filesystem cannot share memory.
        return Err(failure(
            ffi::SQLITE_CANTOPEN,
            "no WAL mode on this filesystem",
        ));
    }
    db.pragma_update(None, "synchronous", synchronous)?;
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

/// Held while a store's files are made, checked or replaced: one process at a time.
pub(super) fn lock(directory: &Path) -> io::Result<File> {
    let file = folder::create_file(&directory.join("open.lock"))?;
    file.lock()?;
    Ok(file)
}

/// The same lock if it is free now.
pub(super) fn try_lock(directory: &Path) -> io::Result<Option<File>> {
    let file = folder::create_file(&directory.join("open.lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Moves what the write-ahead log holds into its database and makes it empty; false where somebody
/// uses it. Most of the work, and all that waits for the disk, is done while others may write.
pub(super) fn empty_log(db: &Connection) -> rusqlite::Result<bool> {
    let checkpoint = |mode: &str| {
        db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
            let (busy, logged, moved): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(busy == 0 && logged == moved)
        })
    };
    Ok(checkpoint("PASSIVE")? && checkpoint("TRUNCATE")?)
}

/// Makes a database's file, so that it and those that SQLite puts beside it are their owner's
/// alone. Leaves one that exists untouched: closing it would drop this process's locks on it
/// (<https://sqlite.org/howtocorrupt.html>, 2.2).
pub(super) fn create_new(path: &Path) -> io::Result<()> {
    match path.try_exists()? {
        true => Ok(()),
        false => folder::create_file(path).map(drop),
    }
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Whether SQLite says that what it read is not what it, or this program, wrote.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
    match error {
        FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) => true,
        error => is_file_damage(error),
    }
}

/// The same of the file's pages, not of what one row holds.
pub(super) fn is_file_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// An error of our own finding, in SQLite's words.
pub(super) fn failure(code: std::ffi::c_int, why: impl Into<String>) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(why.into()))
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    Ok(db)
}

/// Under another name first: a process killed here leaves no half store.
fn create_tokens(directory: &Path, path: &Path) -> io::Result<()> {
    let unfinished = directory.join("tokens.db.new");
    remove_if_there(&unfinished)?;
    create_new(&unfinished)?;
    let db = open(&unfinished).map_err(io::Error::other)?;
    schema::create(&db).map_err(io::Error::other)?;
    db.close().map_err(|(_, error)| io::Error::other(error))?;
    File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(directory)?.sync_all()
}

/// Refuses a file that is not a `tokens.db` of this version or an earlier one, or damaged, before
/// anything is written to it. Answers its format, too.
fn check(path: &Path) -> Result<(i64, Checked), OpenError> {
    let db = open(path).map_err(|error| not_read(path, error))?;
    // Nothing is written to a file that turns out to be damaged.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(|error| not_read(path, error))?;
    examine(path, &db)
}

/// Refuses what [`check`] refuses.
pub(super) fn examine(path: &Path, db: &Connection) -> Result<(i64, Checked), OpenError> {
    let failed = |error| not_read(path, error);
    let number = |pragma: &str| {
        db.query_row(pragma, [], |row| row.get::<_, i64>(0))
            .map_err(failed)
    };
    if number("PRAGMA application_id")? != APPLICATION_ID {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    let found = number("PRAGMA user_version")?;
    if found > FORMAT {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found,
        });
    }
    let size = fs::metadata(path).map_err(|e| OpenError::Refused(path.to_owned(), e))?;
    if size.len() > CHECKED_AT_ONCE {
        return Ok((found, Checked::Header));
    }
    keep_few_pages(db).map_err(failed)?;
    refuse_damage(path, db)?;
    Ok((found, Checked::Whole))
}

/// What it means for the file that SQLite failed to read it.
pub(super) fn not_read(path: &Path, error: rusqlite::Error) -> OpenError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::Foreign(path.to_owned()),
        Some(ErrorCode::DatabaseCorrupt) => OpenError::Damaged {
            path: path.to_owned(),
            why: error.to_string(),
        },
        _ => OpenError::Refused(path.to_owned(), io::Error::other(error)),
    }
}

/// Refuses a `tokens.db` that is damaged anywhere. Reads all of it.
pub(super) fn refuse_damage(path: &Path, db: &Connection) -> Result<(), OpenError> {
    let why = match integrity::finding(db) {
        Ok(None) => return Ok(()),
        Ok(Some(why)) => why,
        Err(error) if is_damage(&error) => error.to_string(),
        Err(error) => return Err(OpenError::Refused(path.to_owned(), io::Error::other(error))),
    };
    Err(OpenError::Damaged {
        path: path.to_owned(),
        why,
    })
}

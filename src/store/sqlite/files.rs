//! The files of a store: created whole or not at all, and refused when they are not what this
//! version wrote. A store that vanished or broke is never replaced by an empty one: that would cost
//! every user a login.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use super::connections::{connect, keep_few_pages, open};
use super::errors::is_damage;
use super::folder;
use super::refusals::Refusal;
use super::schema::{self, APPLICATION_ID, FORMAT};
use crate::clock::Clock;

/// Files of up to this many bytes, some ten thousand users, are checked as a whole before they are
/// used, which takes some ten milliseconds; larger ones while they are used.
const CHECKED_AT_ONCE: u64 = 16 * 1024 * 1024;
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
pub(super) fn prepare(directory: &Path, clock: Clock) -> Result<Checked, Refusal> {
    let path = directory.join("tokens.db");
    if !is_there(directory)? {
        create_tokens(directory, &path).map_err(|error| Refusal::Unopened(path, error))?;
        return Ok(Checked::Whole);
    }
    let found = check(&path)?;
    if !found.is_current {
        migrate(&path, found.format, clock)?;
    }
    Ok(found.checked)
}

/// Whether there is a store in a directory. Fails if one is incomplete there, or cannot be there.
pub(in crate::store) fn is_there(directory: &Path) -> Result<bool, Refusal> {
    folder::refuse_misnamed(directory)?;
    let path = directory.join("tokens.db");
    let refused = |error| folder::inaccessible(directory, error);
    if path.try_exists().map_err(refused)? {
        return Ok(true);
    }
    let remains = ["tokens.db-wal", "leases.db", "owners"];
    match remains.iter().any(|name| directory.join(name).exists()) {
        true => Err(Refusal::Missing(path)),
        false => Ok(false),
    }
}

/// Brings an earlier format to this one. Other processes may use the file at the same time.
fn migrate(path: &Path, found: i64, clock: Clock) -> Result<(), Refusal> {
    let migrated = connect(path, "FULL").and_then(|db| schema::migrate(&db, clock));
    match migrated {
        Ok(FORMAT) => Ok(()),
        Ok(found) => {
            tracing::info!(path = %path.display(), from = found, to = FORMAT, "the store was migrated");
            Ok(())
        }
        Err(error) => Err(Refusal::Unmigrated {
            path: path.to_owned(),
            found,
            why: error.to_string(),
        }),
    }
}

/// Held while a store's files are made, checked or replaced: one process at a time.
pub(in crate::store) fn lock(directory: &Path) -> io::Result<File> {
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

/// Makes a database's file, so that it and those that SQLite puts beside it are their owner's
/// alone. Leaves one that exists untouched: closing it would drop this process's locks on it
/// (<https://sqlite.org/howtocorrupt.html>, 2.2).
pub(in crate::store) fn create_new(path: &Path) -> io::Result<()> {
    match path.try_exists()? {
        true => Ok(()),
        false => folder::create_file(path).map(drop),
    }
}

pub(in crate::store) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
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

/// A `tokens.db` that is not refused.
struct Found {
    format: i64,
    /// Whether its tables are those of this version.
    is_current: bool,
    checked: Checked,
}

/// Refuses a file that is not a `tokens.db` of this version or an earlier one, or damaged, before
/// anything is written to it.
fn check(path: &Path) -> Result<Found, Refusal> {
    let failed = |error| not_read(path, error);
    let db = open(path).map_err(failed)?;
    // Nothing is written to a file that turns out to be damaged.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(failed)?;
    let (format, checked) = examine(path, &db)?;
    Ok(Found {
        format,
        is_current: schema::is_current(&db).map_err(failed)?,
        checked,
    })
}

/// Refuses what [`check`] refuses; returns the format, too.
pub(super) fn examine(path: &Path, db: &Connection) -> Result<(i64, Checked), Refusal> {
    let failed = |error| not_read(path, error);
    let number = |pragma: &str| {
        db.query_row(pragma, [], |row| row.get::<_, i64>(0))
            .map_err(failed)
    };
    if number("PRAGMA application_id")? != APPLICATION_ID {
        return Err(Refusal::Foreign(path.to_owned()));
    }
    let found = number("PRAGMA user_version")?;
    if found > FORMAT {
        return Err(Refusal::Newer {
            path: path.to_owned(),
            found,
        });
    }
    let size = fs::metadata(path).map_err(|e| Refusal::Unopened(path.to_owned(), e))?;
    if size.len() > CHECKED_AT_ONCE {
        return Ok((found, Checked::Header));
    }
    keep_few_pages(db).map_err(failed)?;
    refuse_damage(path, db)?;
    Ok((found, Checked::Whole))
}

/// What it means for the file that SQLite failed to read it.
pub(super) fn not_read(path: &Path, error: rusqlite::Error) -> Refusal {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => Refusal::Foreign(path.to_owned()),
        Some(ErrorCode::DatabaseCorrupt) => Refusal::Damaged {
            path: path.to_owned(),
            why: error.to_string(),
        },
        _ => Refusal::Unopened(path.to_owned(), io::Error::other(error)),
    }
}

/// Refuses a `tokens.db` that is damaged anywhere. Reads all of it.
pub(super) fn refuse_damage(path: &Path, db: &Connection) -> Result<(), Refusal> {
    let why = match finding(db) {
        Ok(None) => return Ok(()),
        Ok(Some(why)) => why,
        Err(error) if is_damage(&error) => error.to_string(),
        Err(error) => return Err(Refusal::Unopened(path.to_owned(), io::Error::other(error))),
    };
    Err(Refusal::Damaged {
        path: path.to_owned(),
        why,
    })
}

/// What is wrong with a database, if anything.
pub(in crate::store) fn finding(db: &Connection) -> rusqlite::Result<Option<String>> {
    let finding: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok((finding != "ok").then_some(finding))
}

//! `outbox.db` as a file: made whole or not at all, and made anew when it was damaged, removed or
//! replaced. An outbox that is lost costs a login for each pair in it; one that stood in the way of
//! renewals would cost more.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ffi};

use super::pairs::{self, APPLICATION_ID, FORMAT};
use super::refusal::Refusal;
use crate::store::postgres::pending::Pending;
use crate::store::sqlite::connections;
use crate::store::sqlite::errors::{failure, is_damage};
use crate::store::sqlite::files;
use crate::store::sqlite::open_files::{Identity, identity};
use crate::store::sqlite::transaction::Transaction;

/// An open `outbox.db`.
pub(super) struct OutboxFile {
    db: Connection,
    /// What `db` has open: the database, its log, the log's index.
    files: [Identity; 3],
    /// Where they are.
    paths: [PathBuf; 3],
    /// Their folder.
    directory: PathBuf,
}

/// Why a file is not used as it is.
enum Unusable {
    /// It is not what this program wrote: it is moved aside.
    Damaged(String),
    /// It is what a newer version wrote.
    Newer(i64),
    /// The medium refused.
    Unopened(rusqlite::Error),
}

impl From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Unusable {
        match is_damage(&error) {
            true => Unusable::Damaged(error.to_string()),
            false => Unusable::Unopened(error),
        }
    }
}

impl OutboxFile {
    /// Opens the file in a folder, or makes one.
    pub(super) fn open(directory: &Path) -> Result<OutboxFile, Refusal> {
        let paths =
            ["outbox.db", "outbox.db-wal", "outbox.db-shm"].map(|name| directory.join(name));
        let unopened = |error| Refusal::Unopened(directory.to_owned(), error);
        let opening = files::lock(directory).map_err(unopened)?;
        let db = open_or_replace(directory, &paths).map_err(|unusable| match unusable {
            Unusable::Newer(found) => Refusal::Newer {
                path: paths[0].clone(),
                found,
            },
            Unusable::Damaged(why) => unopened(io::Error::other(why)),
            Unusable::Unopened(error) => unopened(io::Error::other(error)),
        })?;
        drop(opening);
        Ok(OutboxFile {
            db,
            files: identities(&paths),
            paths,
            directory: directory.to_owned(),
        })
    }

    /// The connection to it.
    pub(super) fn db(&self) -> &Connection {
        &self.db
    }

    /// Where its log is.
    pub(super) fn log(&self) -> &Path {
        &self.paths[1]
    }

    /// Whether the files that are open are still those with their names.
    pub(super) fn is_in_place(&self) -> bool {
        identities(&self.paths) == self.files
    }

    /// Opens the file that has the name now, or makes one, and takes along what can be read from the
    /// one that was open. Moves aside what is left in the place of that one, because it is `damaged`, or
    /// because a part of it was removed.
    pub(super) fn reopen(&mut self, damaged: Option<&str>) -> rusqlite::Result<()> {
        let opening = files::lock(&self.directory).map_err(cannot_open)?;
        let kept = pairs::readable(&self.db);
        let nothing = Connection::open_in_memory()?;
        let old = std::mem::replace(&mut self.db, nothing);
        // Closing must not touch the files that have these names now.
        old.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        drop(old);
        let now = identities(&self.paths);
        let mut same = now.iter().zip(&self.files);
        // Another process may have put a whole new one there.
        if same.any(|(now, before)| now.is_some() && now == before) {
            let why = damaged.unwrap_or("its files were removed or replaced");
            set_aside(&self.paths, why, kept.len()).map_err(cannot_open)?;
        }
        self.db = match open_or_replace(&self.directory, &self.paths) {
            Ok(db) => db,
            Err(Unusable::Unopened(error)) => return Err(error),
            Err(Unusable::Damaged(why)) => return Err(failure(ffi::SQLITE_CORRUPT, why)),
            Err(Unusable::Newer(found)) => {
                let why = format!("a newer version's outbox, of format {found}, is in its place");
                return Err(failure(ffi::SQLITE_SCHEMA, why));
            }
        };
        self.files = identities(&self.paths);
        drop(opening);
        put_all(&self.db, &kept)
    }
}

/// Opens the outbox; makes one if there is none; puts a new one in the place of a damaged one. Callers
/// hold the opening lock.
fn open_or_replace(directory: &Path, paths: &[PathBuf; 3]) -> Result<Connection, Unusable> {
    match connect(directory, &paths[0]) {
        Err(Unusable::Damaged(why)) => {
            let kept = connections::open(&paths[0]).map_or_else(
                |_| Vec::new(),
                |db| {
                    // Nothing is written to what is damaged.
                    let _ = db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
                    pairs::readable(&db)
                },
            );
            set_aside(paths, &why, kept.len()).map_err(cannot_open)?;
            let db = connect(directory, &paths[0])?;
            put_all(&db, &kept)?;
            Ok(db)
        }
        connected => connected,
    }
}

fn connect(directory: &Path, path: &Path) -> Result<Connection, Unusable> {
    if !path.try_exists().map_err(cannot_open)? {
        create(directory, path).map_err(cannot_open)?;
    }
    let db = connections::open(path)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let number = |pragma: &str| db.query_row(pragma, [], |row| row.get::<_, i64>(0));
    if number("PRAGMA application_id")? != APPLICATION_ID {
        return Err(Unusable::Damaged("it is no outbox".to_owned()));
    }
    let found = number("PRAGMA user_version")?;
    if found > FORMAT {
        return Err(Unusable::Newer(found));
    }
    if let Some(why) = files::finding(&db)? {
        return Err(Unusable::Damaged(why));
    }
    drop(db);
    Ok(connections::connect(path, "FULL")?)
}

/// Under another name first: a process that is killed here leaves no half file.
fn create(directory: &Path, path: &Path) -> io::Result<()> {
    let unfinished = directory.join("outbox.db.new");
    files::remove_if_there(&unfinished)?;
    files::create_new(&unfinished)?;
    let db = connections::open(&unfinished).map_err(io::Error::other)?;
    pairs::create(&db).map_err(io::Error::other)?;
    db.close().map_err(|(_, error)| io::Error::other(error))?;
    File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(directory)?.sync_all()
}

/// Gives a damaged outbox another name, under which it can be looked at.
fn set_aside(paths: &[PathBuf; 3], why: &str, kept: usize) -> io::Result<()> {
    let [db, log, index] = paths;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let suffix = format!(".damaged-{}", now.unwrap_or_default().as_millis());
    let named = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push(&suffix);
        PathBuf::from(name)
    };
    for path in [db, log] {
        match fs::rename(path, named(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
    }
    files::remove_if_there(index)?;
    tracing::error!(
        why,
        moved_to = %named(db).display(),
        kept,
        "outbox.db is damaged and was moved aside: a pair in it that the store lacks, and that is not \
         among those that could be kept, will cost its user a login"
    );
    Ok(())
}

fn put_all(db: &Connection, kept: &[Pending]) -> rusqlite::Result<()> {
    if kept.is_empty() {
        return Ok(());
    }
    let transaction = Transaction::writing(db)?;
    for pending in kept {
        pairs::put(&transaction, pending)?;
    }
    transaction.commit()
}

fn cannot_open(error: io::Error) -> rusqlite::Error {
    failure(ffi::SQLITE_CANTOPEN, error.to_string())
}

fn identities(paths: &[PathBuf; 3]) -> [Identity; 3] {
    [0, 1, 2].map(|file| identity(&paths[file]))
}

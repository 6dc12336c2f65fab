//! A store that is only looked at. The folder is the same afterwards, byte for byte: nothing is
//! created, recovered or checkpointed in it, and no lock file is left.

use std::fs::{self, DirBuilder, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use rustix::fs::Access;

use super::db_thread::{DbThread, Job};
use super::open_files::OpenFiles;
use super::owners::Owners;
use super::refusals::OpenError;
use super::schema::{self, FORMAT};
use super::{budget, entries, files, folder, guards, lineage, unloaded, unreadable};
use crate::clock::Clock;
use crate::principal::Principal;
use crate::store::{Entry, Error, Guard, KeyId, LoginBudget, LoginWindows};

/// How often a copy is made anew when the files changed meanwhile.
const COPIES: u32 = 5;

/// A store that can only be read.
pub struct Look {
    /// Of `tokens.db`.
    pub(super) path: PathBuf,
    clock: Clock,
    pub(super) thread: DbThread<Job<Connection>>,
}

/// Opens the store in the directory `path` for reading, beside whatever uses it; `None` if there is
/// none. A write-ahead log that a crash left is read from a private copy.
pub fn look(path: &Path, clock: Clock) -> Result<Option<Look>, OpenError> {
    if !files::is_there(path)? {
        return Ok(None);
    }
    let tokens = path.join("tokens.db");
    let mut db = connect(path, &tokens, clock)?;
    let (format, _) =
        files::examine(&tokens, &db).map_err(|error| its_log_is_foreign(path, error))?;
    if format < FORMAT {
        // As it will be once somebody opens it for writing.
        db = copied(path, clock)?;
    }
    let thread = DbThread::owning("store-look", db)
        .map_err(|error| OpenError::Refused(path.to_owned(), error))?;
    Ok(Some(Look {
        path: tokens,
        clock,
        thread,
    }))
}

impl Look {
    /// What is known of `principal`; the default entry when nothing is.
    pub async fn load(&self, principal: &Principal) -> Result<Entry, Error> {
        let whose = principal.clone();
        self.thread
            .ask(move |db| entries::load(db, &whose))
            .await?
            .map_err(|error| unloaded(principal, error))
    }

    /// As [`crate::store::Store::list`].
    pub async fn list(
        &self,
        after: Option<&Principal>,
        limit: usize,
    ) -> Result<Vec<(Principal, Entry)>, Error> {
        let after = after.cloned();
        self.read(move |db| entries::list(db, after.as_ref(), limit))
            .await
    }

    /// How many principals hold a pair.
    pub async fn count(&self) -> Result<u64, Error> {
        self.read(entries::count).await
    }

    /// As [`crate::store::Store::keys`].
    pub async fn keys(&self) -> Result<Vec<(KeyId, u64)>, Error> {
        self.read(entries::keys).await
    }

    /// The state of the budget.
    pub async fn login_budget(&self, windows: &LoginWindows) -> Result<LoginBudget, Error> {
        let group = windows.group.clone();
        let history = self.read(move |db| budget::load(db, &group)).await?;
        Ok(history.budget(windows, self.clock.stamp()))
    }

    /// As [`crate::store::Store::guard`].
    pub async fn guard(&self, name: &str) -> Result<Guard, Error> {
        let name = name.to_owned();
        self.read(move |db| guards::load(db, &name)).await
    }

    /// The canary, if there is one yet.
    pub async fn canary(&self) -> Result<Option<Vec<u8>>, Error> {
        self.read(canary).await
    }

    /// Checks all of the file, however large it is.
    pub async fn check_whole(&self) -> Result<(), OpenError> {
        let path = self.path.clone();
        let refused = |error: Error| OpenError::Refused(self.path.clone(), io::Error::other(error));
        self.thread
            .ask(move |db| files::refuse_damage(&path, db))
            .await
            .map_err(refused)?
    }

    /// Answers what `work` reads.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.thread
            .ask(move |db| work(db))
            .await?
            .map_err(unreadable)
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        self.thread.close();
    }
}

/// The canary of a store, if there is one yet.
pub(super) fn canary(db: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    db.query_row("SELECT value FROM meta WHERE key = 'canary'", [], |row| {
        row.get(0)
    })
    .optional()
}

/// A connection that changes nothing.
fn connect(directory: &Path, tokens: &Path, clock: Clock) -> Result<Connection, OpenError> {
    folder::access(tokens, Access::READ_OK)
        .map_err(|error| folder::inaccessible(tokens, error.into()))?;
    let in_use = Owners::of_the_living(directory);
    OpenFiles::of(directory).refuse_others(&in_use)?;
    let log = directory.join("tokens.db-wal");
    let logged = match fs::metadata(&log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        found => Some(found.map_err(|error| folder::inaccessible(&log, error))?),
    };
    let shared = directory.join("tokens.db-shm").exists();
    let opened = match logged {
        // Its owner keeps the index of the log, which readers share.
        Some(_) if shared && Owners::any_alive(directory) => open(tokens, ""),
        Some(log) if log.len() > 0 => {
            refuse_foreign_log(directory)?;
            return copied(directory, clock).map_err(|error| its_log_is_foreign(directory, error));
        }
        _ => open(tokens, "&immutable=1"),
    };
    opened.map_err(|error| files::not_read(tokens, error))
}

/// Refuses a log that is not that of the `tokens.db` beside it. Not while somebody uses them.
pub(super) fn refuse_foreign_log(directory: &Path) -> Result<(), OpenError> {
    let tokens = directory.join("tokens.db");
    let log = directory.join("tokens.db-wal");
    if !tokens.exists() || fs::metadata(&log).map_or(0, |log| log.len()) == 0 {
        return Ok(());
    }
    let Ok(alone) = open(&tokens, "&immutable=1") else {
        // Opening it with its log will say what is wrong.
        return Ok(());
    };
    let belongs =
        lineage::belongs(&alone, &log).map_err(|error| folder::inaccessible(&log, error))?;
    match belongs {
        true => Ok(()),
        false => Err(OpenError::ForeignLog(tokens)),
    }
}

/// A `tokens.db` that is damaged with its log and whole without it is not the one that the log was
/// written for.
pub(super) fn its_log_is_foreign(directory: &Path, error: OpenError) -> OpenError {
    let tokens = directory.join("tokens.db");
    let logged = fs::metadata(directory.join("tokens.db-wal")).map_or(0, |log| log.len());
    let damaged = matches!(error, OpenError::Damaged { .. });
    if !damaged || logged == 0 || Owners::any_alive(directory) {
        return error;
    }
    let alone = open(&tokens, "&immutable=1");
    match alone.is_ok_and(|alone| files::refuse_damage(&tokens, &alone).is_ok()) {
        true => OpenError::ForeignLog(tokens),
        false => error,
    }
}

/// `with` is added to the URI's query.
fn open(path: &Path, with: &str) -> rusqlite::Result<Connection> {
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
    db.busy_timeout(files::BUSY_TIMEOUT)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    files::keep_few_pages(&db)?;
    Ok(db)
}

/// A connection to a copy of the store, which has this version's format and files without a name.
fn copied(directory: &Path, clock: Clock) -> Result<Connection, OpenError> {
    let refused = |error: io::Error| {
        let to = std::env::temp_dir();
        let why = format!(
            "it cannot be copied to {} to be read: {error}",
            to.display()
        );
        OpenError::Refused(
            directory.join("tokens.db-wal"),
            io::Error::new(error.kind(), why),
        )
    };
    let copy = Copy::of(directory).map_err(refused)?;
    let path = copy.path.join("tokens.db");
    let failed = |error| files::not_read(&directory.join("tokens.db"), error);
    let db = files::connect(&path, "OFF").map_err(failed)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(failed)?;
    files::examine(&directory.join("tokens.db"), &db)?;
    schema::migrate(&db, clock).map_err(failed)?;
    Ok(db)
}

/// A copy of `tokens.db` and its log in a folder of its own. Removed when dropped.
pub(super) struct Copy {
    pub(super) path: PathBuf,
}

impl Copy {
    pub(super) fn of(directory: &Path) -> io::Result<Copy> {
        let name = format!("damoov-proxy-{}", uuid::Uuid::new_v4());
        let copy = Copy {
            path: std::env::temp_dir().join(name),
        };
        DirBuilder::new().mode(0o700).create(&copy.path)?;
        for _ in 0..COPIES {
            let before = stamps(directory);
            for name in ["tokens.db", "tokens.db-wal"] {
                copy_file(&directory.join(name), &copy.path.join(name))?;
            }
            if before == stamps(directory) {
                return Ok(copy);
            }
        }
        Err(io::Error::other("it changes while it is copied"))
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // The records in it are sealed: what is left behind shows nothing.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// One that does not exist is left out.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = match fs::File::open(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let mut to = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(to)?;
    io::copy(&mut from, &mut to).map(drop)
}

/// What shows that one of the files changed.
fn stamps(directory: &Path) -> Vec<Option<(u64, u64, i64, i64)>> {
    let stamp = |found: Metadata| (found.ino(), found.len(), found.mtime(), found.mtime_nsec());
    ["tokens.db", "tokens.db-wal"]
        .map(|name| fs::metadata(directory.join(name)).ok().map(stamp))
        .into()
}

//! A store that is only looked at. The folder is the same afterwards, byte for byte: nothing is
//! created, recovered or checkpointed in it, and no lock file is left.

use std::io;
use std::path::{Path, PathBuf};
use std::{env, fs};

use async_trait::async_trait;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rustix::fs::Access;

use super::connections::{connect, open_read_only};
use super::db_thread::{DbThread, Job};
use super::errors::{unloaded, unreadable};
use super::foreign_log::{its_log_is_foreign, refuse_foreign_log};
use super::open_files::OpenFiles;
use super::owners::Owners;
use super::private_copy::{self, PrivateCopy};
use super::refusals::Refusal;
use super::schema::{self, FORMAT};
use super::{backup, budgets, canary, entries, files, folder, guards, lease_rows, tombstones};
use crate::clock::{Clock, Stamp};
use crate::principal::Principal;
use crate::store::{
    self, Backup, BackupError, Condition, Cursor, Entry, Error, Guard, KeyId, LeaseHolder, Listed,
    LoginBudget, LoginWindows, Page, Pseudonyms, ReadOnly, StoreClock, Tombstones,
};

/// A store that can only be read.
pub(in crate::store) struct Reader {
    /// Where the store is.
    directory: PathBuf,
    /// Of `tokens.db`.
    path: PathBuf,
    /// What the forgotten are called.
    pseudonyms: Pseudonyms,
    /// What the budget counts by.
    clock: Clock,
    /// Owns the connection.
    thread: DbThread<Job<Connection>>,
}

/// Opens the store in the directory `path` for reading, beside whatever uses it; `None` if there is
/// none. A write-ahead log that a crash left is read from a private copy.
pub(in crate::store) fn view(
    path: &Path,
    pseudonyms: Pseudonyms,
    clock: Clock,
) -> Result<Option<Reader>, Refusal> {
    if !files::is_there(path)? {
        return Ok(None);
    }
    let tokens = path.join("tokens.db");
    let mut db = looking(path, &tokens, clock)?;
    files::examine(&tokens, &db).map_err(|error| its_log_is_foreign(path, error))?;
    let failed = |error| files::not_read(&tokens, error);
    match schema::format(&db).map_err(failed)? {
        FORMAT => schema::complete_in_memory(&db).map_err(failed)?,
        // As it will be once somebody opens it for writing.
        _ => db = copied(path, clock)?,
    }
    let thread = DbThread::owning("store-look", db)
        .map_err(|error| Refusal::Unopened(path.to_owned(), error))?;
    Ok(Some(Reader {
        directory: path.to_owned(),
        path: tokens,
        pseudonyms,
        clock,
        thread,
    }))
}

impl Reader {
    /// Returns what `work` reads.
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

impl StoreClock for Reader {
    fn stamp(&self) -> Stamp {
        self.clock.stamp()
    }
}

#[async_trait]
impl ReadOnly for Reader {
    async fn load(&self, principal: &Principal) -> Result<Entry, Error> {
        let (whose, pseudonyms) = (principal.clone(), self.pseudonyms.clone());
        self.thread
            .ask(move |db| tombstones::standing(db, &pseudonyms, &whose))
            .await?
            .map_err(|error| unloaded(principal, error))
    }

    async fn list(
        &self,
        listed: Listed,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        let (after, pseudonyms) = (after.cloned(), self.pseudonyms.clone());
        self.read(move |db| tombstones::list_standing(db, &pseudonyms, listed, after, limit))
            .await
    }

    async fn tombstones(&self, after: Option<&Cursor>, limit: usize) -> Result<Tombstones, Error> {
        let after = after.cloned();
        self.read(move |db| tombstones::list(db, after, limit))
            .await
    }

    async fn lease_holder(&self, principal: &Principal) -> Result<Option<LeaseHolder>, Error> {
        let (directory, principal) = (self.directory.clone(), principal.clone());
        let holder = self
            .thread
            .ask(move |_| lease_rows::holder_in(&directory, &principal));
        let holder = holder.await?;
        holder.map_err(|error| Error::Unreadable(error.to_string()))
    }

    fn condition(&self) -> Condition {
        Condition::default()
    }

    async fn count(&self) -> Result<u64, Error> {
        self.read(entries::count).await
    }

    async fn keys(&self) -> Result<Vec<(KeyId, u64)>, Error> {
        self.read(entries::keys).await
    }

    async fn canary(&self) -> Result<Option<Vec<u8>>, Error> {
        self.read(canary::load).await
    }

    async fn login_budget(&self, windows: &LoginWindows) -> Result<LoginBudget, Error> {
        let group = windows.group.clone();
        let history = self.read(move |db| budgets::load(db, &group)).await?;
        Ok(history.budget(windows, self.clock.unscaled().stamp()))
    }

    async fn guard(&self, name: &str) -> Result<Guard, Error> {
        let name = name.to_owned();
        self.read(move |db| guards::load(db, &name)).await
    }

    async fn check_whole(&self) -> Result<(), store::OpenError> {
        let path = self.path.clone();
        let refused = |error: Error| Refusal::Unopened(self.path.clone(), io::Error::other(error));
        let whole = self.thread.ask(move |db| files::refuse_damage(&path, db));
        Ok(whole.await.map_err(refused)??)
    }

    async fn backup(&self, to: &Path) -> Result<Backup, BackupError> {
        backup::copy(&self.thread, &self.directory, to).await
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.thread.close();
    }
}

/// A connection that changes nothing.
fn looking(directory: &Path, tokens: &Path, clock: Clock) -> Result<Connection, Refusal> {
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
        Some(_) if shared && Owners::any_alive(directory) => open_read_only(tokens, ""),
        Some(log) if log.len() > 0 => {
            refuse_foreign_log(directory)?;
            return copied(directory, clock).map_err(|error| its_log_is_foreign(directory, error));
        }
        _ => open_read_only(tokens, "&immutable=1"),
    };
    opened.map_err(|error| files::not_read(tokens, error))
}

/// A connection to a copy of the store, which has this version's format and files without a name.
fn copied(directory: &Path, clock: Clock) -> Result<Connection, Refusal> {
    let refused = |error: io::Error| {
        let to = env::temp_dir();
        let why = format!(
            "it cannot be copied to {} to be read: {error}",
            to.display()
        );
        Refusal::Unopened(
            directory.join("tokens.db-wal"),
            io::Error::new(error.kind(), why),
        )
    };
    let copy = PrivateCopy::of(directory, private_copy::TOKENS).map_err(refused)?;
    let path = copy.path.join("tokens.db");
    let failed = |error| files::not_read(&directory.join("tokens.db"), error);
    let db = connect(&path, "OFF").map_err(failed)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(failed)?;
    files::examine(&directory.join("tokens.db"), &db)?;
    schema::migrate(&db, clock).map_err(failed)?;
    Ok(db)
}

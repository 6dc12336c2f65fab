//! A store that is only looked at: for commands that must change nothing, also beside running proxies.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::{
    Condition, Cursor, Entry, Error, Guard, KeyId, LeaseHolder, Listed, LoginBudget, LoginWindows,
    OpenError, Page, StoreClock, Tombstones,
};
use crate::principal::Principal;

/// Reads a store without changing it: nothing is created, recovered or locked there.
///
/// Errors of all but the last two: [`Error::Unreadable`], and [`Error::Damaged`] of [`ReadOnly::load`].
#[async_trait]
pub trait ReadOnly: StoreClock {
    /// As [`super::Store::load`].
    async fn load(&self, principal: &Principal) -> Result<Entry, Error>;

    /// As [`super::Store::list`].
    async fn list(
        &self,
        listed: Listed,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, Error>;

    /// Returns up to `limit` tombstones, those after the place `after`. Leaves out damaged ones.
    async fn tombstones(&self, after: Option<&Cursor>, limit: usize) -> Result<Tombstones, Error>;

    /// As [`super::Store::lease_holder`].
    async fn lease_holder(&self, principal: &Principal) -> Result<Option<LeaseHolder>, Error>;

    /// As [`super::Store::condition`].
    fn condition(&self) -> Condition;

    /// As [`super::Store::count`].
    async fn count(&self) -> Result<u64, Error>;

    /// As [`super::Store::keys`].
    async fn keys(&self) -> Result<Vec<(KeyId, u64)>, Error>;

    /// As [`super::Store::canary`].
    async fn canary(&self) -> Result<Option<Vec<u8>>, Error>;

    /// As [`super::Budgets::login_budget`].
    async fn login_budget(&self, windows: &LoginWindows) -> Result<LoginBudget, Error>;

    /// As [`super::GuardRows::guard`].
    async fn guard(&self, name: &str) -> Result<Guard, Error>;

    /// Refuses a store that is damaged anywhere. Reads all of it, however large it is.
    async fn check_whole(&self) -> Result<(), OpenError>;

    /// Writes a copy of one moment to the new file `to`, which only the owner of the store can read, and
    /// reads it back. Leaves no file if it fails.
    async fn backup(&self, to: &Path) -> Result<Backup, BackupError>;
}

/// What a copy holds, read back from it.
#[derive(Debug)]
pub struct Backup {
    /// How many principals hold a pair.
    pub pairs: u64,
    /// What proves which key it is sealed with; `None` if the store has no canary yet.
    pub canary: Option<Vec<u8>>,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store lies on a server, which has better means.
    #[error(
        "a PostgreSQL store is backed up by the server's own tools, such as pg_dump; \
         `damoov-proxy tokens export --sealed` writes a copy that any store with the key imports"
    )]
    Elsewhere,
    /// It would replace something.
    #[error("{} exists already: name a new file", .0.display())]
    Exists(PathBuf),
    /// The file cannot be written.
    #[error("{} cannot be written", .0.display())]
    Unwritten(PathBuf, #[source] io::Error),
    /// The store cannot be read, or the copy cannot be read back.
    #[error("the copy failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What was written is not what was read.
    #[error("the copy was read back and is not whole: {0}")]
    NotWhole(String),
}

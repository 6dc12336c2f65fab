//! A copy of a store, of one moment, in one file, made beside whatever uses the store. It says that it
//! is nobody's log's: beside one it is told apart (see [`super::lineage`]).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::look::Look;
use super::{entries, files, folder, lineage};

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It would replace something.
    #[error("{} exists already: name a new file", .0.display())]
    Exists(PathBuf),
    /// The file cannot be written.
    #[error("{} cannot be written", .0.display())]
    Unwritten(PathBuf, #[source] io::Error),
    /// The store cannot be read, or the copy cannot be read back.
    #[error("the copy failed")]
    Failed(#[source] rusqlite::Error),
    /// What was written is not what was read.
    #[error("the copy was read back and is not whole: {0}")]
    NotWhole(String),
}

/// What a copy holds, read back from it.
#[derive(Debug)]
pub struct Backup {
    /// How many principals hold a pair.
    pub pairs: u64,
    /// What proves which key it is sealed with, if the store has one yet.
    pub canary: Option<Vec<u8>>,
}

impl Look {
    /// Writes a copy to the new file `to`, which belongs to the owner of the store's folder alone, and
    /// reads it back. Leaves no file if it fails.
    pub async fn backup(&self, to: &Path) -> Result<Backup, BackupError> {
        let unwritten = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => BackupError::Exists(to.to_owned()),
            _ => BackupError::Unwritten(to.to_owned(), error),
        };
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)
            .map_err(unwritten)?;
        let store = self.path.parent().unwrap_or(Path::new(".")).to_owned();
        let copy = to.to_owned();
        let copied = self
            .thread
            .ask(move |db| {
                folder::give(&file, &store).map_err(|e| BackupError::Unwritten(copy.clone(), e))?;
                let copied = write(db, &copy)?;
                let parent = copy.parent().filter(|parent| *parent != Path::new(""));
                file.sync_all()
                    .and_then(|()| File::open(parent.unwrap_or(Path::new(".")))?.sync_all())
                    .map_err(|error| BackupError::Unwritten(copy, error))?;
                Ok(copied)
            })
            .await
            .unwrap_or_else(|closed| Err(BackupError::NotWhole(closed.to_string())));
        if copied.is_err() {
            // What failed is said; the rest of a copy would be taken for one.
            let _ = fs::remove_file(to);
        }
        copied
    }
}

/// Fills an empty file.
fn write(db: &Connection, to: &Path) -> Result<Backup, BackupError> {
    let name = to.to_str().ok_or_else(|| {
        let unnamed = io::Error::new(io::ErrorKind::InvalidInput, "its name is not UTF-8");
        BackupError::Unwritten(to.to_owned(), unnamed)
    })?;
    db.execute("VACUUM INTO ?1", [name])
        .map_err(BackupError::Failed)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let copy = Connection::open_with_flags(to, flags).map_err(BackupError::Failed)?;
    // No journal beside it, whatever happens: a copy that is half marked is removed.
    copy.query_row("PRAGMA journal_mode = MEMORY", [], |_| Ok(()))
        .and_then(|()| lineage::follow(&copy))
        .and_then(|()| lineage::follow(&copy))
        .map_err(BackupError::Failed)?;
    files::refuse_damage(to, &copy).map_err(|error| BackupError::NotWhole(error.to_string()))?;
    Ok(Backup {
        pairs: entries::count(&copy).map_err(BackupError::Failed)?,
        canary: super::look::canary(&copy).map_err(BackupError::Failed)?,
    })
}

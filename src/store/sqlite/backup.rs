//! A copy of a store, of one moment, in one file, made beside whatever uses the store. No write-ahead log
//! belongs to it: beside one, the copy is recognised as foreign (see [`super::lineage`]).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::db_thread::{DbThread, Job};
use super::{canary, entries, files, lineage};
use crate::secret::file::give_to_owner_of;
use crate::store::{Backup, BackupError};

/// Writes a copy of the store in `folder` to the new file `to`, which belongs to the folder's owner
/// alone, and reads it back. Leaves no file if it fails.
pub(super) async fn copy(
    thread: &DbThread<Job<Connection>>,
    folder: &Path,
    to: &Path,
) -> Result<Backup, BackupError> {
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
    let (folder, copy) = (folder.to_owned(), to.to_owned());
    let copied = thread
        .ask(move |db| {
            give_to_owner_of(&folder, &file)
                .map_err(|error| BackupError::Unwritten(copy.clone(), error))?;
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

/// Fills an empty file.
fn write(db: &Connection, to: &Path) -> Result<Backup, BackupError> {
    let name = to.to_str().ok_or_else(|| {
        let unnamed = io::Error::new(io::ErrorKind::InvalidInput, "its name is not UTF-8");
        BackupError::Unwritten(to.to_owned(), unnamed)
    })?;
    db.execute("VACUUM INTO ?1", [name]).map_err(failed)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let copy = Connection::open_with_flags(to, flags).map_err(failed)?;
    // No journal beside it, whatever happens: a copy that is half marked is removed.
    copy.query_row("PRAGMA journal_mode = MEMORY", [], |_| Ok(()))
        .and_then(|()| lineage::follow(&copy))
        .and_then(|()| lineage::follow(&copy))
        .map_err(failed)?;
    files::refuse_damage(to, &copy).map_err(|error| BackupError::NotWhole(error.to_string()))?;
    Ok(Backup {
        pairs: entries::count(&copy).map_err(failed)?,
        canary: canary::load(&copy).map_err(failed)?,
    })
}

fn failed(error: rusqlite::Error) -> BackupError {
    BackupError::Failed(Box::new(error))
}

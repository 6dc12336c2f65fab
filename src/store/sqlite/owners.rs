//! Which process runs are alive: each holds a lock on a file of its own, which the kernel drops
//! with the process, however that ends.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::files;
use crate::store::RunId;

/// The lock files of all runs.
#[derive(Clone, Debug)]
pub(super) struct Owners {
    directory: PathBuf,
}

/// Proof to all processes that a run is alive.
#[derive(Debug)]
pub(super) struct Alive {
    /// Locked until dropped.
    _lock: File,
}

impl Owners {
    /// The lock files in `directory`, which is created.
    pub(super) fn open(directory: PathBuf) -> io::Result<Owners> {
        files::create_directory(&directory)?;
        Ok(Owners { directory })
    }

    /// Declares `run` alive and removes the files of the dead. Callers hold the store's opening
    /// lock: a file that another run has made but not locked yet would look dead.
    pub(super) fn enter(&self, run: RunId) -> io::Result<Alive> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if !is_locked(&path)? {
                fs::remove_file(&path)?;
            }
        }
        let lock = files::create(&self.lock_file(&run.to_string()))?;
        lock.try_lock()?;
        Ok(Alive { _lock: lock })
    }

    /// Whether the run that calls itself `owner` is alive; yes where that cannot be found out.
    pub(super) fn is_alive(&self, owner: &str) -> bool {
        is_locked(&self.lock_file(owner)).unwrap_or(true)
    }

    fn lock_file(&self, owner: &str) -> PathBuf {
        self.directory.join(format!("{owner}.lock"))
    }
}

/// Tried with a shared lock, so that two who look at once do not take each other for the owner.
fn is_locked(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

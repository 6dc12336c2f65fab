//! Which process runs are alive: each holds a lock on a file of its own, which the kernel drops
//! with the process, however that ends.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::open_files::{identity, identity_of};
use super::{files, folder};
use crate::store::RunId;

/// The lock files of all runs: a run is alive while it holds the lock on its own.
#[derive(Clone, Debug)]
pub(super) struct Owners {
    /// The store's.
    store: PathBuf,
    directory: PathBuf,
}

/// Proof to all processes that a run is alive. Its file goes when it is dropped, or with the next
/// run that starts. It says which files the run has open.
#[derive(Debug)]
pub(super) struct Alive {
    owners: Owners,
    path: PathBuf,
    /// Locked until dropped.
    lock: File,
    /// What the file says, to write it again if the file is made anew.
    content: String,
}

/// What is known of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It holds its lock.
    Alive,
    /// It let its lock go.
    Dead,
    /// Its file is not there, or not to be opened: it may live.
    Unknown,
}

impl Owners {
    /// The lock files beside the store in `directory`; their folder is created.
    pub(super) fn open(store: &Path) -> io::Result<Owners> {
        let owners = Owners::beside(store);
        folder::create(&owners.directory)?;
        Ok(owners)
    }

    /// The same, without a change there.
    pub(super) fn beside(store: &Path) -> Owners {
        Owners {
            store: store.to_owned(),
            directory: store.join("owners"),
        }
    }

    /// Whether any run that can be asked uses the store in `directory`.
    pub(super) fn any_alive(store: &Path) -> bool {
        lock_files(&store.join("owners")).any(|lock| life(&lock) == Life::Alive)
    }

    /// What the runs that live have written into their files.
    pub(super) fn of_the_living(store: &Path) -> Vec<String> {
        lock_files(&store.join("owners"))
            .filter(|lock| life(lock) == Life::Alive)
            .filter_map(|lock| fs::read_to_string(lock).ok())
            .filter(|content| !content.is_empty())
            .collect()
    }

    /// The runs that died without a word. Callers hold the store's opening lock: a file that another
    /// run has made but not locked yet would look dead.
    pub(super) fn dead(&self) -> Vec<String> {
        lock_files(&self.directory)
            .filter(|lock| life(lock) == Life::Dead)
            .filter_map(|lock| Some(lock.file_stem()?.to_str()?.to_owned()))
            .collect()
    }

    /// Declares `run` alive and removes the files of the dead, whose leases must be void by now, and those
    /// that this user cannot open: a missing file voids no lease. Callers hold the store's
    /// opening lock.
    pub(super) fn enter(&self, run: RunId) -> io::Result<Alive> {
        for lock in lock_files(&self.directory) {
            if life(&lock) != Life::Alive
                && let Err(error) = files::remove_if_there(&lock)
            {
                tracing::debug!(%error, lock = %lock.display(), "a lock file stays");
            }
        }
        let path = self.lock_file(&run.to_string());
        Ok(Alive {
            lock: create_locked(&path)?,
            owners: self.clone(),
            path,
            content: String::new(),
        })
    }

    /// Whether the run that calls itself `owner` is alive.
    pub(super) fn life(&self, owner: &str) -> Life {
        life(&self.lock_file(owner))
    }

    fn lock_file(&self, owner: &str) -> PathBuf {
        self.directory.join(format!("{owner}.lock"))
    }
}

impl Alive {
    /// Writes this into the file, for others to read.
    pub(super) fn write(&mut self, content: String) -> io::Result<()> {
        self.content = content;
        self.lock.set_len(0)?;
        (&self.lock).write_all(self.content.as_bytes())
    }

    /// Makes the file anew if it was removed; says whether it was.
    pub(super) fn renew(&mut self) -> io::Result<bool> {
        if identity(&self.path) == identity_of(&self.lock) {
            return Ok(false);
        }
        let _opening = files::lock(&self.owners.store)?;
        folder::create(&self.owners.directory)?;
        self.lock = create_locked(&self.path)?;
        let content = std::mem::take(&mut self.content);
        self.write(content)?;
        Ok(true)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        // Only its own; left behind, it is removed at the next start.
        if identity(&self.path) == identity_of(&self.lock) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Waits: a process that looks at the file holds a shared lock on it for an instant.
fn create_locked(path: &Path) -> io::Result<File> {
    let lock = folder::create_file(path)?;
    lock.lock()?;
    Ok(lock)
}

fn lock_files(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let found = fs::read_dir(directory).into_iter().flatten().flatten();
    found.map(|lock| lock.path()).filter(|lock| {
        lock.extension()
            .is_some_and(|extension| extension == "lock")
    })
}

/// Tried with a shared lock, so that two who look at once do not take each other for the owner.
fn life(lock: &Path) -> Life {
    let Ok(file) = File::open(lock) else {
        return Life::Unknown;
    };
    match file.try_lock_shared() {
        Ok(()) => Life::Dead,
        Err(TryLockError::WouldBlock) => Life::Alive,
        Err(TryLockError::Error(_)) => Life::Unknown,
    }
}

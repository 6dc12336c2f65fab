//! A private copy of a store's files: what a crash left in the write-ahead log can be read from it
//! without a change to the store.

use std::fs::{self, DirBuilder, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How often a copy is begun again because the files changed while they were copied.
const COPIES: u32 = 5;

/// The database of the tokens and its log.
pub(super) const TOKENS: [&str; 2] = ["tokens.db", "tokens.db-wal"];
/// The database of the leases and its log.
pub(super) const LEASES: [&str; 2] = ["leases.db", "leases.db-wal"];

/// A copy of a database and its log in a folder of its own. Removed when dropped.
pub(in crate::store) struct PrivateCopy {
    pub(in crate::store) path: PathBuf,
}

impl PrivateCopy {
    pub(in crate::store) fn of(directory: &Path, files: [&str; 2]) -> io::Result<PrivateCopy> {
        let name = format!("damoov-proxy-{}", uuid::Uuid::new_v4());
        let copy = PrivateCopy {
            path: std::env::temp_dir().join(name),
        };
        DirBuilder::new().mode(0o700).create(&copy.path)?;
        for _ in 0..COPIES {
            let before = stamps(directory, files);
            for name in files {
                copy_file(&directory.join(name), &copy.path.join(name))?;
            }
            if before == stamps(directory, files) {
                return Ok(copy);
            }
        }
        Err(io::Error::other("it changes while it is copied"))
    }
}

impl Drop for PrivateCopy {
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
fn stamps(directory: &Path, files: [&str; 2]) -> Vec<Option<(u64, u64, i64, i64)>> {
    let stamp = |found: Metadata| (found.ino(), found.len(), found.mtime(), found.mtime_nsec());
    files
        .map(|name| fs::metadata(directory.join(name)).ok().map(stamp))
        .into()
}

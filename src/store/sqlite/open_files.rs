//! The files that a process holds open, by device and inode: a file that was removed or replaced
//! goes on taking writes, and they are gone with the process.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::refusals::Refusal;

/// A database, its write-ahead log, the log's index.
const FILES: [&str; 3] = ["tokens.db", "tokens.db-wal", "tokens.db-shm"];

/// Which files are open, and under which names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpenFiles {
    paths: [PathBuf; 3],
    files: [Identity; 3],
}

impl OpenFiles {
    /// Those that have the names of `tokens.db` and its companions in `directory` now.
    pub(super) fn of(directory: &Path) -> OpenFiles {
        let paths = FILES.map(|name| directory.join(name));
        let files = [0, 1, 2].map(|file| identity(&paths[file]));
        OpenFiles { paths, files }
    }

    /// The first that is gone, or that another file has the name of.
    pub(super) fn moved(&self) -> Option<&Path> {
        let mut held = self.paths.iter().zip(&self.files);
        let moved = held.find(|(path, file)| identity(path) != **file);
        moved.map(|(path, _)| path.as_path())
    }

    /// Its write-ahead log.
    pub(super) fn log(&self) -> &Path {
        &self.paths[1]
    }

    /// What [`OpenFiles::refuse_others`] reads.
    pub(super) fn written_down(&self) -> String {
        let line = |file: &Identity| match file {
            Some((device, inode)) => format!("{device}:{inode}\n"),
            None => "-\n".to_owned(),
        };
        self.files.iter().map(line).collect()
    }

    /// Refuses to work on these files beside a process that wrote down others.
    pub(super) fn refuse_others(&self, written_down: &[String]) -> Result<(), Refusal> {
        let same = written_down.iter().all(|of| *of == self.written_down());
        match same {
            true => Ok(()),
            false => Err(Refusal::Replaced(self.paths[0].clone())),
        }
    }
}

/// Device and inode: which file it is, whatever its name. `None` if there is none.
pub(in crate::store) type Identity = Option<(u64, u64)>;

/// Which file has this name.
pub(in crate::store) fn identity(path: &Path) -> Identity {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// Which file is open.
pub(super) fn identity_of(file: &File) -> Identity {
    let found = file.metadata().ok()?;
    Some((found.dev(), found.ino()))
}

//! The files that a configuration is read from, in the state in which they were: so that a change of one is
//! noticed. A state is that of what the path leads to, through all links; a folder that is swapped for
//! another one, a file that is renamed over another one, and a link that is turned are all changes.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file and its state at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where it is, as it was named.
    pub path: PathBuf,
    /// Its state at that moment.
    pub state: FileState,
}

/// What can be seen of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// It is there.
    There {
        /// Which file it is.
        device: u64,
        /// Which file it is.
        inode: u64,
        /// Bytes.
        size: u64,
        /// Kind and permissions.
        mode: u32,
        /// Whose it is: user and group.
        owner: (u32, u32),
        /// When its content was changed last, in seconds and nanoseconds.
        modified: (i64, i64),
        /// When anything of it was changed last, in seconds and nanoseconds.
        changed: (i64, i64),
    },
    /// It is not, or cannot be looked at.
    Gone(io::ErrorKind),
}

impl Seen {
    /// Looks at the file at `path`. Blocks its thread on I/O.
    pub fn now(path: &Path) -> Seen {
        Seen {
            path: path.to_owned(),
            state: FileState::of(path),
        }
    }
}

impl FileState {
    /// Looks at the file that `path` leads to. Blocks its thread on I/O.
    pub fn of(path: &Path) -> FileState {
        match fs::metadata(path) {
            Ok(found) => FileState::There {
                device: found.dev(),
                inode: found.ino(),
                size: found.size(),
                mode: found.mode(),
                owner: (found.uid(), found.gid()),
                modified: (found.mtime(), found.mtime_nsec()),
                changed: (found.ctime(), found.ctime_nsec()),
            },
            Err(error) => FileState::Gone(error.kind()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn whatever_happens_to_a_file_changes_its_state_and_reading_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for volume in ["one", "two"] {
            fs::create_dir(at(volume)).unwrap();
            fs::write(at(volume).join("file"), volume).unwrap();
        }
        symlink("one", at("data")).unwrap();
        symlink("data/file", at("file")).unwrap();
        let path = at("file");
        let mut last = FileState::of(&path);
        let mut differs = |what: &str| {
            let now = FileState::of(&path);
            assert_ne!(now, last, "{what}");
            last = now;
        };
        // As Kubernetes swaps the volume of a ConfigMap.
        symlink("two", at("next")).unwrap();
        fs::rename(at("next"), at("data")).unwrap();
        differs("another volume");
        fs::set_permissions(at("two/file"), fs::Permissions::from_mode(0o666)).unwrap();
        differs("another mode");
        fs::write(at("two/new"), "two").unwrap();
        fs::rename(at("two/new"), at("two/file")).unwrap();
        differs("as editors replace a file");
        fs::remove_file(at("two/file")).unwrap();
        differs("no file");
        fs::create_dir(at("two/file")).unwrap();
        differs("a folder");

        fs::remove_dir(at("two/file")).unwrap();
        fs::write(at("two/file"), "text").unwrap();
        let before = FileState::of(&at("file"));
        fs::read(at("file")).unwrap();
        assert_eq!(FileState::of(&at("file")), before);
    }
}

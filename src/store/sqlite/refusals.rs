//! Why a store is not opened, in sentences that say what to do.

use std::io;
use std::path::PathBuf;

use super::schema::FORMAT;

/// Why a store was not opened. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum Refusal {
    /// Other files of a store are there.
    #[error(
        "{} is missing although its directory was a store: restore it from a backup, or remove \
         leases.db and owners/ to start empty, which costs every user a login",
        .0.display()
    )]
    Missing(PathBuf),
    /// Empty, or written by another program.
    #[error(
        "{} is not a token store: restore it from a backup, or name another directory as \
         [store] path",
        .0.display()
    )]
    Foreign(PathBuf),
    /// SQLite finds it malformed.
    #[error(
        "{} is damaged ({why}): stop every process that uses it and restore it from a backup",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// SQLite's finding.
        why: String,
    },
    /// Written by a newer version of this program.
    #[error(
        "{} has format {found}, this version knows {FORMAT}: start the newer version, or restore \
         a backup from before the upgrade",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
    },
    /// An earlier format, which could not be brought to this one. Nothing was changed.
    #[error(
        "{} has format {found} and could not be brought to format {FORMAT} ({why}); it was left as \
         it was: see that the disk is writable and has as much space free as the file takes, and \
         start again",
        path.display()
    )]
    Unmigrated {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// SQLite's finding.
        why: String,
    },
    /// Somebody else could put other files in the place of the store's.
    #[error(
        "others may write to {} (mode {mode:04o}), and could put other files in the place of the \
         store's: `chmod 700 {}`, or name a folder in it as [store] path, which is created for its \
         owner alone",
        path.display(),
        path.display()
    )]
    WritableByOthers {
        /// The folder.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The folder is not this user's to write.
    #[error(
        "{} belongs to {owner}, and {user} may not write to it: run this as {owner}, or give the \
         folder to {user}",
        path.display()
    )]
    NotWritable {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: String,
        /// Who may not.
        user: String,
    },
    /// This user's own file or folder.
    #[error(
        "{} belongs to {user}, whom its mode {mode:04o} keeps out: `chmod {needed:o} {}`",
        path.display(),
        path.display()
    )]
    OwnMode {
        /// The file or folder.
        path: PathBuf,
        /// Whose it is.
        user: String,
        /// Its permissions.
        mode: u32,
        /// What they should be.
        needed: u32,
    },
    /// A file that somebody else made.
    #[error(
        "{} belongs to {owner}, and {user}, who runs this, cannot open it: run this as {owner}, or \
         give it to the owner of its folder with `chown`",
        path.display()
    )]
    OfAnother {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: String,
        /// Who cannot.
        user: String,
    },
    /// Something else has the folder's name, or that of one above it.
    #[error("{} is not a folder: name one as [store] path", .0.display())]
    NotAFolder(PathBuf),
    /// The folder, or one above it, is a link.
    #[error(
        "{} is a symbolic link to nothing: make the folder that it names, mount the disk that it \
         lies on, or name another as [store] path",
        .0.display()
    )]
    DanglingLink(PathBuf),
    /// SQLite keeps what belongs to a file beside the file itself, not beside a link to it.
    #[error("{} is a symbolic link: link the folder, not the file", .0.display())]
    Link(PathBuf),
    /// A running process has other files open.
    #[error(
        "{} is not the file that a running process has open: it, or its -wal or -shm, was removed or \
         replaced under that process. Stop every process that uses the store, then start again",
        .0.display()
    )]
    Replaced(PathBuf),
    /// The write-ahead log is that of another file.
    #[error(
        "{} was restored or replaced, and the write-ahead log beside it is left from the file that \
         was there before: they do not belong together. Nothing was changed. Remove tokens.db-wal \
         and tokens.db-shm, then start again",
        .0.display()
    )]
    ForeignLog(PathBuf),
    /// The medium refused.
    #[error("{} cannot be opened: check that it is on a local filesystem, writable and not full", .0.display())]
    Unopened(PathBuf, #[source] io::Error),
}

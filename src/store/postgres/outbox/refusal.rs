//! Why an outbox is not opened, in sentences that say what to do.

use std::io;
use std::path::PathBuf;

use super::pairs::FORMAT;
use crate::store::sqlite::Refusal as FolderRefusal;

/// Why an outbox was not opened.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum Refusal {
    /// The folder is not this user's alone to write.
    #[error(transparent)]
    Folder(#[from] FolderRefusal),
    /// Written by a newer version of this program. The pairs in it would be lost to this one.
    #[error(
        "{} has format {found}, this version knows {FORMAT}: start the newer version",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
    },
    /// The medium refused.
    #[error(
        "the outbox in {} cannot be opened: check that it is on a local filesystem, writable and not full",
        .0.display()
    )]
    Unopened(PathBuf, #[source] io::Error),
}

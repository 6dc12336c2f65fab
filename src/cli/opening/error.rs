//! Why a store cannot be used as it is.

use std::io;
use std::path::PathBuf;

use crate::credentials::{canary, seal};
use crate::secret::file::Unusable;
use crate::store;

/// Why a store cannot be used as it is.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Absent, damaged, newer, not this user's.
    #[error(transparent)]
    Open(#[from] store::OpenError),
    /// The key in the store's own folder cannot be read, or others can write it.
    #[error("{} {why}", path.display())]
    KeyUnusable {
        /// The key file.
        path: PathBuf,
        /// Why.
        why: Unusable,
    },
    /// The key file in the store's own folder is empty, or holds only a part of a key.
    #[error("{} is empty or cut: restore it from its backup; {}", .0.display(), seal::BadKey)]
    KeyCut(PathBuf),
    /// There is no key in the store's own folder, and none can be created.
    #[error("{} cannot be used", path.display())]
    KeyFile {
        /// The key file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key that the tokens were sealed with is gone.
    #[error(
        "{} is lost: it is the key that the stored tokens were sealed with. Restore it from its \
         backup; or set [store] key if the store had a configured one. Without it every user costs \
         a login: to start empty, move the folder away",
        .0.display()
    )]
    KeyLost(PathBuf),
    /// A configured key is not a key.
    #[error("[store] key: {0}")]
    BadKey(#[from] seal::BadKey),
    /// The key is another store's.
    #[error(transparent)]
    Unverified(#[from] canary::Unverified),
    /// It was opened, and then failed.
    #[error(transparent)]
    Failed(#[from] store::Error),
}

impl StoreError {
    /// Whether the store was only not reached: the same may work later.
    pub fn is_away(&self) -> bool {
        matches!(
            self,
            StoreError::Open(store::OpenError::Away(_))
                | StoreError::Failed(store::Error::Away(_))
                | StoreError::Unverified(canary::Unverified::Store(store::Error::Away(_)))
        )
    }
}

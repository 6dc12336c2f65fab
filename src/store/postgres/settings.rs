//! What the configuration says of a PostgreSQL store.

use std::path::PathBuf;

use super::address::Address;
use crate::secret::Secret;
use crate::secret::file::{self, Unusable};

/// How a PostgreSQL store is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The servers, the role and the database.
    pub address: Address,
    /// What proves that this is the role.
    pub password: Password,
    /// Certificates that are trusted besides the platform's.
    pub ca_file: Option<PathBuf>,
    /// How many connections are open at most; at least 1.
    pub connections: usize,
}

/// Where the role's password is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// Nowhere: the server knows the role otherwise, or trusts it.
    Absent,
    /// It was configured itself, or was in the environment.
    Given(Secret),
    /// In a file, which is read at every connect: it may be replaced while the process runs.
    In(PathBuf),
}

impl Password {
    /// The password as it is now. Blocks its thread on I/O.
    pub(super) fn read(&self) -> Result<Option<Secret>, UnusablePassword> {
        match self {
            Password::Absent => Ok(None),
            Password::Given(password) => Ok(Some(password.clone())),
            Password::In(path) => match file::read_secret(path) {
                Ok((password, _)) => Ok(Some(password)),
                Err(why) => Err(UnusablePassword {
                    path: path.clone(),
                    why,
                }),
            },
        }
    }
}

/// The file of the password cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("[store] password: {} {why}", path.display())]
pub(super) struct UnusablePassword {
    path: PathBuf,
    why: Unusable,
}

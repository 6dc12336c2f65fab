//! The contract on SQLite, and what only files can suffer: damage, kills, a full disk.

use tempfile::TempDir;

use super::*;
use crate::store::contract::{Medium, contract};

/// A directory.
struct Directory(TempDir);

impl Default for Directory {
    fn default() -> Directory {
        Directory(tempfile::tempdir().unwrap())
    }
}

impl Medium for Directory {
    type Store = Sqlite;

    fn open(&self, run: RunId) -> Sqlite {
        open(self.0.path(), run).unwrap()
    }
}

contract!(Directory);

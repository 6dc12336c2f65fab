//! What SQLite's errors mean for a store.

use rusqlite::{ErrorCode, ffi};

use crate::principal::Principal;
use crate::store::Error;

/// Whether SQLite says that what it read is not what it, or this program, wrote.
pub(in crate::store) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
    match error {
        FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) => true,
        error => is_file_damage(error),
    }
}

/// The same of the file's pages, not of what one row holds.
pub(super) fn is_file_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// An error of our own finding, in SQLite's words.
pub(in crate::store) fn failure(code: std::ffi::c_int, why: impl Into<String>) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(why.into()))
}

/// What it means for `principal` that its entry could not be read.
pub(super) fn unloaded(principal: &Principal, error: rusqlite::Error) -> Error {
    match is_damage(&error) {
        true => Error::Damaged(principal.clone()),
        false => unreadable(error),
    }
}

/// What it means that rows could not be read.
pub(super) fn unreadable(error: rusqlite::Error) -> Error {
    Error::Unreadable(error.to_string())
}

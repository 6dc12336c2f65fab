//! Refuses a write-ahead log that was left from another `tokens.db`: SQLite would mix a restored file
//! with the log of the one before it.

use std::fs;
use std::path::Path;

use super::connections::open_read_only;
use super::owners::Owners;
use super::refusals::Refusal;
use super::{files, folder, lineage};

/// Refuses a log that is not that of the `tokens.db` beside it. Not to be called while a process uses
/// them.
pub(super) fn refuse_foreign_log(directory: &Path) -> Result<(), Refusal> {
    let tokens = directory.join("tokens.db");
    let log = directory.join("tokens.db-wal");
    if !tokens.exists() || fs::metadata(&log).map_or(0, |log| log.len()) == 0 {
        return Ok(());
    }
    let Ok(alone) = open_read_only(&tokens, "&immutable=1") else {
        // Opening it with its log will say what is wrong.
        return Ok(());
    };
    let belongs =
        lineage::belongs(&alone, &log).map_err(|error| folder::inaccessible(&log, error))?;
    match belongs {
        true => Ok(()),
        false => Err(Refusal::ForeignLog(tokens)),
    }
}

/// A `tokens.db` that is damaged with its log and whole without it is not the one that the log was
/// written for.
pub(super) fn its_log_is_foreign(directory: &Path, error: Refusal) -> Refusal {
    let tokens = directory.join("tokens.db");
    let logged = fs::metadata(directory.join("tokens.db-wal")).map_or(0, |log| log.len());
    let damaged = matches!(error, Refusal::Damaged { .. });
    if !damaged || logged == 0 || Owners::any_alive(directory) {
        return error;
    }
    let alone = open_read_only(&tokens, "&immutable=1");
    match alone.is_ok_and(|alone| files::refuse_damage(&tokens, &alone).is_ok()) {
        true => Refusal::ForeignLog(tokens),
        false => error,
    }
}

//! The statements about tombstones, and the names that they stand under.

use rusqlite::{Connection, params};

use super::entries::{self, HOLDS_SOMETHING};
use crate::principal::Principal;

/// What is known of `?1` is at least this. The change number is a new one: the row that it is taken from,
/// which goes, may have had the largest.
const RAISE: &str = "INSERT INTO entries (principal, seq, generation, epoch)
     VALUES (?1, (SELECT max(seq) + 1 FROM entries), ?2, ?3)
     ON CONFLICT (principal) DO UPDATE SET seq = excluded.seq,
         generation = max(generation, excluded.generation), epoch = max(epoch, excluded.epoch)";
const DROP: &str = "DELETE FROM entries WHERE principal = ?1";

/// Lets tombstones stand under other names. Returns how many moved.
pub(super) fn move_all(
    db: &Connection,
    moved: &[(Principal, Principal)],
) -> rusqlite::Result<usize> {
    let mut rows = 0;
    for (from, to) in moved {
        let stands = entries::load(db, from)?;
        if !stands.is_tombstone() {
            continue;
        }
        let epoch = i64::try_from(stands.epoch)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        db.prepare_cached(RAISE)?
            .execute(params![to, stands.generation, epoch])?;
        rows += db.prepare_cached(DROP)?.execute([from])?;
    }
    Ok(rows)
}

/// Users whose tombstones stand under their own names: those of pseudonyms are UUIDs of version 8. Reads the
/// part of the index `held` that is about rows without a pair.
pub(super) fn in_clear(db: &Connection, limit: usize) -> rusqlite::Result<Vec<Principal>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = db.prepare_cached(&format!(
        "SELECT principal FROM entries
         WHERE (sealed IS NOT NULL) = 0 AND NOT ({HOLDS_SOMETHING}) AND (generation > 0 OR epoch > 0)
             AND principal LIKE 'user:%' AND substr(principal, 20, 1) <> '8'
         LIMIT ?1"
    ))?;
    let principals = statement.query_map([limit], |row| row.get(0))?;
    principals.collect()
}

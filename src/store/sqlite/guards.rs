//! The statements on guards: small rows that all processes share, written by compare-and-swap.

use rusqlite::{Connection, OptionalExtension, params};

use super::entries::unsigned;
use crate::store::{Guard, Guarded};

/// What stands under `name`; version 0 and nothing where it was never written.
pub(super) fn load(db: &Connection, name: &str) -> rusqlite::Result<Guard> {
    let found = db
        .prepare_cached("SELECT version, value FROM guards WHERE name = ?1")?
        .query_row([name], |row| {
            Ok(Guard {
                version: unsigned(row, 0)?,
                value: row.get(1)?,
            })
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// Writes `value` if the version is still `expected`.
pub(super) fn set(
    db: &Connection,
    name: &str,
    expected: u64,
    value: &[u8],
) -> rusqlite::Result<Guarded> {
    let stands = load(db, name)?;
    if stands.version != expected {
        return Ok(Guarded::Superseded(stands));
    }
    let next = expected + 1;
    let version = i64::try_from(next)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    db.prepare_cached(
        "INSERT INTO guards (name, version, value) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET version = excluded.version, value = excluded.value",
    )?
    .execute(params![name, version, value])?;
    Ok(Guarded::Set(next))
}

//! The guards: small rows that all processes share, written by compare-and-swap.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use super::Sqlite;
use super::entries::unsigned;
use crate::store::{Error, Guard, GuardRows, Guarded};

#[async_trait]
impl GuardRows for Sqlite {
    async fn guard(&self, name: &str) -> Result<Guard, Error> {
        let name = name.to_owned();
        self.list_with(move |db| load(db, &name)).await
    }

    async fn set_guard(&self, name: &str, expected: u64, value: Vec<u8>) -> Result<Guarded, Error> {
        let name = name.to_owned();
        self.writer
            .ask(None, move |db| set(db, &name, expected, &value))
            .await
    }
}

/// What stands under `name`: version 0 and an empty value if it was never written.
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
    let next = expected + 1;
    if stands.version == next && stands.value == value {
        // The answer to the same write may have been lost.
        return Ok(Guarded::Set(next));
    }
    if stands.version != expected {
        return Ok(Guarded::Superseded(stands));
    }
    let version = i64::try_from(next)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    db.prepare_cached(
        "INSERT INTO guards (name, version, value) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET version = excluded.version, value = excluded.value",
    )?
    .execute(params![name, version, value])?;
    Ok(Guarded::Set(next))
}

//! The small rows by which all processes agree: guards, and the canary.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::columns::{signed, unsigned};
use super::link::Link;
use super::session::Statement;
use crate::store::{Error, Guard, Guarded};

const GUARD: &str = "SELECT version, value FROM guards WHERE name = $1";
/// Only the first write makes a row; any other needs one.
const SET_GUARD: &str = "INSERT INTO guards AS stands (name, version, value)
    SELECT $1, $2 + 1, $3 WHERE $2 = 0 OR (SELECT true FROM guards WHERE name = $1)
    ON CONFLICT (name) DO UPDATE SET version = excluded.version, value = excluded.value
    WHERE stands.version = $2";
const CANARY: &str = "SELECT canary FROM meta WHERE id = 1 AND canary IS NOT NULL";
const LEAVE_CANARY: &str = "UPDATE meta SET canary = $1 WHERE id = 1 AND canary IS NULL";
const REPLACE_CANARY: &str = "UPDATE meta SET canary = $2 WHERE id = 1 AND canary IN ($1, $2)
    RETURNING id";

/// As [`crate::store::GuardRows::guard`].
pub(super) async fn guard(link: &Link, name: &str) -> Result<Guard, Error> {
    Ok(standing(&link.read(GUARD, [(&name, Type::TEXT)]).await?))
}

/// As [`crate::store::GuardRows::set_guard`].
pub(super) async fn set_guard(
    link: &Link,
    name: &str,
    expected: u64,
    value: Vec<u8>,
) -> Result<Guarded, Error> {
    let version = signed(expected);
    let by_name = [(&name as _, Type::TEXT)];
    let all = [
        (&name as _, Type::TEXT),
        (&version as _, Type::INT8),
        (&value as _, Type::BYTEA),
    ];
    let done = link.write([
        Statement {
            sql: SET_GUARD,
            parameters: &all,
        },
        Statement {
            sql: GUARD,
            parameters: &by_name,
        },
    ]);
    // Written now, or by an earlier attempt whose answer was lost.
    let [_, stands] = done.await?;
    let stands = standing(&stands);
    match stands.version == expected + 1 && stands.value == value {
        true => Ok(Guarded::Set(stands.version)),
        false => Ok(Guarded::Superseded(stands)),
    }
}

fn standing(rows: &[Row]) -> Guard {
    let guard = |row: &Row| Guard {
        version: unsigned(row.get(0)),
        value: row.get(1),
    };
    rows.first().map(guard).unwrap_or_default()
}

/// As [`crate::store::Store::canary`].
pub(super) async fn canary(link: &Link) -> Result<Option<Vec<u8>>, Error> {
    let rows = link.read(CANARY, []).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// As [`crate::store::Store::leave_canary`].
pub(super) async fn leave_canary(link: &Link, fresh: Vec<u8>) -> Result<Vec<u8>, Error> {
    let parameters = [(&fresh as _, Type::BYTEA)];
    let done = link.write([
        Statement {
            sql: LEAVE_CANARY,
            parameters: &parameters,
        },
        Statement {
            sql: CANARY,
            parameters: &[],
        },
    ]);
    let [_, stands] = done.await?;
    let stands = stands.first().map(|row| row.get(0));
    stands.ok_or_else(|| {
        let why = "its table meta is empty: restore the database as a whole";
        Error::Unwritable(why.to_owned())
    })
}

/// As [`crate::store::Store::replace_canary`].
pub(super) async fn replace_canary(
    link: &Link,
    stands: Vec<u8>,
    fresh: Vec<u8>,
) -> Result<bool, Error> {
    let parameters = [(&stands as _, Type::BYTEA), (&fresh as _, Type::BYTEA)];
    let done = link.write([Statement {
        sql: REPLACE_CANARY,
        parameters: &parameters,
    }]);
    let [replaced] = done.await?;
    Ok(!replaced.is_empty())
}

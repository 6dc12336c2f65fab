//! Tombstones, and the names that they stand under.

use tokio_postgres::types::Type;

use super::columns::{LOCK, holds_something};
use super::link::Link;
use super::session::Statement;
use crate::principal::Principal;
use crate::store::Error;

const MOVE: &str = concat!(
    "WITH gone AS (
        DELETE FROM entries USING unnest($1::text[], $2::text[]) AS moved (former, latter)
        WHERE entries.principal = moved.former AND (generation > 0 OR epoch > 0) AND NOT ",
    holds_something!(),
    " RETURNING moved.latter AS principal, entries.generation, entries.epoch
    )
    INSERT INTO entries AS stands (principal, generation, epoch)
    SELECT principal, max(generation), max(epoch) FROM gone GROUP BY principal ORDER BY principal
    ON CONFLICT (principal) DO UPDATE SET
        generation = greatest(stands.generation, excluded.generation),
        epoch = greatest(stands.epoch, excluded.epoch)
    RETURNING principal"
);
/// Whoever reads the feed has read that long ago; one who has not finds a gap.
const UNTELL: &str = "DELETE FROM feed WHERE principal = ANY($1)";
/// Whoever holds a pair has a row in `due`: both keys are read from their indexes. The names of pseudonyms
/// are UUIDs of version 8.
const IN_CLEAR: &str = concat!(
    "SELECT principal FROM entries LEFT JOIN due USING (principal)
     WHERE due.principal IS NULL AND principal LIKE 'user:%' AND substr(principal, 20, 1) <> '8'
         AND (generation > 0 OR epoch > 0) AND NOT ",
    holds_something!(),
    " LIMIT $1"
);

/// As [`crate::store::Store::move_tombstones`].
pub(super) async fn move_all(
    link: &Link,
    moved: &[(Principal, Principal)],
) -> Result<usize, Error> {
    let former: Vec<String> = moved.iter().map(|(from, _)| from.to_string()).collect();
    let latter: Vec<String> = moved.iter().map(|(_, to)| to.to_string()).collect();
    let mut all = [former.as_slice(), latter.as_slice()].concat();
    all.sort();
    let locked = [(&all as _, Type::TEXT_ARRAY)];
    let told = [(&former as _, Type::TEXT_ARRAY)];
    let both = [
        (&former as _, Type::TEXT_ARRAY),
        (&latter as _, Type::TEXT_ARRAY),
    ];
    let written = link.write([
        Statement {
            sql: LOCK,
            parameters: &locked,
        },
        Statement {
            sql: MOVE,
            parameters: &both,
        },
        Statement {
            sql: UNTELL,
            parameters: &told,
        },
    ]);
    let [_, moved, _] = written.await?;
    Ok(moved.len())
}

/// As [`crate::store::Store::tombstones_in_clear`].
pub(super) async fn in_clear(link: &Link, limit: usize) -> Result<Vec<Principal>, Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = link.read(IN_CLEAR, [(&limit as _, Type::INT8)]).await?;
    let principals = rows.iter().map(|row| Principal::parse(row.get(0)));
    Ok(principals.flatten().collect())
}

//! Strangers: principals of which nothing is known but a rejected login. `rejections` is how they are
//! found again, for `entries` has no index but its key.

use tokio_postgres::types::Type;

use super::columns::LOCK;
use super::link::Link;
use super::session::Statement;
use crate::clock::Timestamp;
use crate::store::Error;

/// Follows the entries `$1`.
pub(super) const REJECTION_FOLLOWS: &str = "INSERT INTO rejections (principal, until)
    SELECT principal, rejected_until FROM entries
    WHERE principal = ANY($1) AND rejected_until IS NOT NULL
        AND generation = 0 AND epoch = 0 AND sealed IS NULL
    ON CONFLICT (principal) DO UPDATE SET until = excluded.until";

const FIND: &str = "SELECT principal FROM rejections WHERE until <= $1 OR until > $2 LIMIT $3";
const DROP: &str = "DELETE FROM entries
    WHERE principal = ANY($1) AND (rejected_until <= $2 OR rejected_until > $3)
        AND generation = 0 AND epoch = 0 AND sealed IS NULL AND displaced IS NULL
        AND contested_until IS NULL AND suppressed_until IS NULL AND registered_in IS NULL
    RETURNING principal";
/// Those that are no strangers any more as well.
const DROP_REJECTIONS: &str =
    "DELETE FROM rejections WHERE principal = ANY($1) AND (until <= $2 OR until > $3)";

/// As [`crate::store::Store::drop_rejected`].
pub(super) async fn drop_rejected(
    link: &Link,
    now: Timestamp,
    latest: Timestamp,
    limit: usize,
) -> Result<usize, Error> {
    let (now, latest) = (now.as_millis(), latest.as_millis());
    let mut dropped = 0;
    while dropped < limit {
        let most = i64::try_from(limit - dropped).unwrap_or(i64::MAX);
        let found = link.read(
            FIND,
            [
                (&now, Type::INT8),
                (&latest, Type::INT8),
                (&most, Type::INT8),
            ],
        );
        let found = found.await?;
        let found: Vec<String> = found.iter().map(|row| row.get(0)).collect();
        if found.is_empty() {
            break;
        }
        let principals = [(&found as _, Type::TEXT_ARRAY)];
        let all = [
            (&found as _, Type::TEXT_ARRAY),
            (&now as _, Type::INT8),
            (&latest as _, Type::INT8),
        ];
        let gone = link.write([
            Statement {
                sql: LOCK,
                parameters: &principals,
            },
            Statement {
                sql: DROP,
                parameters: &all,
            },
            Statement {
                sql: DROP_REJECTIONS,
                parameters: &all,
            },
        ]);
        let [_, gone, _] = gone.await?;
        dropped += gone.len();
    }
    Ok(dropped)
}

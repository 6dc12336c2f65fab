//! Pairs that are due, each claimed by one process at a time.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::columns::{millis, now, signed};
use super::link::Link;
use super::session::Statement;
use crate::clock::Timestamp;
use crate::principal::Principal;
use crate::store::Error;

/// Does not wait for another process that claims the same rows.
const CLAIM: &str = concat!(
    "WITH claimed AS MATERIALIZED (
        SELECT principal FROM due
        WHERE NOT dead AND received < $1 AND claimed_until <= ",
    now!(),
    " ORDER BY received LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    UPDATE due SET claimed_until = ",
    now!(),
    " + $3 FROM claimed WHERE due.principal = claimed.principal
    RETURNING due.principal, due.received"
);

/// As [`crate::store::Store::claim_due`].
pub(super) async fn claim(
    link: &Link,
    before: Timestamp,
    limit: usize,
    hold: Duration,
) -> Result<Vec<Principal>, Error> {
    let (before, limit, hold) = (before.as_millis(), signed(limit as u64), millis(hold));
    let parameters = [
        (&before as _, Type::INT8),
        (&limit as _, Type::INT8),
        (&hold as _, Type::INT8),
    ];
    let claimed = link.write([Statement {
        sql: CLAIM,
        parameters: &parameters,
    }]);
    let [claimed] = claimed.await?;
    let mut claimed: Vec<(i64, &str)> =
        claimed.iter().map(|row| (row.get(1), row.get(0))).collect();
    claimed.sort_unstable();
    Ok(claimed
        .into_iter()
        .filter_map(|(_, key)| Principal::parse(key))
        .collect())
}

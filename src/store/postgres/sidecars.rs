//! Who shares the store: one row for each living process, written often. Writing it shows as well that the
//! store takes writes.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::link::Link;
use super::session::Statement;
use crate::store::{Error, RunId};

/// The first turns of a process come sooner: those that start together soon know of each other.
pub(super) const FIRST: Duration = Duration::from_secs(1);
/// How often a process writes its row.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// Writes the row of the process `$1`, drops those of processes that died a day ago, and counts the others
/// that were seen in the last 30 s: three of their turns. All by the server's clock. A row that another
/// server's clock put into the future counts no more.
const BEAT: &str = "WITH clock AS ( \
         SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8 AS now \
     ), mine AS ( \
         INSERT INTO sidecars (run, seen) SELECT $1, now FROM clock \
         ON CONFLICT (run) DO UPDATE SET seen = excluded.seen \
     ), dead AS ( \
         DELETE FROM sidecars USING clock WHERE run <> $1 AND seen < now - 86400000 \
     ) \
     SELECT count(*) FROM sidecars, clock \
     WHERE run <> $1 AND seen BETWEEN now - 30000 AND now + 30000";

const LEAVE: &str = "DELETE FROM sidecars WHERE run = $1";

/// Says that this process lives. Returns how many do, this one included.
pub(super) async fn beat(link: &Link, run: RunId) -> Result<u32, Error> {
    let parameters = [(&run.0 as _, Type::UUID)];
    let statement = Statement {
        sql: BEAT,
        parameters: &parameters,
    };
    let [rows] = link.write([statement]).await?;
    let others: i64 = rows.first().map_or(0, |row| row.get(0));
    Ok(u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1))
}

/// Says that this process ends.
pub(super) async fn leave(link: &Link, run: RunId) -> Result<(), Error> {
    let parameters = [(&run.0 as _, Type::UUID)];
    let statement = Statement {
        sql: LEAVE,
        parameters: &parameters,
    };
    link.write([statement]).await.map(drop)
}

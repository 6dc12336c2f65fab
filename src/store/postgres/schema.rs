//! The tables of a store, how they come to be, and which format they have. The names are not qualified:
//! they are looked up, and created, in the schemas of the role's `search_path`. A pooler in transaction
//! mode keeps no other setting, and a role that owns one schema needs nothing else.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::types::Type;

use super::errors::{Failure, Within};
use super::session::{Session, Statement, WritersLock};
use super::uses;
use crate::store::Error;

/// The format of [`TABLES`]; there has been no other yet, and nothing here changes tables that stand. Those of
/// [`uses`] came later, and are made where they are missing. A process refuses the tables of every other format. Only a change that processes of this one could not live
/// with may therefore raise it: older and newer ones work side by side while they are replaced.
pub(super) const FORMAT: i32 = 1;

/// How often tables are created that other processes create at the same moment.
const ATTEMPTS: u32 = 10;
/// Between two of those.
const PAUSE: Duration = Duration::from_millis(50);

/// In the order in which they are created. Principals are compared byte by byte, as they are sorted here
/// before they are locked. Times called `until` and `seen` are milliseconds of the server's clock; those of
/// entries, and `received`, are a [`crate::clock::Timestamp`]'s. Columns of eight bytes come first, and those
/// of varying length last, so that no room between them is left empty.
const TABLES: [&str; 12] = [
    // One wide row for each principal. Only its key is indexed, and a page has room for one row more: a
    // renewal then writes the new row into the same page and touches no index (a HOT update), in the place
    // that the row of an earlier renewal left. With a JWT of 1 kB a page has five rows, and that room.
    r#"CREATE TABLE entries (
        generation bigint NOT NULL DEFAULT 0,
        epoch bigint NOT NULL DEFAULT 0,
        received bigint,
        expires bigint,
        refresh_dead bigint,
        answer_lost bigint,
        rejected_until bigint,
        displaced bigint,
        contested_until bigint,
        suppressed_until bigint,
        run uuid,
        instance uuid,
        registered_in uuid,
        known boolean NOT NULL DEFAULT false,
        key_id bytea,
        rejected_with bytea,
        principal text COLLATE "C" PRIMARY KEY,
        sealed bytea
    ) WITH (fillfactor = 84)"#,
    // What is sealed cannot be compressed: the server is not to try.
    "ALTER TABLE entries ALTER COLUMN sealed SET STORAGE EXTERNAL",
    // One narrow row for each pair: what the keeper looks for, and what is counted. Of the indexes of pairs
    // a renewal changes those of this table alone. Rows are made, changed and dropped under the lock of the
    // entry; only a claim goes without.
    r#"CREATE TABLE due (
        received bigint NOT NULL,
        claimed_until bigint NOT NULL DEFAULT 0,
        dead boolean NOT NULL DEFAULT false,
        key_id bytea NOT NULL,
        principal text COLLATE "C" PRIMARY KEY
    ) WITH (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.05)"#,
    "CREATE INDEX due_received ON due (received) WHERE NOT dead",
    // Principals without a pair whose login was rejected, so that they are found again. A row may be out
    // of date: the entry decides.
    r#"CREATE TABLE rejections (
        until bigint NOT NULL,
        principal text COLLATE "C" PRIMARY KEY
    )"#,
    "CREATE INDEX rejections_until ON rejections (until)",
    // A row for each lease that is held, or was never ended.
    r#"CREATE TABLE leases (
        since bigint NOT NULL,
        until bigint NOT NULL,
        id uuid NOT NULL,
        run uuid NOT NULL,
        orphaned boolean NOT NULL,
        principal text COLLATE "C" PRIMARY KEY
    ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)"#,
    "CREATE TABLE budgets (
        login_group text PRIMARY KEY,
        version bigint NOT NULL,
        history text NOT NULL
    )",
    "CREATE TABLE guards (
        name text PRIMARY KEY,
        version bigint NOT NULL,
        value bytea NOT NULL
    )",
    // What every process must hear of: one entry, or NULL for any. The newest number stands in `meta`.
    r#"CREATE TABLE feed (
        number bigint PRIMARY KEY,
        generation bigint,
        epoch bigint,
        principal text COLLATE "C"
    ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)"#,
    "CREATE TABLE sidecars (
        run uuid PRIMARY KEY,
        seen bigint NOT NULL
    )",
    // One row.
    "CREATE TABLE meta (
        id integer PRIMARY KEY,
        format integer NOT NULL,
        canary bytea,
        feed_end bigint NOT NULL DEFAULT 0
    )",
];

const IS_THERE: &str = "SELECT to_regclass('meta') IS NOT NULL";
const READ_FORMAT: &str = "SELECT format FROM meta WHERE id = 1";
const WRITE_FORMAT: &str = "INSERT INTO meta (id, format) VALUES (1, $1)";

/// Why the tables cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum Unusable {
    /// Others made them.
    #[error(
        "the store has format {0}, and this version of damoov-proxy knows format {FORMAT}: replace it \
         by the version that the other processes on the store have"
    )]
    Format(i32),
    /// They cannot be read, or made.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Whether there are tables.
pub(super) async fn is_there(session: &mut Session) -> Result<bool, Error> {
    let rows = session.query(IS_THERE, &[]).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// Refuses tables of another format.
pub(super) async fn check(session: &mut Session) -> Result<(), Unusable> {
    let rows = session.query(READ_FORMAT, &[]).await?;
    match rows.first().map_or(0, |row| row.get(0)) {
        FORMAT => Ok(()),
        other => Err(Unusable::Format(other)),
    }
}

/// What there is of the tables.
enum There {
    Nothing,
    /// All but those that this format did not have from the start: processes that do not know them go on
    /// beside this one.
    TheFirst,
    All,
}

/// Makes the tables that are missing; refuses those of another format.
pub(super) async fn prepare(session: &mut Session) -> Result<(), Unusable> {
    let mut attempts = ATTEMPTS;
    loop {
        attempts -= 1;
        let made = match look(session).await? {
            There::Nothing => create(session).await,
            There::TheFirst => session
                .transaction(WritersLock::Shared, &made_by(&uses::TABLES))
                .await
                .map(drop),
            There::All => return Ok(()),
        };
        match made {
            Ok(()) => return Ok(()),
            // Another process makes the same tables: one of both fails, at whatever table they meet.
            Err(Failure::Refused(refused)) if attempts > 0 => {
                tracing::debug!(%refused, "the tables are not made");
            }
            Err(failure) => return Err(failure.of_call(Within::Transaction).into()),
        }
        sleep(PAUSE).await;
    }
}

async fn look(session: &mut Session) -> Result<There, Unusable> {
    if !is_there(session).await? {
        return Ok(There::Nothing);
    }
    check(session).await?;
    let rows = session.query(uses::ARE_THERE, &[]).await?;
    Ok(match rows.first().is_some_and(|row| row.get(0)) {
        true => There::All,
        false => There::TheFirst,
    })
}

/// Makes all tables, or none.
async fn create(session: &mut Session) -> Result<(), Failure> {
    let format = [(&FORMAT as _, Type::INT4)];
    let mut statements = made_by(&TABLES);
    statements.extend(made_by(&uses::TABLES));
    statements.push(Statement {
        sql: WRITE_FORMAT,
        parameters: &format,
    });
    session
        .transaction(WritersLock::Shared, &statements)
        .await
        .map(drop)
}

fn made_by<'a>(tables: &[&'static str]) -> Vec<Statement<'a>> {
    let made = tables.iter().map(|sql| Statement {
        sql,
        parameters: &[],
    });
    made.collect()
}

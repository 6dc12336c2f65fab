//! The statements of an outbox.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::principal::Principal;
use crate::store::postgres::pending::Pending;
use crate::store::sqlite::entries::unsigned;
use crate::store::{LeaseId, Record, Version};

/// `DPXO`, in the header of every outbox.
pub(super) const APPLICATION_ID: i64 = 0x4450_584f;
/// The `user_version` of an outbox; raised with each change of [`TABLES`].
pub(super) const FORMAT: i64 = 1;

/// Times are milliseconds since the Unix epoch.
const TABLES: &str = "
    CREATE TABLE pairs (
        place INTEGER PRIMARY KEY, -- the order in which they were put
        principal TEXT NOT NULL UNIQUE,
        generation INTEGER NOT NULL, -- of the entry that the pair replaces
        epoch INTEGER NOT NULL, -- of the same
        lease TEXT, -- that ends with the commit
        instance TEXT,
        known INTEGER NOT NULL,
        sealed BLOB NOT NULL,
        key_id BLOB NOT NULL,
        received INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        run TEXT NOT NULL
    ) STRICT;
    CREATE TABLE probe (id INTEGER PRIMARY KEY, value BLOB NOT NULL) STRICT;
";
/// What [`pending`] reads.
macro_rules! columns {
    () => {
        "principal, generation, epoch, lease, instance, known, sealed, key_id, received, expires, \
         run, place"
    };
}
/// A later pair takes the place of an earlier one. Two processes may have put both, in any order.
const PUT: &str = "
    INSERT INTO pairs (principal, generation, epoch, lease, instance, known, sealed, key_id,
        received, expires, run)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
    ON CONFLICT (principal) DO UPDATE SET generation = excluded.generation, epoch = excluded.epoch,
        lease = excluded.lease, instance = excluded.instance, known = excluded.known,
        sealed = excluded.sealed, key_id = excluded.key_id, received = excluded.received,
        expires = excluded.expires, run = excluded.run
    WHERE (excluded.epoch, excluded.received, excluded.generation) >= (epoch, received, generation)";
/// Compares the text, too: a later pair may have taken the place meanwhile.
const REMOVE: &str =
    "DELETE FROM pairs WHERE principal = ?1 AND generation = ?2 AND epoch = ?3 AND sealed = ?4";
const FIND: &str = concat!("SELECT ", columns!(), " FROM pairs WHERE principal = ?1");
const PAGE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM pairs WHERE place > ?1 ORDER BY place LIMIT ?2"
);
const COUNT: &str = "SELECT count(*) FROM pairs";
const PROBE: &str = "INSERT INTO probe VALUES (1, randomblob(8))
     ON CONFLICT DO UPDATE SET value = excluded.value";

/// Makes the tables of an empty outbox.
pub(super) fn create(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(TABLES)?;
    db.pragma_update(None, "application_id", APPLICATION_ID)?;
    db.pragma_update(None, "user_version", FORMAT)
}

/// Keeps a pair, unless a later one of its principal is there.
pub(super) fn put(db: &Connection, pending: &Pending) -> rusqlite::Result<()> {
    let Pending {
        principal,
        record,
        over,
        lease,
    } = pending;
    let lease = lease.map(|lease| lease.0.to_string());
    db.prepare_cached(PUT)?.execute(params![
        principal,
        over.generation,
        epoch(over)?,
        lease,
        record.instance,
        record.known,
        record.sealed,
        record.key,
        record.received,
        record.expires,
        record.run,
    ])?;
    Ok(())
}

/// Removes this very pair.
pub(super) fn remove(db: &Connection, pending: &Pending) -> rusqlite::Result<()> {
    let Pending {
        principal,
        record,
        over,
        ..
    } = pending;
    let values = params![principal, over.generation, epoch(over)?, record.sealed];
    db.prepare_cached(REMOVE)?.execute(values).map(drop)
}

/// The pair of `principal`.
pub(super) fn find(db: &Connection, principal: &Principal) -> rusqlite::Result<Option<Pending>> {
    db.prepare_cached(FIND)?
        .query_row([principal], pending)
        .optional()
}

/// Pairs with their places, in order, after the place `after`.
pub(super) fn page(
    db: &Connection,
    after: i64,
    limit: usize,
) -> rusqlite::Result<Vec<(i64, Pending)>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = db.prepare_cached(PAGE)?;
    let rows = statement.query_map([after, limit], |row| Ok((row.get(11)?, pending(row)?)))?;
    rows.collect()
}

/// All that can be read, up to the first that cannot.
pub(super) fn readable(db: &Connection) -> Vec<Pending> {
    let Ok(mut statement) = db.prepare(concat!("SELECT ", columns!(), " FROM pairs")) else {
        return Vec::new();
    };
    let rows = statement.query_map([], pending);
    rows.map_or_else(|_| Vec::new(), |rows| rows.map_while(Result::ok).collect())
}

/// How many pairs wait.
pub(super) fn count(db: &Connection) -> rusqlite::Result<u64> {
    db.prepare_cached(COUNT)?
        .query_row([], |row| unsigned(row, 0))
}

/// A small write that is durable when it works.
pub(super) fn probe(db: &Connection) -> rusqlite::Result<()> {
    db.prepare_cached(PROBE)?.execute([]).map(drop)
}

fn epoch(over: &Version) -> rusqlite::Result<i64> {
    i64::try_from(over.epoch).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// Reads `columns!()`, by their places.
fn pending(row: &Row<'_>) -> rusqlite::Result<Pending> {
    let lease: Option<String> = row.get(3)?;
    Ok(Pending {
        principal: row.get(0)?,
        over: Version {
            generation: row.get(1)?,
            epoch: unsigned(row, 2)?,
        },
        // What is no id names no lease that could be held.
        lease: lease.and_then(|lease| lease.parse().ok().map(LeaseId)),
        record: Record {
            instance: row.get(4)?,
            known: row.get(5)?,
            sealed: row.get(6)?,
            key: row.get(7)?,
            received: row.get(8)?,
            expires: row.get(9)?,
            run: row.get(10)?,
        },
    })
}

//! What stands in a `tokens.db`: the tables of this version, and the way there from every earlier
//! one. Knows statements alone; which file is opened, and by whom, is the business of [`files`].
//!
//! [`files`]: super::files

use std::time::Duration;

use rusqlite::Connection;
use uuid::Uuid;

use super::budgets;
use super::errors::failure;
use super::transaction::Transaction;
use super::uses;
use crate::clock::{Clock, Timestamp};
use crate::store::SlotId;
use crate::store::windows::History;

/// `DPXY`, in the header of every `tokens.db`.
pub(super) const APPLICATION_ID: i64 = 0x4450_5859;
/// The `user_version` of a `tokens.db`; raised with each change of [`TABLES`], to which
/// [`MIGRATIONS`] gets one step more.
pub(super) const FORMAT: i64 = 2;

const DAY: Duration = Duration::from_secs(86_400);

/// Read and written by [`super::entries`], [`super::budgets`], [`super::guards`] and
/// [`super::lineage`]. Times are
/// milliseconds since the Unix epoch. No checks: they would make one damaged row a damaged store.
const TABLES: &str = "
    CREATE TABLE entries (
        principal TEXT PRIMARY KEY,
        seq INTEGER NOT NULL UNIQUE, -- which change of the store was this row's last
        generation INTEGER NOT NULL DEFAULT 0,
        epoch INTEGER NOT NULL DEFAULT 0,
        instance TEXT,
        known INTEGER NOT NULL DEFAULT 0,
        sealed BLOB, -- a row without is a tombstone, whose key is a pseudonym, or notes alone
        received INTEGER,
        expires INTEGER,
        run TEXT,
        refresh_dead INTEGER,
        answer_lost INTEGER,
        rejected_until INTEGER,
        rejected_with BLOB,
        displaced INTEGER,
        contested_until INTEGER,
        key_id BLOB, -- of the key that opens `sealed`, as that says itself
        suppressed_until INTEGER
    ) STRICT;
    CREATE INDEX due ON entries (received) WHERE sealed IS NOT NULL
        AND (refresh_dead IS NULL OR refresh_dead <> generation);
    CREATE INDEX held ON entries (sealed IS NOT NULL, key_id);
    CREATE INDEX rejected ON entries (rejected_until) WHERE rejected_until IS NOT NULL;
    CREATE TABLE login_budgets (
        login_group TEXT PRIMARY KEY,
        history TEXT NOT NULL -- JSON
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE guards (
        name TEXT PRIMARY KEY,
        version INTEGER NOT NULL, -- counts the writes of this row
        value BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE lineage (
        id INTEGER PRIMARY KEY, -- one row
        previous BLOB NOT NULL, -- the transaction that the last one followed
        current BLOB NOT NULL -- the last one
    ) STRICT;
    INSERT INTO lineage VALUES (1, zeroblob(8), randomblob(8));
    CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
";

/// The step from each format to the next one, the first from format 1.
const MIGRATIONS: [fn(&Connection, Clock) -> rusqlite::Result<()>; 1] = [to_2];
const _: () = assert!(MIGRATIONS.len() as i64 + 1 == FORMAT);

/// Makes the tables of an empty store, in one transaction.
pub(super) fn create(db: &Connection) -> rusqlite::Result<()> {
    let transaction = Transaction::writing(db)?;
    transaction.execute_batch(TABLES)?;
    transaction.execute_batch(uses::TABLE)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

/// Brings the tables of an earlier format to this one, in one transaction: if it fails, or the process
/// ends, the earlier format stands. Returns the format that was found.
pub(super) fn migrate(db: &Connection, clock: Clock) -> rusqlite::Result<i64> {
    let transaction = Transaction::writing(db)?;
    let found = format(&transaction)?;
    let done = usize::try_from(found - 1).unwrap_or(usize::MAX);
    for step in MIGRATIONS.iter().skip(done) {
        step(&transaction, clock)?;
    }
    complete(&transaction)?;
    if found < FORMAT {
        transaction.pragma_update(None, "user_version", FORMAT)?;
    }
    transaction.commit()?;
    Ok(found)
}

/// Adds the columns and tables that this format did not have from the start. They are ones that a process
/// which does not know them need not write, so that it may go on beside this one: they raise no format.
fn complete(db: &Connection) -> rusqlite::Result<()> {
    if !has_every_column(db)? {
        db.execute_batch("ALTER TABLE entries ADD COLUMN suppressed_until INTEGER")?;
    }
    db.execute_batch(uses::TABLE)
}

fn has_every_column(db: &Connection) -> rusqlite::Result<bool> {
    db.prepare("SELECT 1 FROM pragma_table_info('entries') WHERE name = 'suppressed_until'")?
        .exists([])
}

fn has_every_table(db: &Connection) -> rusqlite::Result<bool> {
    db.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'uses_day'")?
        .exists([])
}

/// Whether the tables are what [`migrate`] makes of them.
pub(super) fn is_current(db: &Connection) -> rusqlite::Result<bool> {
    Ok(format(db)? == FORMAT && has_every_column(db)? && has_every_table(db)?)
}

/// Lets a connection that must change nothing read tables of this format that are not complete: a view of
/// its own, in memory, stands before the table.
pub(super) fn complete_in_memory(db: &Connection) -> rusqlite::Result<()> {
    match has_every_column(db)? {
        true => Ok(()),
        false => db.execute_batch(
            "PRAGMA temp_store = MEMORY;
             CREATE TEMP VIEW entries AS SELECT *, NULL AS suppressed_until FROM main.entries",
        ),
    }
}

/// Format 1 kept no key ids, no guards, and counted logins by the wall clock alone. Its sealed texts
/// begin with the byte 1 and the id of their key. A process of it that still runs goes on to store
/// what its refreshes bring, and finds no login budget.
pub(super) fn to_2(db: &Connection, clock: Clock) -> rusqlite::Result<()> {
    db.execute_batch(
        "ALTER TABLE entries ADD COLUMN key_id BLOB;
         UPDATE entries SET key_id = substr(sealed, 2, 4) WHERE substr(sealed, 1, 1) = x'01';
         DROP INDEX held;
         CREATE INDEX held ON entries (sealed IS NOT NULL, key_id);
         CREATE INDEX rejected ON entries (rejected_until) WHERE rejected_until IS NOT NULL;
         CREATE TABLE login_budgets (
             login_group TEXT PRIMARY KEY,
             history TEXT NOT NULL
         ) STRICT, WITHOUT ROWID;
         CREATE TABLE guards (
             name TEXT PRIMARY KEY,
             version INTEGER NOT NULL,
             value BLOB NOT NULL
         ) STRICT, WITHOUT ROWID;
         CREATE TABLE lineage (
             id INTEGER PRIMARY KEY,
             previous BLOB NOT NULL,
             current BLOB NOT NULL
         ) STRICT;
         INSERT INTO lineage VALUES (1, zeroblob(8), randomblob(8));",
    )?;
    let now = clock.unscaled().stamp();
    let mut budgets =
        db.prepare("SELECT login_group, taken, blocked_until, halved_until FROM budgets")?;
    let mut rows = budgets.query([])?;
    while let Some(row) = rows.next()? {
        // What cannot be read cannot be kept: then all slots of the group are free.
        let taken: Vec<i64> =
            serde_json::from_slice(row.get_ref(1)?.as_bytes()?).unwrap_or_default();
        let slots = taken.into_iter().map(|millis| {
            let wall = Timestamp::from_millis(millis);
            (SlotId(Uuid::new_v4()), now.minus(now.wall.since(wall)))
        });
        let left = |column| {
            let until: Option<Timestamp> = row.get(column)?;
            Ok::<_, rusqlite::Error>(until.map_or(Duration::ZERO, |until| until.since(now.wall)))
        };
        // A clock that was ahead then must not block for as long now.
        let history = History::of_earlier(slots, left(2)?.min(DAY), left(3)?.min(DAY), now);
        budgets::store(db, &row.get::<_, String>(0)?, &history)?;
    }
    drop(rows);
    drop(budgets);
    db.execute_batch("DROP TABLE budgets")
}

/// The format of the tables that `db` sees now.
pub(super) fn format(db: &Connection) -> rusqlite::Result<i64> {
    db.prepare_cached("PRAGMA user_version")?
        .query_row([], |row| row.get(0))
}

/// Refuses tables of another format: a newer version of this program has migrated them since.
pub(super) fn expect_current(db: &Connection) -> rusqlite::Result<()> {
    match format(db)? {
        FORMAT => Ok(()),
        // It was current when it was opened.
        0 => Err(failure(rusqlite::ffi::SQLITE_NOTADB, "the file is empty")),
        found => Err(failure(
            rusqlite::ffi::SQLITE_SCHEMA,
            format!(
                "it has format {found} now, this process knows {FORMAT}: replace this process by \
                 the newer version"
            ),
        )),
    }
}

//! The statements that read entries. Those that change them are in [`entry_writes`].
//!
//! [`entry_writes`]: super::entry_writes

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::errors::is_damage;
use crate::clock::Timestamp;
use crate::principal::Principal;
use crate::store::{
    Change, Cursor, Entry, KeyId, Listed, Notes, Page, Pseudonym, Record, Rejected, Tombstone,
    Version,
};

/// What [`entry`] reads. A process of format 1, which may run beside this one, writes no key id.
macro_rules! columns {
    () => {
        "generation, epoch, instance, known, sealed, received, expires, run, \
         refresh_dead, answer_lost, rejected_until, rejected_with, displaced, contested_until, \
         coalesce(key_id, substr(sealed, 2, 4)), suppressed_until"
    };
}
/// The change number that a write gives its row. The row with the largest is never deleted before another
/// has a larger one, so it only grows.
macro_rules! next_seq {
    () => {
        "(SELECT coalesce(max(seq), 0) + 1 FROM entries)"
    };
}
const LOAD: &str = concat!("SELECT ", columns!(), " FROM entries WHERE principal = ?1");
/// Whether a row is more than a version.
macro_rules! holds_something {
    () => {
        "coalesce(sealed, refresh_dead, answer_lost, rejected_until, displaced, contested_until, \
         suppressed_until, iif(known, instance, NULL)) IS NOT NULL"
    };
}
pub(super) use {holds_something, next_seq};
/// Repeats the condition of the index `due` word for word, or SQLite would not use it.
pub(super) const DUE: &str = "SELECT principal FROM entries
     WHERE received < ?1 AND sealed IS NOT NULL
         AND (refresh_dead IS NULL OR refresh_dead <> generation)
     ORDER BY received";
/// Reads the index `held` alone.
pub(super) const COUNT: &str = "SELECT count(*) FROM entries WHERE (sealed IS NOT NULL) = 1";
/// Reads the index `held` alone.
pub(super) const KEYS: &str = "SELECT key_id, count(*) FROM entries
     WHERE (sealed IS NOT NULL) = 1 AND key_id IS NOT NULL GROUP BY key_id";
/// Those that a process of format 1 wrote.
const KEYS_UNTOLD: &str = "SELECT substr(sealed, 2, 4), count(*) FROM entries
     WHERE (sealed IS NOT NULL) = 1 AND key_id IS NULL AND substr(sealed, 1, 1) = x'01'
     GROUP BY 1";
/// Prefixes of principals in the principals' order, and what sorts right after each.
const KINDS: [(&str, &str); 2] = [("user:", "user;"), ("account:", "account;")];

/// What stands under the name of `principal`.
pub(super) fn load(db: &Connection, principal: &Principal) -> rusqlite::Result<Entry> {
    let found = db
        .prepare_cached(LOAD)?
        .query_row([principal], entry)
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// What changed after `seq`, and the newest change number.
pub(super) fn changed_since(db: &Connection, seq: i64) -> rusqlite::Result<(Vec<Change>, i64)> {
    let mut changes = Vec::new();
    let mut newest = seq;
    let mut statement = db.prepare_cached(
        "SELECT seq, principal, generation, epoch FROM entries WHERE seq > ?1 ORDER BY seq",
    )?;
    let mut rows = statement.query([seq])?;
    while let Some(row) = rows.next()? {
        newest = row.get(0)?;
        let change = || {
            let version = Version {
                generation: row.get(2)?,
                epoch: unsigned(row, 3)?,
            };
            Ok(match Pseudonym::parse(row.get_ref(1)?.as_str()?) {
                Some(pseudonym) => Change::Forgotten(Tombstone { pseudonym, version }),
                None => Change::Entry {
                    principal: row.get(1)?,
                    version,
                },
            })
        };
        keep_readable(change(), &mut changes)?;
    }
    Ok((changes, newest))
}

/// The newest change number.
pub(super) fn newest_seq(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("SELECT coalesce(max(seq), 0) FROM entries", [], |row| {
        row.get(0)
    })
}

/// Pairs received before `before` whose RefreshToken is not known dead, oldest first; those that `is_wanted`
/// accepts.
pub(super) fn due(
    db: &Connection,
    before: Timestamp,
    limit: usize,
    mut is_wanted: impl FnMut(&Principal) -> bool,
) -> rusqlite::Result<Vec<Principal>> {
    let mut due = Vec::new();
    let mut statement = db.prepare_cached(DUE)?;
    let mut rows = statement.query(params![before])?;
    while due.len() < limit
        && let Some(row) = rows.next()?
    {
        keep_readable(row.get(0), &mut due)?;
        due.pop_if(|last| !is_wanted(last));
    }
    Ok(due)
}

/// Entries in the principals' order, after `after`.
pub(super) fn list(
    db: &Connection,
    which: Listed,
    after: Option<Cursor>,
    limit: usize,
) -> rusqlite::Result<Page> {
    let mut after = after.map(|Cursor(after)| after);
    let mut listed = Vec::new();
    let filter = match which {
        Listed::Known => holds_something!(),
        Listed::All => "1",
    };
    let mut statement = db.prepare_cached(&format!(
        "SELECT {}, principal FROM entries
         WHERE principal > ?1 AND principal < ?2 AND {filter}
         ORDER BY principal",
        columns!()
    ))?;
    for (first, end) in KINDS {
        if after
            .as_ref()
            .is_some_and(|after| !after.starts_with(first))
        {
            continue;
        }
        let from = after.take().unwrap_or_else(|| first.to_owned());
        let mut rows = statement.query(params![from, end])?;
        while listed.len() < limit
            && let Some(row) = rows.next()?
        {
            let one = || Ok((row.get::<_, Principal>(16)?, entry(row)?));
            keep_readable(one(), &mut listed)?;
        }
    }
    let next = match listed.len() < limit {
        true => None,
        false => listed.last().map(|(last, _)| Cursor(last.to_string())),
    };
    Ok(Page {
        entries: listed,
        next,
    })
}

/// How many records each key is needed for. A text that is none was sealed with no key.
pub(super) fn keys(db: &Connection) -> rusqlite::Result<Vec<(KeyId, u64)>> {
    let mut keys: Vec<(KeyId, u64)> = Vec::new();
    for sql in [KEYS, KEYS_UNTOLD] {
        let mut statement = db.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (key, records): (KeyId, _) = (row.get(0)?, unsigned(row, 1)?);
            match keys.iter_mut().find(|(known, _)| *known == key) {
                Some((_, all)) => *all += records,
                None => keys.push((key, records)),
            }
        }
    }
    Ok(keys)
}

/// How many principals hold a pair.
pub(super) fn count(db: &Connection) -> rusqlite::Result<u64> {
    db.prepare_cached(COUNT)?
        .query_row([], |row| unsigned(row, 0))
}

/// Reads `columns!()`, by their places: a name would be looked for among all of them.
fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let sealed: Option<Vec<u8>> = row.get(4)?;
    let registered_in = match &sealed {
        None if row.get(3)? => row.get(2)?,
        _ => None,
    };
    let record = |sealed| {
        Ok::<_, rusqlite::Error>(Record {
            instance: row.get(2)?,
            known: row.get(3)?,
            sealed,
            key: row.get(14)?,
            received: row.get(5)?,
            expires: row.get(6)?,
            run: row.get(7)?,
        })
    };
    let rejected = |until| {
        Ok::<_, rusqlite::Error>(Rejected {
            until,
            with: row.get(11)?,
        })
    };
    let rejected_until: Option<Timestamp> = row.get(10)?;
    Ok(Entry {
        generation: row.get(0)?,
        epoch: unsigned(row, 1)?,
        record: sealed.map(record).transpose()?,
        notes: Notes {
            refresh_dead: row.get(8)?,
            answer_lost: row.get(9)?,
            rejected: rejected_until.map(rejected).transpose()?,
            displaced: row.get(12)?,
            contested_until: row.get(13)?,
            suppressed_until: row.get(15)?,
            registered_in,
        },
    })
}

/// Leaves a damaged row out: it must not hide all others. Loading it by name says that it is damaged.
pub(super) fn keep_readable<T>(
    row: rusqlite::Result<T>,
    rows: &mut Vec<T>,
) -> rusqlite::Result<()> {
    match row {
        Ok(row) => rows.push(row),
        Err(error) if is_damage(&error) => tracing::error!(%error, "a damaged entry"),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// SQLite has no unsigned integers; no count ever gets beyond its signed ones.
pub(super) fn signed(count: u64) -> rusqlite::Result<i64> {
    i64::try_from(count).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// SQLite has no unsigned integers; a negative count is damage.
pub(in crate::store) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let count: i64 = row.get(column)?;
    u64::try_from(count).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, count))
}

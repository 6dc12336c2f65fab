//! The statements on entries. Every write gives its row the next change number, so that
//! [`changed_since`] finds what any process wrote.

use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::errors::is_damage;
use crate::clock::Timestamp;
use crate::principal::Principal;
use crate::store::{
    Change, Commit, Cursor, Entry, KeyId, Listed, Note, Notes, Page, Record, Rejected, Resealed,
    Restored, Version,
};

/// What [`entry`] reads. A process of format 1, which may run beside this one, writes no key id.
macro_rules! columns {
    () => {
        "generation, epoch, instance, known, sealed, received, expires, run, \
         refresh_dead, answer_lost, rejected_until, rejected_with, displaced, contested_until, \
         coalesce(key_id, substr(sealed, 2, 4)), suppressed_until"
    };
}
/// The change number that a write gives its row. The row with the largest is never deleted, so it
/// only grows.
macro_rules! next_seq {
    () => {
        "(SELECT coalesce(max(seq), 0) + 1 FROM entries)"
    };
}
const LOAD: &str = concat!("SELECT ", columns!(), " FROM entries WHERE principal = ?1");
/// A commit on top of an earlier one, as nearly every one is.
const REPLACE: &str = concat!(
    "UPDATE entries SET seq = ",
    next_seq!(),
    ", generation = ?4, instance = ?5, known = ?6, sealed = ?7, received = ?8, expires = ?9,
         run = ?10, key_id = ?11, refresh_dead = NULL, answer_lost = NULL, rejected_until = NULL,
         rejected_with = NULL
     WHERE principal = ?1 AND generation = ?2 AND epoch = ?3"
);
/// A commit of a principal that nothing was known of.
const INSERT: &str = concat!(
    "INSERT INTO entries (principal, seq, generation, instance, known, sealed, received, expires, run,
         key_id)
     VALUES (?1, ",
    next_seq!(),
    ", ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (principal) DO NOTHING"
);
const TOUCH: &str = concat!(
    "INSERT INTO entries (principal, seq) VALUES (?1, ",
    next_seq!(),
    ") ON CONFLICT DO UPDATE SET seq = excluded.seq"
);
/// A whole entry, whatever stands there.
const RESTORE: &str = concat!(
    "INSERT OR REPLACE INTO entries (principal, seq, generation, epoch, instance, known, sealed, received,
         expires, run, key_id, refresh_dead, answer_lost, rejected_until, rejected_with, displaced,
         contested_until, suppressed_until)
     VALUES (?1, ",
    next_seq!(),
    ", ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)"
);
/// Reads the index `rejected`. The newest change stays: its number must not be given again.
pub(super) const DROP_REJECTED: &str = "DELETE FROM entries WHERE rowid IN (
         SELECT rowid FROM entries
         WHERE (rejected_until <= ?1 OR rejected_until > ?2) AND generation = 0 AND epoch = 0
             AND sealed IS NULL AND displaced IS NULL AND contested_until IS NULL
             AND suppressed_until IS NULL
             AND +seq < (SELECT max(seq) FROM entries)
         LIMIT ?3)";
/// Whether a row is more than a tombstone.
const HOLDS_SOMETHING: &str = "coalesce(sealed, refresh_dead, answer_lost, rejected_until, \
     displaced, contested_until, suppressed_until, iif(known, instance, NULL)) IS NOT NULL";
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

/// What is known of `principal`.
pub(super) fn load(db: &Connection, principal: &Principal) -> rusqlite::Result<Entry> {
    let found = db
        .prepare_cached(LOAD)?
        .query_row([principal], entry)
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// Writes `record` if generation and epoch are the expected ones. Reads nothing else of the row: a
/// damaged record must not stand in the way of a new one.
pub(super) fn commit(
    db: &Connection,
    principal: &Principal,
    record: &Record,
    over: Version,
) -> rusqlite::Result<Commit> {
    let Version { generation, .. } = over;
    let next = generation.next();
    let epoch = i64::try_from(over.epoch)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let Record {
        instance,
        known,
        sealed,
        key,
        received,
        expires,
        run,
    } = record;
    let mut rows = db.prepare_cached(REPLACE)?.execute(params![
        principal, generation, epoch, next, instance, known, sealed, received, expires, run, key
    ])?;
    if rows == 0 && over == Version::default() {
        rows = db.prepare_cached(INSERT)?.execute(params![
            principal, next, instance, known, sealed, received, expires, run, key
        ])?;
    }
    if rows > 0 {
        return Ok(Commit::Committed(next));
    }
    let stands = load(db, principal)?;
    // The answer to the same commit may have been lost.
    let is_done = stands.record.as_ref() == Some(record)
        && (stands.generation, stands.epoch) == (next, over.epoch);
    Ok(match is_done {
        true => Commit::Committed(next),
        false => Commit::Superseded(stands),
    })
}

/// Writes a whole entry if it outranks the one that stands there.
pub(super) fn restore(
    db: &Connection,
    principal: &Principal,
    entry: &Entry,
) -> rusqlite::Result<Restored> {
    let stands = load(db, principal)?;
    if !entry.outranks(&stands) {
        return Ok(Restored::Kept);
    }
    let generation = match entry.generation > stands.generation || stands == Entry::default() {
        true => entry.generation,
        false => stands.generation.next(),
    };
    let Entry {
        epoch,
        record,
        notes,
        ..
    } = entry;
    let epoch = i64::try_from(*epoch)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let instance = match record {
        Some(record) => record.instance,
        None => notes.registered_in,
    };
    let known = match record {
        Some(record) => record.known,
        None => notes.registered_in.is_some(),
    };
    let record = record.as_ref();
    db.prepare_cached(RESTORE)?.execute(params![
        principal,
        generation,
        epoch,
        instance,
        known,
        record.map(|record| &record.sealed),
        record.map(|record| record.received),
        record.map(|record| record.expires),
        record.map(|record| record.run),
        record.map(|record| record.key),
        notes.refresh_dead,
        notes.answer_lost,
        notes.rejected.map(|rejected| rejected.until),
        notes.rejected.map(|rejected| rejected.with),
        notes.displaced,
        notes.contested_until,
        notes.suppressed_until,
    ])?;
    Ok(Restored::Written)
}

/// Remembers one fact.
pub(super) fn note(db: &Connection, principal: &Principal, note: &Note) -> rusqlite::Result<()> {
    db.prepare_cached(TOUCH)?.execute([principal])?;
    let set = |assignments: &str, values: &[&dyn ToSql]| {
        db.prepare_cached(&format!(
            "UPDATE entries SET {assignments} WHERE principal = ?1"
        ))?
        .execute(values)
    };
    match note {
        Note::RefreshDead(generation) => set("refresh_dead = ?2", &[principal, generation]),
        Note::RefreshAlive => set("refresh_dead = NULL", &[principal]),
        Note::AnswerLost(generation) => set("answer_lost = ?2", &[principal, generation]),
        Note::Rejected(Rejected { until, with }) => set(
            "rejected_until = ?2, rejected_with = ?3, known = 0",
            &[principal, until, with],
        ),
        Note::Displaced(at) => set("displaced = ?2", &[principal, at]),
        Note::ContestedUntil(until) => set("contested_until = ?2", &[principal, until]),
        Note::SuppressedUntil(until) => set("suppressed_until = ?2", &[principal, until]),
        // A pair's instance is where its user is, whatever was said before.
        Note::RegisteredIn(instance) => set(
            "instance = iif(sealed IS NULL, ?2, instance), known = iif(sealed IS NULL, 1, known)",
            &[principal, instance],
        ),
    }?;
    Ok(())
}

/// Deletes rows that hold a rejected login which stands no more, and nothing else.
pub(super) fn drop_rejected(
    db: &Connection,
    now: Timestamp,
    latest: Timestamp,
    limit: usize,
) -> rusqlite::Result<usize> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    db.prepare_cached(DROP_REJECTED)?
        .execute(params![now, latest, limit])
}

/// Leaves a tombstone: generation and epoch alone.
pub(super) fn forget(db: &Connection, principal: &Principal) -> rusqlite::Result<bool> {
    let rows = db
        .prepare_cached(&format!(
            "UPDATE entries SET seq = {}, epoch = epoch + 1,
                 instance = NULL, known = 0, sealed = NULL, received = NULL, expires = NULL,
                 run = NULL, key_id = NULL, refresh_dead = NULL, answer_lost = NULL, rejected_until = NULL,
                 rejected_with = NULL, displaced = NULL, contested_until = NULL,
                 suppressed_until = NULL
             WHERE principal = ?1 AND {HOLDS_SOMETHING}",
            next_seq!()
        ))?
        .execute([principal])?;
    Ok(rows > 0)
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
            Ok(Change::Entry {
                principal: row.get(1)?,
                version: Version {
                    generation: row.get(2)?,
                    epoch: unsigned(row, 3)?,
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
        Listed::Known => HOLDS_SOMETHING,
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

/// Replaces sealed texts that are still the ones that were read.
pub(super) fn reseal(db: &Connection, resealed: &[Resealed]) -> rusqlite::Result<usize> {
    let mut statement = db.prepare_cached(
        "UPDATE entries SET sealed = ?3, key_id = ?4 WHERE principal = ?1 AND sealed = ?2",
    )?;
    let mut rows = 0;
    for Resealed {
        principal,
        before,
        sealed,
        key,
    } in resealed
    {
        rows += statement.execute(params![principal, before, sealed, key])?;
    }
    Ok(rows)
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
fn keep_readable<T>(row: rusqlite::Result<T>, rows: &mut Vec<T>) -> rusqlite::Result<()> {
    match row {
        Ok(row) => rows.push(row),
        Err(error) if is_damage(&error) => tracing::error!(%error, "a damaged entry"),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// SQLite has no unsigned integers; a negative count is damage.
pub(in crate::store) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let count: i64 = row.get(column)?;
    u64::try_from(count).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, count))
}

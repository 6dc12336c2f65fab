//! The statements that change entries. Every write gives its row the next change number, so that
//! [`entries::changed_since`] finds what any process wrote.

use rusqlite::{Connection, OptionalExtension, ToSql, params};

use super::entries::{self, holds_something, next_seq, signed};
use super::tombstones;
use crate::clock::Timestamp;
use crate::principal::Principal;
use crate::store::{
    Commit, Entry, Note, Pseudonyms, Record, Rejected, Resealed, Restored, Tombstone, Version,
};

/// A commit on top of an earlier one, as nearly every one is.
const REPLACE: &str = concat!(
    "UPDATE entries SET seq = ",
    next_seq!(),
    ", generation = ?4, instance = ?5, known = ?6, sealed = ?7, received = ?8, expires = ?9,
         run = ?10, key_id = ?11, refresh_dead = NULL, answer_lost = NULL, rejected_until = NULL,
         rejected_with = NULL
     WHERE principal = ?1 AND generation = ?2 AND epoch = ?3 AND sealed IS NOT NULL"
);
/// A commit of a principal that nothing, or only notes, stands for: on top of its tombstone, if there is one.
const INSERT: &str = concat!(
    "INSERT INTO entries (principal, seq, generation, epoch, instance, known, sealed, received, expires,
         run, key_id)
     VALUES (?1, ",
    next_seq!(),
    ", ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (principal) DO UPDATE SET
         seq = excluded.seq, generation = excluded.generation, epoch = excluded.epoch,
         instance = excluded.instance, known = excluded.known, sealed = excluded.sealed,
         received = excluded.received, expires = excluded.expires, run = excluded.run,
         key_id = excluded.key_id, refresh_dead = NULL, answer_lost = NULL, rejected_until = NULL,
         rejected_with = NULL
     WHERE sealed IS NULL"
);
const TOUCH: &str = concat!(
    "INSERT INTO entries (principal, seq) VALUES (?1, ",
    next_seq!(),
    ") ON CONFLICT DO UPDATE SET seq = excluded.seq"
);
const TOUCH_A_PAIR: &str = concat!(
    "UPDATE entries SET seq = ",
    next_seq!(),
    " WHERE principal = ?1 AND sealed IS NOT NULL"
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
/// Reads the index `rejected`. Without a pair, `known` says that the user was registered. The newest change
/// stays: its number must not be given again.
pub(super) const DROP_REJECTED: &str = "DELETE FROM entries WHERE rowid IN (
         SELECT rowid FROM entries
         WHERE (rejected_until <= ?1 OR rejected_until > ?2) AND generation = 0 AND epoch = 0
             AND sealed IS NULL AND displaced IS NULL AND contested_until IS NULL
             AND suppressed_until IS NULL AND known = 0
             AND +seq < (SELECT max(seq) FROM entries)
         LIMIT ?3)";

const VERSION: &str = concat!(
    "SELECT generation, epoch, ",
    holds_something!(),
    " FROM entries WHERE principal = ?1"
);

/// Writes `record` if generation and epoch are the expected ones. Reads nothing else of the row: a
/// damaged record must not stand in the way of a new one.
pub(super) fn commit(
    db: &Connection,
    pseudonyms: &Pseudonyms,
    principal: &Principal,
    record: &Record,
    over: Version,
) -> rusqlite::Result<Commit> {
    let Version { generation, .. } = over;
    let next = generation.next();
    let epoch = signed(over.epoch)?;
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
    // Of a pair with another version nothing is replaced below either.
    if rows == 0
        && let (stands, _) = named(db, principal)?.unwrap_or_default()
        && above_tombstone(db, pseudonyms, principal, stands)? == over
    {
        rows = db.prepare_cached(INSERT)?.execute(params![
            principal, next, epoch, instance, known, sealed, received, expires, run, key
        ])?;
    }
    if rows > 0 {
        return Ok(Commit::Committed(next));
    }
    let stands = tombstones::standing(db, pseudonyms, principal)?;
    // The answer to the same commit may have been lost.
    let is_done = stands.record.as_ref() == Some(record)
        && (stands.generation, stands.epoch) == (next, over.epoch);
    Ok(match is_done {
        true => Commit::Committed(next),
        false => Commit::Superseded(stands),
    })
}

/// The version of what has no pair: the higher one of its row, which `stands` there, and of its tombstone.
fn above_tombstone(
    db: &Connection,
    pseudonyms: &Pseudonyms,
    principal: &Principal,
    stands: Version,
) -> rusqlite::Result<Version> {
    let forgotten = tombstones::of(db, pseudonyms, principal)?;
    Ok(Entry::forgotten(stands).beneath(forgotten).version())
}

/// The version of the row with the name, and whether it holds anything else.
fn named(db: &Connection, principal: &Principal) -> rusqlite::Result<Option<(Version, bool)>> {
    let named = db.prepare_cached(VERSION)?.query_row([principal], |row| {
        let version = Version {
            generation: row.get(0)?,
            epoch: entries::unsigned(row, 1)?,
        };
        Ok((version, row.get(2)?))
    });
    named.optional()
}

/// Writes a whole entry if it outranks the one that stands there.
pub(super) fn restore(
    db: &Connection,
    pseudonyms: &Pseudonyms,
    principal: &Principal,
    entry: &Entry,
) -> rusqlite::Result<Restored> {
    if entry.is_bare() && entry.epoch == 0 {
        return Ok(Restored::Kept);
    }
    let stands = tombstones::standing(db, pseudonyms, principal)?;
    if !entry.outranks(&stands) {
        if entry.is_bare() && stands.is_bare() {
            // Its name is known: it is to be kept no longer.
            forget(db, pseudonyms, principal)?;
        }
        return Ok(Restored::Kept);
    }
    let generation = match entry.generation > stands.generation || stands == Entry::default() {
        true => entry.generation,
        false => stands.generation.next(),
    };
    let Entry { record, notes, .. } = entry;
    if entry.is_bare() {
        end_use(db, principal)?;
        let epoch = entry.epoch;
        bury(db, pseudonyms, principal, Version { generation, epoch })?;
        return Ok(Restored::Written);
    }
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
        signed(entry.epoch)?,
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

/// Remembers one fact. What is said of a pair is nothing to whom has none: it was forgotten meanwhile.
pub(super) fn note(db: &Connection, principal: &Principal, note: &Note) -> rusqlite::Result<()> {
    let touch = match note.is_of_a_pair() {
        true => TOUCH_A_PAIR,
        false => TOUCH,
    };
    if db.prepare_cached(touch)?.execute([principal])? == 0 {
        return Ok(());
    }
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

/// Leaves a tombstone, and nothing under the name. Returns false if there was nothing to drop; a row that
/// holds only a version, as those of earlier versions, becomes a tombstone all the same.
pub(super) fn forget(
    db: &Connection,
    pseudonyms: &Pseudonyms,
    principal: &Principal,
) -> rusqlite::Result<bool> {
    end_use(db, principal)?;
    let Some((stands, holds)) = named(db, principal)? else {
        return Ok(false);
    };
    let mut version = above_tombstone(db, pseudonyms, principal, stands)?;
    version.epoch += u64::from(holds);
    if version != Version::default() {
        bury(db, pseudonyms, principal, version)?;
    }
    Ok(holds)
}

/// The row with the name goes last: the tombstone has a larger change number then.
fn bury(
    db: &Connection,
    pseudonyms: &Pseudonyms,
    principal: &Principal,
    version: Version,
) -> rusqlite::Result<()> {
    for pseudonym in pseudonyms.all(principal) {
        tombstones::raise(db, &Tombstone { pseudonym, version })?;
    }
    db.prepare_cached("DELETE FROM entries WHERE principal = ?1")?
        .execute([principal])
        .map(drop)
}

/// Nothing is kept of when a user was last named who is forgotten.
fn end_use(db: &Connection, user: &Principal) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM uses WHERE principal = ?1")?
        .execute([user])
        .map(drop)
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

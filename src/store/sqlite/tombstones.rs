//! The statements on tombstones, and what stands where there is one. A tombstone is a row of `entries` under
//! a pseudonym, with a generation and an epoch alone; there is one for each key that the process knows. It is only
//! ever raised, in the transaction that deletes the row with the name, so that it need not be looked for while a
//! pair stands: that came later.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::entries::{self, keep_readable, next_seq, signed, unsigned};
use crate::principal::Principal;
use crate::store::pseudonyms::{END, PREFIX};
use crate::store::{
    Cursor, Entry, Listed, Page, Pseudonym, Pseudonyms, Restored, Tombstone, Tombstones, Version,
};

const FIND: &str = "SELECT generation, epoch FROM entries WHERE principal = ?1";
const RAISE: &str = concat!(
    "INSERT INTO entries (principal, seq, generation, epoch) VALUES (?1, ",
    next_seq!(),
    ", ?2, ?3) ON CONFLICT DO UPDATE SET seq = excluded.seq,
         generation = max(generation, excluded.generation), epoch = max(epoch, excluded.epoch)"
);
const LIST: &str = "SELECT generation, epoch, principal FROM entries
     WHERE principal > ?1 AND principal < ?2 ORDER BY principal LIMIT ?3";

/// What is known of `principal`.
pub(super) fn standing(
    db: &Connection,
    pseudonyms: &Pseudonyms,
    principal: &Principal,
) -> rusqlite::Result<Entry> {
    let entry = entries::load(db, principal)?;
    match entry.record {
        Some(_) => Ok(entry),
        None => Ok(entry.beneath(of(db, pseudonyms, principal)?)),
    }
}

/// The version of the tombstone of `principal`; that of nothing if there is none.
pub(super) fn of(
    db: &Connection,
    pseudonyms: &Pseudonyms,
    principal: &Principal,
) -> rusqlite::Result<Version> {
    let mut found = Entry::default();
    for pseudonym in pseudonyms.all(principal) {
        if let Some(version) = find(db, pseudonym)? {
            found = found.beneath(version);
        }
    }
    Ok(found.version())
}

/// Raises a tombstone to this version, or makes it.
pub(super) fn raise(db: &Connection, tombstone: &Tombstone) -> rusqlite::Result<()> {
    let Version { generation, epoch } = tombstone.version;
    let pseudonym = tombstone.pseudonym.to_string();
    db.prepare_cached(RAISE)?
        .execute(params![pseudonym, generation, signed(epoch)?])
        .map(drop)
}

/// Raises it if it is not as high yet.
pub(super) fn bury(db: &Connection, tombstone: &Tombstone) -> rusqlite::Result<Restored> {
    let stands = find(db, tombstone.pseudonym)?.unwrap_or_default();
    let Version { generation, epoch } = tombstone.version;
    if stands.generation >= generation && stands.epoch >= epoch {
        return Ok(Restored::Kept);
    }
    raise(db, tombstone)?;
    Ok(Restored::Written)
}

fn find(db: &Connection, pseudonym: Pseudonym) -> rusqlite::Result<Option<Version>> {
    let mut statement = db.prepare_cached(FIND)?;
    let found = statement.query_row([pseudonym.to_string()], version);
    found.optional()
}

fn version(row: &Row<'_>) -> rusqlite::Result<Version> {
    Ok(Version {
        generation: row.get(0)?,
        epoch: unsigned(row, 1)?,
    })
}

/// Tombstones in the order of their pseudonyms, after `after`.
pub(super) fn list(
    db: &Connection,
    after: Option<Cursor>,
    limit: usize,
) -> rusqlite::Result<Tombstones> {
    let after = after.map_or(PREFIX.to_owned(), |Cursor(after)| after);
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut tombstones = Vec::new();
    let (mut passed, mut last) = (0, None);
    let mut statement = db.prepare_cached(LIST)?;
    let mut rows = statement.query(params![after, END, most])?;
    while let Some(row) = rows.next()? {
        let tombstone = || {
            Ok(Tombstone {
                pseudonym: row.get(2)?,
                version: version(row)?,
            })
        };
        keep_readable(tombstone(), &mut tombstones)?;
        (passed, last) = (passed + 1, Some(row.get(2)?));
    }
    let next = last.filter(|_| passed == limit).map(Cursor);
    Ok(Tombstones { tombstones, next })
}

/// As [`entries::list`], with the versions of tombstones.
pub(super) fn list_standing(
    db: &Connection,
    pseudonyms: &Pseudonyms,
    which: Listed,
    after: Option<Cursor>,
    limit: usize,
) -> rusqlite::Result<Page> {
    let mut page = entries::list(db, which, after, limit)?;
    for (principal, entry) in &mut page.entries {
        if entry.record.is_none() {
            *entry = std::mem::take(entry).beneath(of(db, pseudonyms, principal)?);
        }
    }
    Ok(page)
}

//! Writes that no renewal makes, and that every process must hear of: entries that are forgotten, and
//! those that are restored.

use std::collections::HashSet;

use tokio_postgres::types::Type;

use super::columns::{Columns, columns, holds_something, insert_entries, unsigned};
use super::feed::told;
use super::link::Link;
use super::session::Statement;
use super::strangers::REJECTION_FOLLOWS;
use crate::principal::Principal;
use crate::store::{Day, Entry, Error, Generation, Restored, Version};

/// Leaves a tombstone: generation and epoch alone. With `$2` only if the user was last named before that day;
/// who marks it as used at this moment goes first or comes too late, because both write that row.
const FORGET: &str = concat!(
    "WITH uncounted AS (
        DELETE FROM uses WHERE principal = $1 AND ($2 IS NULL OR day < $2) RETURNING principal
    ), changed AS (
        UPDATE entries SET epoch = epoch + 1, instance = NULL, known = false, sealed = NULL,
            key_id = NULL, received = NULL, expires = NULL, run = NULL, refresh_dead = NULL,
            answer_lost = NULL, rejected_until = NULL, rejected_with = NULL, displaced = NULL,
            contested_until = NULL, suppressed_until = NULL, registered_in = NULL
        WHERE principal = $1 AND ($2 IS NULL OR EXISTS (SELECT FROM uncounted)) AND ",
    holds_something!(),
    " RETURNING principal, generation, epoch
    ), undue AS (
        DELETE FROM due USING changed WHERE due.principal = changed.principal
    ), ",
    told!(),
    " SELECT generation, epoch FROM changed"
);
/// Whether the row that stands is the default entry, as one is of which a note was ended that it never had.
macro_rules! stands_for_nothing {
    () => {
        concat!(
            "(stands.generation = 0 AND stands.epoch = 0 AND NOT ",
            holds_something!(stands),
            ")"
        )
    };
}
/// The comparison is [`Entry::outranks`]; what is written is never the default entry. A generation that does
/// not lie above the one that stands would be taken for the pair that it replaces.
const RESTORE: &str = concat!(
    "WITH changed AS (",
    insert_entries!(),
    " ON CONFLICT (principal) DO UPDATE SET
        generation = CASE WHEN excluded.generation > stands.generation OR ",
    stands_for_nothing!(),
    " THEN excluded.generation ELSE stands.generation + 1 END,
        epoch = excluded.epoch, instance = excluded.instance, known = excluded.known,
        sealed = excluded.sealed, key_id = excluded.key_id, received = excluded.received,
        expires = excluded.expires, run = excluded.run, refresh_dead = excluded.refresh_dead,
        answer_lost = excluded.answer_lost, rejected_until = excluded.rejected_until,
        rejected_with = excluded.rejected_with, displaced = excluded.displaced,
        contested_until = excluded.contested_until, suppressed_until = excluded.suppressed_until,
        registered_in = excluded.registered_in
      WHERE (excluded.epoch, coalesce(excluded.received, -9223372036854775808), excluded.generation)
          > (stands.epoch, coalesce(stands.received, -9223372036854775808), stands.generation) OR ",
    stands_for_nothing!(),
    "
      RETURNING principal, generation, epoch
    ), ",
    told!(),
    " SELECT principal FROM changed"
);
const DUE_FOLLOWS: &str = "INSERT INTO due (principal, received, dead, key_id)
    SELECT principal, received, coalesce(refresh_dead = generation, false), key_id FROM entries
    WHERE principal = ANY($1) AND sealed IS NOT NULL
    ON CONFLICT (principal) DO UPDATE SET
        received = excluded.received, dead = excluded.dead, key_id = excluded.key_id";
const UNDUE_FOLLOWS: &str = "DELETE FROM due USING entries
    WHERE due.principal = ANY($1) AND entries.principal = due.principal AND entries.sealed IS NULL";
/// The most entries that are restored in one transaction.
const RESTORED_AT_ONCE: usize = 500;

/// As [`crate::store::Store::forget`], or with `unused_since` [`crate::store::Uses::forget_unused`]; returns
/// the version of the tombstone.
pub(super) async fn forget(
    link: &Link,
    principal: &Principal,
    unused_since: Option<Day>,
) -> Result<Option<Version>, Error> {
    let key = principal.to_string();
    let before = unused_since.map(|Day(day)| day);
    let parameters = [(&key as _, Type::TEXT), (&before as _, Type::INT4)];
    let forgotten = link.write([Statement {
        sql: FORGET,
        parameters: &parameters,
    }]);
    let [rows] = forgotten.await?;
    Ok(rows.first().map(|row| Version {
        generation: Generation(unsigned(row.get(0))),
        epoch: unsigned(row.get(1)),
    }))
}

/// As [`crate::store::Store::restore`].
pub(super) async fn restore(
    link: &Link,
    entries: &[(Principal, Entry)],
) -> Result<Vec<Restored>, Error> {
    let mut restored = vec![Restored::Kept; entries.len()];
    let mut waiting: Vec<Waiting<'_>> = Waiting::sorted(entries);
    while !waiting.is_empty() {
        let (now, later) = at_once(waiting);
        let written = write(link, &now).await?;
        for waiting in now {
            if written.contains(&waiting.key) {
                restored[waiting.place] = Restored::Written;
            }
        }
        waiting = later;
    }
    Ok(restored)
}

/// An entry that is to be restored.
struct Waiting<'a> {
    key: String,
    entry: &'a Entry,
    /// Where its answer belongs.
    place: usize,
}

impl Waiting<'_> {
    /// In the order in which rows are locked. An entry that holds nothing is left out: none stands
    /// below it.
    fn sorted(entries: &[(Principal, Entry)]) -> Vec<Waiting<'_>> {
        let mut sorted = Vec::with_capacity(entries.len());
        for (place, (principal, entry)) in entries.iter().enumerate() {
            if *entry != Entry::default() {
                let key = principal.to_string();
                sorted.push(Waiting { key, entry, place });
            }
        }
        sorted.sort_by(|one, other| one.key.cmp(&other.key));
        sorted
    }
}

/// What becomes the next transaction, and the rest. No transaction writes a row twice.
fn at_once(waiting: Vec<Waiting<'_>>) -> (Vec<Waiting<'_>>, Vec<Waiting<'_>>) {
    let (mut now, mut later): (Vec<Waiting<'_>>, Vec<_>) = (Vec::new(), Vec::new());
    for next in waiting {
        let is_repeated = now.last().is_some_and(|last| last.key == next.key);
        match now.len() == RESTORED_AT_ONCE || is_repeated {
            true => later.push(next),
            false => now.push(next),
        }
    }
    (now, later)
}

/// Returns the keys of those that were written.
async fn write(link: &Link, entries: &[Waiting<'_>]) -> Result<HashSet<String>, Error> {
    let mut columns = Columns::default();
    for Waiting { key, entry, .. } in entries {
        columns.push(key, entry);
    }
    let principals = [columns.principals()];
    let columns = columns.parameters();
    let written = link.write([
        Statement {
            sql: RESTORE,
            parameters: &columns,
        },
        Statement {
            sql: DUE_FOLLOWS,
            parameters: &principals,
        },
        Statement {
            sql: UNDUE_FOLLOWS,
            parameters: &principals,
        },
        Statement {
            sql: REJECTION_FOLLOWS,
            parameters: &principals,
        },
    ]);
    let [written, ..] = written.await?;
    Ok(written.iter().map(|row| row.get(0)).collect())
}

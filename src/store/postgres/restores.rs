//! Entries that are restored. No renewal makes these writes, and every process must hear of them.

use std::collections::HashSet;

use super::columns::{Columns, LOCK, columns, holds_something, insert_entries};
use super::feed::told;
use super::link::Link;
use super::session::Statement;
use super::strangers::REJECTION_FOLLOWS;
use super::tombstones::{self, Names, forgotten};
use crate::principal::Principal;
use crate::store::{Entry, Error, Pseudonyms, Restored};

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
/// The comparison is [`Entry::outranks`], with what stands and with what was forgotten; what is written is never
/// the default entry. A generation that does not lie above the one that stands would be taken for the pair that
/// it replaces.
const RESTORE: &str = concat!(
    "WITH ",
    forgotten!("$19", "$20"),
    ", changed AS (",
    insert_entries!(
        "CASE WHEN forgotten_generation >= generation THEN forgotten_generation + 1
            ELSE generation END"
    ),
    " LEFT JOIN forgotten ON name = principal
      WHERE forgotten_epoch IS NULL
          OR (epoch, coalesce(received, -9223372036854775808), generation)
              > (forgotten_epoch, -9223372036854775808, forgotten_generation)
      ON CONFLICT (principal) DO UPDATE SET
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

/// As [`crate::store::Store::restore`].
pub(super) async fn restore(
    link: &Link,
    pseudonyms: &Pseudonyms,
    entries: &[(Principal, Entry)],
) -> Result<Vec<Restored>, Error> {
    let mut restored = vec![Restored::Kept; entries.len()];
    let mut waiting: Vec<Waiting<'_>> = Waiting::sorted(entries);
    while !waiting.is_empty() {
        let (now, later) = at_once(waiting);
        let written = match now[0].entry.is_bare() {
            true => bury(link, pseudonyms, &now).await?,
            false => write(link, pseudonyms, &now).await?,
        };
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
    principal: &'a Principal,
    entry: &'a Entry,
    /// Where its answer belongs.
    place: usize,
}

impl Waiting<'_> {
    /// In the order in which rows are locked. An entry that holds nothing, and ends no epoch, is left out: none
    /// stands below it.
    fn sorted(entries: &[(Principal, Entry)]) -> Vec<Waiting<'_>> {
        let mut sorted = Vec::with_capacity(entries.len());
        for (place, (principal, entry)) in entries.iter().enumerate() {
            if !entry.is_bare() || entry.epoch > 0 {
                let key = principal.to_string();
                sorted.push(Waiting {
                    key,
                    principal,
                    entry,
                    place,
                });
            }
        }
        sorted.sort_by(|one, other| one.key.cmp(&other.key));
        sorted
    }
}

/// What becomes the next transaction, and the rest. No transaction writes a row twice, or both entries and
/// tombstones.
fn at_once(waiting: Vec<Waiting<'_>>) -> (Vec<Waiting<'_>>, Vec<Waiting<'_>>) {
    let (mut now, mut later): (Vec<Waiting<'_>>, Vec<_>) = (Vec::new(), Vec::new());
    for next in waiting {
        let is_of = |last: Option<&Waiting<'_>>| last.is_some_and(|last| last.key == next.key);
        let is_repeated = is_of(now.last()) || is_of(later.last());
        let is_another = now
            .first()
            .is_some_and(|first| first.entry.is_bare() != next.entry.is_bare());
        match now.len() == RESTORED_AT_ONCE || is_repeated || is_another {
            true => later.push(next),
            false => now.push(next),
        }
    }
    (now, later)
}

/// Returns the keys of those that were written.
async fn write(
    link: &Link,
    pseudonyms: &Pseudonyms,
    entries: &[Waiting<'_>],
) -> Result<HashSet<String>, Error> {
    let mut columns = Columns::default();
    let mut forgotten = Names::default();
    for waiting in entries {
        columns.push(&waiting.key, waiting.entry);
        forgotten.push(pseudonyms, waiting.principal);
    }
    let principals = [columns.principals()];
    let mut columns = columns.parameters();
    columns.extend(forgotten.parameters());
    let written = link.write([
        // What was forgotten keeps rows from being proposed, and so from being locked before what follows.
        Statement {
            sql: LOCK,
            parameters: &principals,
        },
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
    let [_, written, ..] = written.await?;
    Ok(written.iter().map(|row| row.get(0)).collect())
}

/// The same, of entries that hold nothing but a version.
async fn bury(
    link: &Link,
    pseudonyms: &Pseudonyms,
    entries: &[Waiting<'_>],
) -> Result<HashSet<String>, Error> {
    let bare = entries.iter();
    let bare: Vec<_> = bare
        .map(|waiting| (waiting.principal, waiting.entry.version()))
        .collect();
    let buried = tombstones::bury(link, pseudonyms, &bare).await?;
    Ok(buried.into_iter().collect())
}

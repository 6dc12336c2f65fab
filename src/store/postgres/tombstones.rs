//! Tombstones: rows of `entries` under a pseudonym, with a generation and an epoch alone; one for each key that
//! the process knows, so that processes find it whichever of them they know. One is only ever raised, in the
//! transaction that deletes the row with the name. That transaction has the store to itself
//! ([`Link::write_alone`]), so that no pair comes to stand below a tombstone. While a pair stands none is
//! looked for: that pair came later.

use std::collections::HashMap;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::columns::{LOCK, holds_something, now, signed, unsigned};
use super::feed::told;
use super::link::Link;
use super::session::{Parameter, Statement};
use crate::principal::Principal;
use crate::store::pseudonyms::{END, PREFIX};
use crate::store::{
    Cursor, Day, Entry, Error, Generation, Pseudonym, Pseudonyms, Tombstone, Tombstones, Version,
};

/// The tombstones of principals: `forgotten`, which has no row for who has none. The arrays of [`Names`]
/// are the parameters `$names` and `$pseudonyms`.
macro_rules! forgotten {
    ($names:literal, $pseudonyms:literal) => {
        concat!(
            "forgotten AS MATERIALIZED (
                SELECT called.name, max(below.generation) AS forgotten_generation,
                    max(below.epoch) AS forgotten_epoch
                FROM unnest(",
            $names,
            "::text[], ",
            $pseudonyms,
            "::text[]) AS called (name, pseudonym)
                JOIN entries AS below ON below.principal = called.pseudonym
                GROUP BY called.name
            )"
        )
    };
}
pub(super) use forgotten;
/// Raises what `stands` to the versions that an insertion proposes; lowers none.
macro_rules! raised {
    () => {
        " ON CONFLICT (principal) DO UPDATE SET
            generation = greatest(stands.generation, excluded.generation),
            epoch = greatest(stands.epoch, excluded.epoch)"
    };
}

const FIND: &str = concat!(
    "WITH ",
    forgotten!("$1", "$2"),
    " SELECT name, forgotten_generation, forgotten_epoch FROM forgotten"
);
/// With `$4` only if the user was last named before that day. What holds nothing but a version, as of an
/// earlier version of this program, becomes a tombstone of that version.
const FORGET: &str = concat!(
    "WITH ",
    forgotten!("$1", "$2"),
    ", uncounted AS (
        DELETE FROM uses WHERE principal = $3 AND ($4::integer IS NULL OR day < $4)
        RETURNING principal
    ), gone AS (
        DELETE FROM entries WHERE principal = $3 AND ($4 IS NULL OR EXISTS (SELECT FROM uncounted))
        RETURNING principal, generation, epoch, ",
    holds_something!(),
    " AS held
    ), undue AS (
        DELETE FROM due USING gone WHERE due.principal = gone.principal
    ), unrejected AS (
        DELETE FROM rejections USING gone WHERE rejections.principal = gone.principal
    ), unleased AS (
        DELETE FROM leases WHERE principal = $3 AND until <= ",
    now!(),
    "
    ), untold AS (
        UPDATE feed SET principal = NULL FROM gone WHERE feed.principal = gone.principal
    ), changed AS (
        INSERT INTO entries AS stands (principal, generation, epoch)
        SELECT called.pseudonym, greatest(gone.generation, forgotten_generation),
            greatest(gone.epoch, forgotten_epoch) + gone.held::integer
        FROM gone
            JOIN unnest($1::text[], $2::text[]) AS called (name, pseudonym)
                ON called.name = gone.principal
            LEFT JOIN forgotten ON forgotten.name = gone.principal
        WHERE gone.held OR gone.epoch > 0 OR gone.generation > 0
",
    raised!(),
    " RETURNING principal, generation, epoch
    ), ",
    told!(),
    " SELECT changed.generation, changed.epoch, gone.held FROM changed, gone
        ORDER BY changed.epoch DESC, changed.generation DESC LIMIT 1"
);
/// Each of those that outrank what stands: [`Entry::outranks`] of entries that hold nothing; and those that
/// stand under the name, as earlier versions left them.
const BURY: &str = concat!(
    "WITH ",
    forgotten!("$1", "$2"),
    ", higher AS (
        SELECT wanted.name, wanted.epoch,
            CASE WHEN wanted.generation > greatest(stands.generation, forgotten_generation, 0)
                    OR stands.principal IS NULL AND forgotten_epoch IS NULL
                    OR stands.principal IS NOT NULL AND NOT ",
    holds_something!(stands),
    "
                THEN wanted.generation
                ELSE greatest(stands.generation, forgotten_generation, 0) + 1 END AS generation
        FROM unnest($3::text[], $4::bigint[], $5::bigint[]) AS wanted (name, generation, epoch)
            LEFT JOIN forgotten ON forgotten.name = wanted.name
            LEFT JOIN entries AS stands ON stands.principal = wanted.name
        WHERE CASE WHEN stands.sealed IS NOT NULL
            THEN (wanted.epoch, -9223372036854775808, wanted.generation)
                > (stands.epoch, stands.received, stands.generation)
            ELSE (wanted.epoch, wanted.generation) > (
                greatest(stands.epoch, forgotten_epoch, 0),
                greatest(stands.generation, forgotten_generation, 0))
            END
          OR (wanted.epoch, wanted.generation) >= (stands.epoch, stands.generation) AND NOT ",
    holds_something!(stands),
    "
    ), gone AS (
        DELETE FROM entries USING higher WHERE entries.principal = higher.name
    ), undue AS (
        DELETE FROM due USING higher WHERE due.principal = higher.name
    ), unrejected AS (
        DELETE FROM rejections USING higher WHERE rejections.principal = higher.name
    ), uncounted AS (
        DELETE FROM uses USING higher WHERE uses.principal = higher.name
    ), unleased AS (
        DELETE FROM leases USING higher WHERE leases.principal = higher.name AND leases.until <= ",
    now!(),
    "
    ), untold AS (
        UPDATE feed SET principal = NULL FROM higher WHERE feed.principal = higher.name
    ), changed AS (
        INSERT INTO entries AS stands (principal, generation, epoch)
        SELECT called.pseudonym, generation, epoch
        FROM higher JOIN unnest($1::text[], $2::text[]) AS called (name, pseudonym)
            ON called.name = higher.name
",
    raised!(),
    " RETURNING principal, generation, epoch
    ), ",
    told!(),
    " SELECT name FROM higher"
);
/// Those that are not as high yet.
const RAISE: &str = concat!(
    "WITH changed AS (
        INSERT INTO entries AS stands (principal, generation, epoch)
        SELECT pseudonym, max(generation), max(epoch)
        FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS wanted (pseudonym, generation, epoch)
        GROUP BY pseudonym",
    raised!(),
    " WHERE excluded.generation > stands.generation OR excluded.epoch > stands.epoch
        RETURNING principal, generation, epoch
    ), ",
    told!(),
    " SELECT principal FROM changed"
);
const LIST: &str = "SELECT principal, generation, epoch FROM entries
    WHERE principal > $1 AND principal < $2 ORDER BY principal LIMIT $3";

/// Principals, each with every pseudonym that it may have.
#[derive(Default)]
pub(super) struct Names {
    names: Vec<String>,
    pseudonyms: Vec<String>,
}

impl Names {
    /// Adds one.
    pub(super) fn push(&mut self, pseudonyms: &Pseudonyms, principal: &Principal) {
        for pseudonym in pseudonyms.all(principal) {
            self.names.push(principal.to_string());
            self.pseudonyms.push(pseudonym.to_string());
        }
    }

    /// What [`forgotten!`] joins.
    pub(super) fn parameters(&self) -> [Parameter<'_>; 2] {
        [
            (&self.names, Type::TEXT_ARRAY),
            (&self.pseudonyms, Type::TEXT_ARRAY),
        ]
    }
}

/// Gives each of `entries` that has no pair the version of its tombstone.
pub(super) async fn lay_beneath<'a>(
    link: &Link,
    pseudonyms: &Pseudonyms,
    entries: impl Iterator<Item = (&'a Principal, &'a mut Entry)>,
) -> Result<(), Error> {
    let mut names = Names::default();
    let mut bare = HashMap::new();
    for (principal, entry) in entries {
        if entry.record.is_none() {
            names.push(pseudonyms, principal);
            bare.insert(principal.to_string(), entry);
        }
    }
    if bare.is_empty() {
        return Ok(());
    }
    for row in link.read(FIND, names.parameters()).await? {
        if let Some(entry) = bare.get_mut(row.get::<_, &str>(0)) {
            **entry = std::mem::take(*entry).beneath(version(&row, 1));
        }
    }
    Ok(())
}

/// The same of what was read one by one. If tombstones cannot be read, that is an error of those alone that need
/// one.
pub(super) async fn lay_beneath_each(
    link: &Link,
    pseudonyms: &Pseudonyms,
    mut read: Vec<(&Principal, &mut Result<Entry, Error>)>,
) {
    let entries = read.iter_mut();
    let entries = entries.filter_map(|(whose, read)| Some((*whose, read.as_mut().ok()?)));
    let Err(error) = lay_beneath(link, pseudonyms, entries).await else {
        return;
    };
    for (_, read) in read {
        if read.as_ref().is_ok_and(|entry| entry.record.is_none()) {
            *read = Err(error.clone());
        }
    }
}

/// As [`crate::store::Store::forget`], or with `unused_since` [`crate::store::Uses::forget_unused`]; returns
/// the version of the tombstone.
pub(super) async fn forget(
    link: &Link,
    pseudonyms: &Pseudonyms,
    principal: &Principal,
    unused_since: Option<Day>,
) -> Result<Option<Version>, Error> {
    let mut names = Names::default();
    names.push(pseudonyms, principal);
    let [called, by] = names.parameters();
    let name = principal.to_string();
    let before = unused_since.map(|Day(day)| day);
    let locked = [name.as_str()];
    let lock = [(&locked.as_slice() as _, Type::TEXT_ARRAY)];
    let parameters = [
        called,
        by,
        (&name as _, Type::TEXT),
        (&before as _, Type::INT4),
    ];
    let forgotten = link.write_alone([
        Statement {
            sql: LOCK,
            parameters: &lock,
        },
        Statement {
            sql: FORGET,
            parameters: &parameters,
        },
    ]);
    let [_, rows] = forgotten.await?;
    let held = rows.first().filter(|row| row.get(2));
    Ok(held.map(|row| version(row, 0)))
}

/// Leaves tombstones of these versions where they outrank what stands. Returns the names of those that were.
pub(super) async fn bury(
    link: &Link,
    pseudonyms: &Pseudonyms,
    entries: &[(&Principal, Version)],
) -> Result<Vec<String>, Error> {
    let mut names = Names::default();
    let mut wanted = Raised::default();
    for (principal, version) in entries {
        names.push(pseudonyms, principal);
        wanted.push(principal.to_string(), *version);
    }
    let [called, by] = names.parameters();
    let [whose, generations, epochs] = wanted.parameters();
    let lock = [whose.clone()];
    let parameters = [called, by, whose, generations, epochs];
    let buried = link.write_alone([
        // One of an earlier version may be about to commit there.
        Statement {
            sql: LOCK,
            parameters: &lock,
        },
        Statement {
            sql: BURY,
            parameters: &parameters,
        },
    ]);
    let [_, rows] = buried.await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// As [`crate::store::Store::bury`]; returns those that were raised.
pub(super) async fn raise(link: &Link, tombstones: &[Tombstone]) -> Result<Vec<Pseudonym>, Error> {
    let mut wanted = Raised::default();
    for Tombstone { pseudonym, version } in tombstones {
        wanted.push(pseudonym.to_string(), *version);
    }
    let parameters = wanted.parameters();
    let raised = link.write_alone([Statement {
        sql: RAISE,
        parameters: &parameters,
    }]);
    let [rows] = raised.await?;
    let raised = rows.iter().map(|row| Pseudonym::parse(row.get(0)));
    Ok(raised.flatten().collect())
}

/// As [`crate::store::ReadOnly::tombstones`].
pub(super) async fn list(
    link: &Link,
    after: Option<&Cursor>,
    limit: usize,
) -> Result<Tombstones, Error> {
    let after = after.map_or(PREFIX, |Cursor(key)| key);
    let most = signed(limit as u64);
    let parameters = [
        (&after as _, Type::TEXT),
        (&END as _, Type::TEXT),
        (&most as _, Type::INT8),
    ];
    let rows = link.read(LIST, parameters).await?;
    let tombstone = |row: &Row| {
        let pseudonym = Pseudonym::parse(row.get(0))?;
        let version = version(row, 1);
        Some(Tombstone { pseudonym, version })
    };
    let last = rows.last().filter(|_| rows.len() == limit);
    Ok(Tombstones {
        tombstones: rows.iter().filter_map(tombstone).collect(),
        next: last.map(|row| Cursor(row.get(0))),
    })
}

/// Rows, and the versions that they are to get, as columns.
#[derive(Default)]
struct Raised {
    keys: Vec<String>,
    generations: Vec<i64>,
    epochs: Vec<i64>,
}

impl Raised {
    fn push(&mut self, key: String, version: Version) {
        self.keys.push(key);
        self.generations.push(signed(version.generation.0));
        self.epochs.push(signed(version.epoch));
    }

    fn parameters(&self) -> [Parameter<'_>; 3] {
        [
            (&self.keys, Type::TEXT_ARRAY),
            (&self.generations, Type::INT8_ARRAY),
            (&self.epochs, Type::INT8_ARRAY),
        ]
    }
}

fn version(row: &Row, first: usize) -> Version {
    Version {
        generation: Generation(unsigned(row.get(first))),
        epoch: unsigned(row.get(first + 1)),
    }
}

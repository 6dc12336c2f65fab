//! How entries lie in rows: read from the columns of one row, and written as one array for each column,
//! so that one statement writes many.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};
use uuid::Uuid;

use super::session::Parameter;
use crate::clock::Timestamp;
use crate::principal::{InstanceId, Principal};
use crate::store::{Entry, Error, Generation, KeyId, Notes, Record, Rejected, RunId};

/// The columns of `entries`, in the order in which [`entry`] reads and [`Columns`] writes them.
macro_rules! columns {
    () => {
        concat!("principal, generation, ", columns!(after generation))
    };
    (after generation) => {
        "epoch, instance, known, sealed, key_id, received, expires, run, \
         refresh_dead, answer_lost, rejected_until, rejected_with, displaced, contested_until, \
         suppressed_until, registered_in"
    };
}
/// Proposes rows to be inserted: those of the arrays `$1` to `$18`, in their order, which is the one in
/// which they are locked. A statement says in its `ON CONFLICT` what happens to rows that `stand`, and may
/// say which generation they get.
macro_rules! insert_entries {
    () => {
        insert_entries!("generation")
    };
    ($generation:literal) => {
        concat!(
            "INSERT INTO entries AS stands (",
            columns!(),
            ") SELECT principal, ",
            $generation,
            ", ",
            columns!(after generation),
            " FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::uuid[], $5::boolean[], \
                 $6::bytea[], $7::bytea[], $8::bigint[], $9::bigint[], $10::uuid[], $11::bigint[], \
                 $12::bigint[], $13::bigint[], $14::bytea[], $15::bigint[], $16::bigint[], \
                 $17::bigint[], $18::uuid[]) AS wanted (",
            columns!(),
            ")"
        )
    };
}
/// Whether a row is more than a version; of the row that `stands`, where there are two.
macro_rules! holds_something {
    () => {
        holds_something!("")
    };
    (stands) => {
        holds_something!("stands.")
    };
    ($of:literal) => {
        concat!(
            "(coalesce(",
            $of,
            "refresh_dead, ",
            $of,
            "answer_lost, ",
            $of,
            "rejected_until, ",
            $of,
            "displaced, ",
            $of,
            "contested_until, ",
            $of,
            "suppressed_until) IS NOT NULL OR ",
            $of,
            "sealed IS NOT NULL OR ",
            $of,
            "registered_in IS NOT NULL)"
        )
    };
}
/// The server's clock, in milliseconds: not that of the transaction, which may have waited since.
macro_rules! now {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    };
}
pub(super) use {columns, holds_something, insert_entries, now};

/// Locks the entries `$1` in the order of all transactions.
pub(super) const LOCK: &str =
    "SELECT FROM entries WHERE principal = ANY($1) ORDER BY principal FOR UPDATE";

/// Entries as columns, for `unnest`.
#[derive(Default)]
pub(super) struct Columns<'a> {
    principal: Vec<&'a str>,
    generation: Vec<i64>,
    epoch: Vec<i64>,
    instance: Vec<Option<Uuid>>,
    known: Vec<bool>,
    sealed: Vec<Option<&'a [u8]>>,
    key: Vec<Option<&'a [u8]>>,
    received: Vec<Option<i64>>,
    expires: Vec<Option<i64>>,
    run: Vec<Option<Uuid>>,
    refresh_dead: Vec<Option<i64>>,
    answer_lost: Vec<Option<i64>>,
    rejected_until: Vec<Option<i64>>,
    rejected_with: Vec<Option<&'a [u8]>>,
    displaced: Vec<Option<i64>>,
    contested_until: Vec<Option<i64>>,
    suppressed_until: Vec<Option<i64>>,
    registered_in: Vec<Option<Uuid>>,
}

impl<'a> Columns<'a> {
    /// Adds a row with the key `principal`, a [`Principal`] as it displays.
    pub(super) fn push(&mut self, principal: &'a str, entry: &'a Entry) {
        let record = entry.record.as_ref();
        let notes = &entry.notes;
        let millis = |timestamp: Option<Timestamp>| timestamp.map(Timestamp::as_millis);
        let generation = |generation: Option<Generation>| generation.map(|it| signed(it.0));
        self.principal.push(principal);
        self.generation.push(signed(entry.generation.0));
        self.epoch.push(signed(entry.epoch));
        self.instance
            .push(record.and_then(|record| record.instance).map(Uuid::from));
        self.known.push(record.is_some_and(|record| record.known));
        self.sealed
            .push(record.map(|record| record.sealed.as_slice()));
        self.key.push(record.map(|record| record.key.0.as_slice()));
        self.received
            .push(millis(record.map(|record| record.received)));
        self.expires
            .push(millis(record.map(|record| record.expires)));
        self.run.push(record.map(|record| record.run.0));
        self.refresh_dead.push(generation(notes.refresh_dead));
        self.answer_lost.push(generation(notes.answer_lost));
        let rejected = notes.rejected.as_ref();
        self.rejected_until
            .push(millis(rejected.map(|rejected| rejected.until)));
        self.rejected_with
            .push(rejected.map(|rejected| rejected.with.as_slice()));
        self.displaced.push(millis(notes.displaced));
        self.contested_until.push(millis(notes.contested_until));
        self.suppressed_until.push(millis(notes.suppressed_until));
        self.registered_in.push(notes.registered_in.map(Uuid::from));
    }

    /// Says of the last row that it is known.
    pub(super) fn mark_known(&mut self) {
        if let Some(last) = self.known.last_mut() {
            *last = true;
        }
    }

    /// The keys of the rows.
    pub(super) fn principals(&self) -> Parameter<'_> {
        (&self.principal, Type::TEXT_ARRAY)
    }

    /// `$1` to `$18`.
    pub(super) fn parameters(&self) -> Vec<Parameter<'_>> {
        vec![
            (&self.principal, Type::TEXT_ARRAY),
            (&self.generation, Type::INT8_ARRAY),
            (&self.epoch, Type::INT8_ARRAY),
            (&self.instance, Type::UUID_ARRAY),
            (&self.known, Type::BOOL_ARRAY),
            (&self.sealed, Type::BYTEA_ARRAY),
            (&self.key, Type::BYTEA_ARRAY),
            (&self.received, Type::INT8_ARRAY),
            (&self.expires, Type::INT8_ARRAY),
            (&self.run, Type::UUID_ARRAY),
            (&self.refresh_dead, Type::INT8_ARRAY),
            (&self.answer_lost, Type::INT8_ARRAY),
            (&self.rejected_until, Type::INT8_ARRAY),
            (&self.rejected_with, Type::BYTEA_ARRAY),
            (&self.displaced, Type::INT8_ARRAY),
            (&self.contested_until, Type::INT8_ARRAY),
            (&self.suppressed_until, Type::INT8_ARRAY),
            (&self.registered_in, Type::UUID_ARRAY),
        ]
    }
}

/// A row that cannot be understood.
#[derive(Debug)]
pub(super) struct Damage;

impl Damage {
    /// As a call for `principal` returns it.
    pub(super) fn of(self, principal: &Principal) -> Error {
        Error::Damaged(principal.clone())
    }
}

/// Reads `columns!()` of `row`, which begin with the column `first`.
pub(super) fn entry(row: &Row, first: usize) -> Result<(Principal, Entry), Damage> {
    let columns = Reader { row, first };
    let principal = Principal::parse(columns.get(0)?).ok_or(Damage)?;
    let entry = Entry {
        generation: columns.count(1)?.map(Generation).ok_or(Damage)?,
        epoch: columns.count(2)?.ok_or(Damage)?,
        record: columns.record()?,
        notes: columns.notes()?,
    };
    Ok((principal, entry))
}

/// Reads one row by the places of its columns: a name would be looked for among all of them.
struct Reader<'r> {
    row: &'r Row,
    first: usize,
}

impl<'r> Reader<'r> {
    fn get<T: FromSql<'r>>(&self, column: usize) -> Result<T, Damage> {
        self.row.try_get(self.first + column).map_err(|_| Damage)
    }

    fn record(&self) -> Result<Option<Record>, Damage> {
        let Some(sealed) = self.get::<Option<Vec<u8>>>(5)? else {
            return Ok(None);
        };
        Ok(Some(Record {
            instance: self.get::<Option<Uuid>>(3)?.map(InstanceId::from),
            known: self.get(4)?,
            sealed,
            key: KeyId(self.bytes(6)?.ok_or(Damage)?),
            received: self.timestamp(7)?.ok_or(Damage)?,
            expires: self.timestamp(8)?.ok_or(Damage)?,
            run: RunId(self.get(9)?),
        }))
    }

    fn notes(&self) -> Result<Notes, Damage> {
        let rejected = |until| {
            let with = self.bytes(13)?.ok_or(Damage)?;
            Ok(Rejected { until, with })
        };
        Ok(Notes {
            refresh_dead: self.count(10)?.map(Generation),
            answer_lost: self.count(11)?.map(Generation),
            rejected: self.timestamp(12)?.map(rejected).transpose()?,
            displaced: self.timestamp(14)?,
            contested_until: self.timestamp(15)?,
            suppressed_until: self.timestamp(16)?,
            registered_in: self.get::<Option<Uuid>>(17)?.map(InstanceId::from),
        })
    }

    fn timestamp(&self, column: usize) -> Result<Option<Timestamp>, Damage> {
        let millis = self.get::<Option<i64>>(column)?;
        Ok(millis.map(Timestamp::from_millis))
    }

    fn bytes<const N: usize>(&self, column: usize) -> Result<Option<[u8; N]>, Damage> {
        let bytes = self.get::<Option<&[u8]>>(column)?;
        let array = bytes.map(<[u8; N]>::try_from).transpose();
        array.map_err(|_| Damage)
    }

    /// PostgreSQL has no unsigned integers; a negative count is damage.
    fn count(&self, column: usize) -> Result<Option<u64>, Damage> {
        let count = self.get::<Option<i64>>(column)?;
        count.map(u64::try_from).transpose().map_err(|_| Damage)
    }
}

/// Milliseconds of a duration, for the server's clock.
pub(super) fn millis(duration: Duration) -> i64 {
    // Added to a clock it must not overflow.
    i64::try_from(duration.as_millis()).map_or(LONGEST, |millis| millis.min(LONGEST))
}

/// A thousand years.
const LONGEST: i64 = 1_000 * 365 * 86_400_000;

/// A count of rows, or a version: the server has none below zero.
pub(super) fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// No count ever gets there; if one does, it is one that no row has.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

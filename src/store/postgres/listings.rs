//! What is read of many entries at once: pages of a listing, how many pairs there are, and the keys that
//! they need.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

use super::columns::{columns, entry, holds_something, signed, unsigned};
use super::link::Link;
use super::loads::readable;
use super::tombstones;
use crate::principal::Principal;
use crate::store::{Cursor, Error, KeyId, Listed, Page, Pseudonym, Pseudonyms};

/// Prefixes of principals in the principals' order, and what sorts right after each.
const KINDS: [(&str, &str); 2] = [("user:", "user;"), ("account:", "account;")];

const LIST_ALL: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM entries WHERE principal > $1 AND principal < $2 ORDER BY principal LIMIT $3"
);
const LIST_KNOWN: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM entries WHERE principal > $1 AND principal < $2 AND ",
    holds_something!(),
    " ORDER BY principal LIMIT $3"
);
/// Counts the keys of a part of the pairs: a statement over all of them would outlast its call.
const KEYS: &str = "SELECT key_id, count(*), max(principal) FROM (
        SELECT key_id, principal FROM due WHERE principal > $1 ORDER BY principal LIMIT $2
    ) AS part GROUP BY key_id";
const KEYS_AT_ONCE: i64 = 50_000;
/// Sorts after every principal.
const LAST: &str = "\u{10FFFF}";
const CHECKED_AT_ONCE: i64 = 2_000;
/// The table's size in bytes, and how many rows the server believes it to have: fewer than none if it
/// never counted.
const SIZE: &str = "SELECT pg_relation_size('due'), reltuples::bigint FROM pg_class
    WHERE oid = 'due'::regclass";
const COUNT: &str = "SELECT count(*) FROM due";
/// What is counted again whenever somebody asks: it takes a few milliseconds.
const SMALL: i64 = 8 << 20;

/// As [`crate::store::Store::list`].
pub(super) async fn list(
    link: &Link,
    pseudonyms: &Pseudonyms,
    listed: Listed,
    after: Option<&Cursor>,
    limit: usize,
) -> Result<Page, Error> {
    let statement = match listed {
        Listed::Known => LIST_KNOWN,
        Listed::All => LIST_ALL,
    };
    let mut after = after.map(|Cursor(key)| key.as_str());
    let mut page = Page::default();
    let mut left = limit;
    for (first, end) in KINDS {
        if after.is_some_and(|after| !after.starts_with(first)) {
            continue;
        }
        let from = after.take().unwrap_or(first);
        let most = signed(left as u64);
        let rows = link.read(
            statement,
            [(&from, Type::TEXT), (&end, Type::TEXT), (&most, Type::INT8)],
        );
        let rows = rows.await?;
        page.entries.extend(readable(&rows));
        left -= rows.len();
        if left == 0 {
            // A damaged entry is passed over by its key as well.
            page.next = rows.last().map(|row| Cursor(row.get(0)));
            break;
        }
    }
    let entries = page.entries.iter_mut();
    let entries = entries.map(|(principal, entry)| (&*principal, entry));
    tombstones::lay_beneath(link, pseudonyms, entries).await?;
    Ok(page)
}

/// Reads all entries. An error names the first one that is damaged.
pub(super) async fn check(link: &Link) -> Result<(), Error> {
    let mut after = String::new();
    loop {
        let parameters = [
            (&after as _, Type::TEXT),
            (&LAST as _, Type::TEXT),
            (&CHECKED_AT_ONCE as _, Type::INT8),
        ];
        let rows = link.read(LIST_ALL, parameters).await?;
        if rows.is_empty() {
            return Ok(());
        }
        for row in &rows {
            if entry(row, 0).is_err() {
                let key: &str = row.get(0);
                match (Principal::parse(key), Pseudonym::parse(key)) {
                    (Some(principal), _) => return Err(Error::Damaged(principal)),
                    (None, Some(_)) => {}
                    (None, None) => {
                        return Err(Error::Unreadable(format!("{key:?} is no principal")));
                    }
                }
            }
        }
        after = rows.last().map_or(after, |row| row.get(0));
    }
}

/// As [`crate::store::Store::keys`].
pub(super) async fn keys(link: &Link) -> Result<Vec<(KeyId, u64)>, Error> {
    let mut keys = BTreeMap::new();
    let mut after = String::new();
    loop {
        let part = link.read(KEYS, [(&after, Type::TEXT), (&KEYS_AT_ONCE, Type::INT8)]);
        let mut counted = 0;
        for row in part.await? {
            let (key, records, last): (&[u8], i64, String) = (row.get(0), row.get(1), row.get(2));
            let key = <[u8; 4]>::try_from(key).unwrap_or_default();
            *keys.entry(KeyId(key)).or_insert(0) += unsigned(records);
            after = after.max(last);
            counted += records;
        }
        if counted < KEYS_AT_ONCE {
            return Ok(keys.into_iter().collect());
        }
    }
}

/// As [`crate::store::Store::count`]: what the server believes, if counting would take long. It counts anew
/// whenever a twentieth of the rows has changed.
pub(super) async fn count(link: &Link) -> Result<u64, Error> {
    let size = link.read(SIZE, []).await?;
    if let Some(row) = size.first()
        && row.get::<_, i64>(0) > SMALL
        && row.get::<_, i64>(1) > 0
    {
        return Ok(unsigned(row.get(1)));
    }
    let counted = link.read(COUNT, []).await?;
    Ok(counted.first().map_or(0, |row| unsigned(row.get(0))))
}

//! Entries that are read by their principals: one, or as many as are asked for at the same time.

use std::collections::HashMap;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::batch::{Job, Work};
use super::columns::{Damage, columns, entry};
use super::link::Link;
use super::tombstones;
use crate::principal::Principal;
use crate::store::{Entry, Error, Pseudonyms};

const LOAD: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM entries WHERE principal = ANY($1)"
);

/// Loads that are asked for at the same time are one statement.
pub(super) struct Loads {
    pub(super) link: Link,
    pub(super) pseudonyms: Pseudonyms,
}

impl Work for Loads {
    type Asked = ();
    type Answer = Result<Entry, Error>;

    async fn work(&self, batch: &[Job<()>]) -> Result<Vec<Result<Entry, Error>>, Error> {
        load(&self.link, &self.pseudonyms, batch.iter()).await
    }
}

/// What stands for `principal`.
pub(super) async fn load_one(
    link: &Link,
    pseudonyms: &Pseudonyms,
    principal: &Principal,
) -> Result<Entry, Error> {
    let keys = [principal.to_string()];
    let rows = link
        .read(LOAD, [(&keys.as_slice(), Type::TEXT_ARRAY)])
        .await?;
    let row = rows.first();
    let mut entry = row.map_or(Ok(Entry::default()), |row| loaded(row, 0, principal))?;
    tombstones::lay_beneath(link, pseudonyms, std::iter::once((principal, &mut entry))).await?;
    Ok(entry)
}

/// What stands for each of `jobs`, in their order.
pub(super) async fn load<'a, A: 'a>(
    link: &Link,
    pseudonyms: &Pseudonyms,
    jobs: impl Iterator<Item = &'a Job<A>> + Clone,
) -> Result<Vec<Result<Entry, Error>>, Error> {
    let keys: Vec<&str> = jobs.clone().map(|job| job.key.as_str()).collect();
    let rows = link.read(LOAD, [(&keys, Type::TEXT_ARRAY)]).await?;
    let mut rows: HashMap<&str, &Row> = rows
        .iter()
        .filter_map(|row| Some((row.try_get(0).ok()?, row)))
        .collect();
    let load = |job: &Job<A>| match rows.remove(job.key.as_str()) {
        Some(row) => loaded(row, 0, &job.principal),
        None => Ok(Entry::default()),
    };
    let mut loaded: Vec<_> = jobs.clone().map(load).collect();
    let read = jobs
        .zip(&mut loaded)
        .map(|(job, read)| (&job.principal, read));
    tombstones::lay_beneath_each(link, pseudonyms, read.collect()).await;
    Ok(loaded)
}

/// The entry of `principal` in `row`, whose columns begin with the column `first`.
pub(super) fn loaded(row: &Row, first: usize, principal: &Principal) -> Result<Entry, Error> {
    match entry(row, first) {
        Ok((_, entry)) => Ok(entry),
        Err(damage) => Err(damage.of(principal)),
    }
}

/// The entries in `rows`. Leaves a damaged one out: it must not hide all others. Loading it by name says
/// that it is damaged.
pub(super) fn readable(rows: &[Row]) -> Vec<(Principal, Entry)> {
    let read = |row| match entry(row, 0) {
        Ok(entry) => Some(entry),
        Err(Damage) => {
            tracing::error!("a damaged entry");
            None
        }
    };
    rows.iter().filter_map(read).collect()
}

/// What stands for each of `principals`, in any order. An entry that is damaged counts as nothing.
pub(super) async fn standing(
    link: &Link,
    pseudonyms: &Pseudonyms,
    principals: &[Principal],
) -> Result<Vec<(Principal, Entry)>, Error> {
    let keys: Vec<String> = principals.iter().map(Principal::to_string).collect();
    let rows = link.read(LOAD, [(&keys, Type::TEXT_ARRAY)]).await?;
    let mut standing: HashMap<Principal, Entry> = readable(&rows).into_iter().collect();
    for principal in principals {
        standing.entry(principal.clone()).or_default();
    }
    tombstones::lay_beneath(link, pseudonyms, standing.iter_mut()).await?;
    Ok(standing.into_iter().collect())
}

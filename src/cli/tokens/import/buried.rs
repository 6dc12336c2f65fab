//! Tombstones of a sealed export. Whose they are only the name tells: once they are in the store, the pairs
//! that stand there are looked through for users who were forgotten in the store that the export came from.

use std::collections::HashMap;

use super::Target;
use crate::cli::opening::OpenStore;
use crate::store::{self, Entry, Listed, Pseudonym, ReadOnly, Restored, Tombstone, Version};

/// How much is read at once.
const PAGE: usize = 1000;

/// What there was before an import that only tells what it would do.
#[derive(Default)]
pub(super) struct Standing(HashMap<Pseudonym, Version>);

impl Standing {
    /// What stands there that `into` is compared with.
    pub(super) async fn of(into: &Target<'_>) -> Result<Standing, store::Error> {
        match into {
            Target::DryRun(Some(view)) => read(&*view.store).await,
            Target::DryRun(None) | Target::Store(_) => Ok(Standing::default()),
        }
    }

    fn judge(&self, tombstone: &Tombstone) -> Restored {
        let Version { generation, epoch } = tombstone.version;
        let stands = self.0.get(&tombstone.pseudonym);
        match stands.is_some_and(|it| it.generation >= generation && it.epoch >= epoch) {
            true => Restored::Kept,
            false => Restored::Written,
        }
    }
}

async fn read(store: &dyn ReadOnly) -> Result<Standing, store::Error> {
    let mut standing = Standing::default();
    let mut after = None;
    loop {
        let page = store.tombstones(after.as_ref(), PAGE).await?;
        let tombstones = page.tombstones.into_iter();
        standing
            .0
            .extend(tombstones.map(|it| (it.pseudonym, it.version)));
        after = page.next;
        if after.is_none() {
            return Ok(standing);
        }
    }
}

/// Puts tombstones into the store, or only compares them with those that stand there.
pub(super) async fn bury(
    into: &Target<'_>,
    standing: &Standing,
    tombstones: Vec<Tombstone>,
) -> Result<Vec<Restored>, store::Error> {
    match into {
        Target::Store(open) if !tombstones.is_empty() => open.store.bury(tombstones).await,
        Target::Store(_) => Ok(Vec::new()),
        Target::DryRun(_) => Ok(tombstones.iter().map(|it| standing.judge(it)).collect()),
    }
}

/// Forgets those whose pair is of an epoch that the tombstones of the export ended.
pub(super) async fn forget_buried(
    open: &OpenStore,
    tombstones: &HashMap<Pseudonym, Version>,
) -> Result<(), store::Error> {
    if tombstones.is_empty() {
        return Ok(());
    }
    let pseudonyms = open.ring.pseudonyms();
    let mut after = None;
    loop {
        let page = open.store.list(Listed::Known, after.as_ref(), PAGE).await?;
        let ended = page.entries.into_iter().filter_map(|(principal, entry)| {
            let all = pseudonyms.all(&principal);
            let mut versions = all.filter_map(|pseudonym| tombstones.get(&pseudonym).copied());
            let ended = versions.find(|version| version.epoch > entry.epoch);
            drop(versions);
            Some((principal, Entry::forgotten(ended?)))
        });
        open.store.restore(ended.collect()).await?;
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

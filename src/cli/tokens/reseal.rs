//! `tokens reseal`: finishes the replacement of the store's key. What is sealed with an old one is
//! sealed with the current one, in small batches, also beside a running proxy: no token changes, and
//! pairs that are renewed meanwhile are left as they are.

use std::process::ExitCode;

use crate::cli::opening::{OpenStore, StoreError};
use crate::cli::progress::{Progress, Shown, Total};
use crate::cli::{Failure, print, say};
use crate::credentials::Pair;
use crate::credentials::canary::{check_records, take_over};
use crate::principal::Principal;
use crate::store::{Entry, Listed, Resealed};

/// Pairs of one transaction: a proxy beside this command never waits for more than these.
const BATCH: usize = 100;

/// Seals every pair with the current key, and says which old keys are no longer needed.
pub(super) async fn reseal(open: &OpenStore) -> Result<ExitCode, Failure> {
    let (mut resealed, mut changed, mut damaged) = (0, 0, 0);
    let total = Total::Entries(open.store.count().await?);
    let progress = Progress::new("looked at", total, Shown::AsBar);
    let mut after = None;
    loop {
        let page = open
            .store
            .list(Listed::Known, after.as_ref(), BATCH)
            .await?;
        after = page.next;
        progress.advance(page.entries.len() as u64, 0);
        let mut batch = Vec::new();
        for (principal, entry) in page.entries {
            match anew(open, &principal, &entry) {
                Some(Ok(one)) => batch.push(one),
                Some(Err(())) => {
                    damaged += 1;
                    progress.say(&format!("{principal}: its record cannot be opened"));
                }
                None => {}
            }
        }
        if !batch.is_empty() {
            let wanted = batch.len();
            let done = open.store.reseal(batch).await?;
            resealed += done;
            changed += wanted - done;
        }
        if after.is_none() {
            break;
        }
    }
    drop(progress);
    print(&format!(
        "resealed {resealed}, changed meanwhile {changed}, damaged {damaged}"
    ))?;
    let mut left = 0;
    let needed = check_records(&open.ring, &open.store.keys().await?);
    for (key, pairs) in needed.map_err(StoreError::from)? {
        left += pairs;
        print(&match pairs {
            0 => format!(
                "key {key}: nothing is sealed with it; it can be removed from [store] old_keys once \
                 no caller holds a token that was handed out under it"
            ),
            pairs => format!(
                "key {key}: {pairs} pairs are still sealed with it; restart every proxy whose \
                 [store] key it is, and run this command again"
            ),
        })?;
    }
    if left == 0
        && !take_over(&open.ring, &*open.store)
            .await
            .map_err(StoreError::from)?
    {
        say("another process has made another key the store's meanwhile; run this command again");
        left = 1;
    }
    Ok(match left {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// The record of `entry` sealed with the current key; `None` if it is already, or if there is none.
fn anew(open: &OpenStore, principal: &Principal, entry: &Entry) -> Option<Result<Resealed, ()>> {
    let key = open.ring.key_id();
    let record = entry.record.as_ref().filter(|record| record.key != key)?;
    let Ok(pair) = Pair::of_record(&open.ring, principal, record) else {
        return Some(Err(()));
    };
    Some(Ok(Resealed {
        principal: principal.clone(),
        before: record.sealed.clone(),
        sealed: pair.seal(&open.ring, principal),
        key,
    }))
}

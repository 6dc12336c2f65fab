//! What the stream of changes tells.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;

use super::{Medium, at, first, over, pseudonyms, record, run, user};
use crate::principal::Principal;
use crate::store::{Change, Entry, Note, Restored, Store, Tombstone, Version};

/// A change is told within a second; a busy machine gets more.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// Waits until it is told that `principal` has the version `expected`. Repeats, and what happened just
/// before, are permitted.
pub(crate) async fn told(
    changes: &mut UnboundedReceiver<Change>,
    principal: &Principal,
    expected: Version,
) {
    let buried = Tombstone {
        pseudonym: pseudonyms().current(principal),
        version: expected,
    };
    let told = async {
        loop {
            match changes.recv().await.expect("the store is open") {
                Change::Entry { principal: of, .. } if of != *principal => {}
                Change::Entry { version, .. } if version != expected => {}
                Change::Forgotten(told) if told != buried => {}
                Change::Entry { .. } | Change::Forgotten(_) | Change::Everything => return,
            }
        }
    };
    let told = tokio::time::timeout(TOLD_WITHIN, told).await;
    told.unwrap_or_else(|_| panic!("{principal} at {expected:?} is not told"));
}

pub(crate) async fn changes_of_all_processes_are_told<M: Medium>(medium: &M) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    first(&one, &user(9), record(1)).await;
    let mut changes = one.changes();
    let mut told = async |n, version| told(&mut changes, &user(n), version).await;
    first(&one, &user(1), record(1)).await;
    first(&other, &user(2), record(1)).await;
    if M::TELLS_COMMITS {
        told(1, over(1, 0)).await;
        told(2, over(1, 0)).await;
    }
    other.note(&user(3), Note::Displaced(at(1))).await.unwrap();
    if M::TELLS_COMMITS {
        told(3, over(0, 0)).await;
    }
    for store in [&one, &other] {
        let stands = store.load(&user(1)).await.unwrap();
        assert_eq!(store.forget(&user(1)).await, Ok(true));
        told(1, over(stands.generation.0, stands.epoch + 1)).await;
        let newer = Entry {
            epoch: stands.epoch + 2,
            ..stands
        };
        let generation = newer.generation.0 + 1;
        let version = over(generation, newer.epoch);
        let restored = store.restore(vec![(user(1), newer)]).await;
        assert_eq!(restored, Ok(vec![Restored::Written]));
        told(1, version).await;
    }
    // However many at once.
    let many: Vec<_> = (100..150).map(user).collect();
    for principal in &many {
        first(&other, principal, record(1)).await;
    }
    let forgotten = many.iter().map(|principal| other.forget(principal));
    for forgotten in futures_util::future::join_all(forgotten).await {
        assert_eq!(forgotten, Ok(true));
    }
    let forgotten = many.iter().map(|principal| Tombstone {
        pseudonym: pseudonyms().current(principal),
        version: over(1, 1),
    });
    let mut untold: Vec<_> = forgotten.collect();
    let all = async {
        while !untold.is_empty() {
            match changes.recv().await.expect("the store is open") {
                Change::Forgotten(told) => untold.retain(|one| *one != told),
                Change::Entry { .. } => {}
                Change::Everything => untold.clear(),
            }
        }
    };
    let all = tokio::time::timeout(TOLD_WITHIN, all).await;
    all.expect("each is told");
}

pub(crate) async fn a_new_receiver_of_changes_ends_the_stream_of_the_one_before(
    medium: &impl Medium,
) {
    let store = medium.open(run()).await;
    first(&store, &user(1), record(1)).await;
    let mut before = store.changes();
    let mut changes = store.changes();
    store.forget(&user(1)).await.unwrap();
    told(&mut changes, &user(1), over(1, 1)).await;
    let ended = async { while before.recv().await.is_some() {} };
    let ended = tokio::time::timeout(TOLD_WITHIN, ended).await;
    ended.expect("the stream ends");
    medium.close(store).await;
    let ended = async { while changes.recv().await.is_some() {} };
    let ended = tokio::time::timeout(TOLD_WITHIN, ended).await;
    ended.expect("closing ends the stream");
}

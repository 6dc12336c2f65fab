//! What happens at the same moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::{join, join_all};

use super::*;
use crate::store::contract::{LONG, rounds};
use crate::store::{Generation, Note};

/// One that waits for the lock of a lease must read what the transaction wrote that it waited for.
#[tokio::test]
async fn a_lease_comes_with_what_its_former_holder_committed() {
    let place = Direct::new().await;
    let (one, other) = (place.open().await, place.open().await);
    let mut waited = 0;
    for round in 0..rounds(100, 2_000) {
        let principal = user(round % 3);
        let (first, second) = (LeaseId::fresh(), LeaseId::fresh());
        let (lease, entry) = one.lease(&principal, first, LONG).await.unwrap();
        assert_eq!(lease, Lease::Granted { orphaned: false });
        let over = entry.unwrap().version();
        let commit = one.commit(&principal, record(1), over, Some(first));
        let next = async {
            tokio::time::sleep(Duration::from_micros(fastrand::u64(0..3_000))).await;
            let (lease, entry) = other.lease(&principal, second, LONG).await.unwrap();
            (lease, entry.unwrap())
        };
        let (committed, (lease, entry)) = join(commit, next).await;
        let generation = Generation(over.generation.0 + 1);
        assert_eq!(committed, Ok(Commit::Committed(generation)));
        match lease {
            Lease::Granted { orphaned } => {
                assert_eq!(
                    (orphaned, entry.generation),
                    (false, generation),
                    "round {round}"
                );
                waited += 1;
            }
            Lease::Held { .. } => {}
        }
        other.release(&principal, second);
    }
    assert!(waited > 0, "no lease was asked for at the right moment");
}

/// Many processes renew the same few users: each reads what stands, and commits on top of it.
#[tokio::test]
async fn who_holds_the_lease_commits_on_what_came_with_it() {
    let place = Direct::new().await;
    let stores: Vec<_> = join_all((0..3).map(|_| place.open())).await;
    let done = Arc::new(AtomicU64::new(0));
    let renewals = rounds(200, 4_000);
    let tasks = (0..12).map(async |task: usize| {
        let store = &stores[task % stores.len()];
        while done.load(Ordering::Relaxed) < renewals {
            let principal = user(fastrand::u64(0..4));
            let id = LeaseId::fresh();
            let (lease, entry) = store.lease(&principal, id, LONG).await.unwrap();
            match lease {
                Lease::Granted { orphaned } => assert!(!orphaned),
                Lease::Held { .. } => continue,
            }
            let over = entry.unwrap().version();
            let committed = store.commit(&principal, record(1), over, Some(id)).await;
            let generation = Generation(over.generation.0 + 1);
            assert_eq!(committed, Ok(Commit::Committed(generation)));
            done.fetch_add(1, Ordering::Relaxed);
        }
    });
    join_all(tasks).await;
    let mut generations = 0;
    for n in 0..4 {
        generations += stores[0].load(&user(n)).await.unwrap().generation.0;
    }
    assert_eq!(generations, done.load(Ordering::Relaxed));
}

/// All kinds of writes to the same rows, from several processes: nothing waits for what waits for it.
#[tokio::test]
async fn transactions_lock_rows_in_one_order() {
    let place = Direct::new().await;
    let stores: Vec<_> = join_all((0..3).map(|_| place.open())).await;
    let tasks = (0..24).map(async |task: usize| {
        let store = &stores[task % stores.len()];
        for _ in 0..rounds(20, 400) {
            let principal = user(fastrand::u64(0..8));
            let id = LeaseId::fresh();
            match fastrand::u8(0..6) {
                0 => store.note(&principal, Note::RefreshAlive).await.unwrap(),
                1 => drop(store.forget(&principal).await.unwrap()),
                2 => {
                    let entries = (0..8).rev().map(|n| {
                        let stands = Entry {
                            generation: Generation(fastrand::u64(1..100)),
                            epoch: fastrand::u64(..3),
                            record: (fastrand::u8(..4) > 0).then(|| record(fastrand::u8(..))),
                            ..Entry::default()
                        };
                        (user(n), stands)
                    });
                    drop(store.restore(entries.collect()).await.unwrap());
                }
                3 => drop(
                    store
                        .claim_due(Timestamp::from_millis(i64::MAX), 3, LONG)
                        .await
                        .unwrap(),
                ),
                _ => {
                    let (_, entry) = store.lease(&principal, id, LONG).await.unwrap();
                    let over = entry.unwrap().version();
                    drop(
                        store
                            .commit(&principal, record(1), over, Some(id))
                            .await
                            .unwrap(),
                    );
                    store.release(&principal, id);
                }
            }
        }
    });
    join_all(tasks).await;
    let log = place.database.server().log();
    let name = place.database.name();
    let deadlock = log
        .lines()
        .find(|line| line.contains(name) && line.contains("deadlock"));
    assert_eq!(deadlock, None);
}

#[tokio::test]
async fn commits_at_once_are_few_transactions() {
    let place = Direct::new().await;
    let store = place.open().await;
    let users: Vec<_> = (0..200).map(user).collect();
    let commits = users
        .iter()
        .map(|user| store.commit(user, record(1), Version::default(), None));
    for commit in join_all(commits).await {
        assert_eq!(commit, Ok(Commit::Committed(Generation(1))));
    }
    let transactions = place
        .database
        .value("SELECT count(DISTINCT xmin::text) FROM entries")
        .await;
    assert!(transactions.parse::<u32>().unwrap() <= 3, "{transactions}");
}

/// The server takes no NUL in a text.
#[tokio::test]
async fn a_row_that_cannot_be_written_fails_alone() {
    let place = Direct::new().await;
    let store = place.open().await;
    let principals = [user(1), Principal::Account("a\0b".into()), user(2)];
    // Without the outbox, which would keep what the server refuses.
    let entries = &store.parts.direct.entries;
    let commits = principals
        .iter()
        .map(|principal| entries.commit(principal, record(1), Version::default(), None));
    let commits = join_all(commits).await;
    let committed = Ok(Commit::Committed(Generation(1)));
    assert_eq!((&commits[0], &commits[2]), (&committed, &committed));
    assert!(matches!(commits[1], Err(Error::Refused(_))), "{commits:?}");
}

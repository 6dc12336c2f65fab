//! Pairs that are due: found oldest first, and given to one process at a time.

use std::time::Duration;

use super::{LONG, Medium, SOON, at, first, record, run, user};
use crate::store::{Generation, Note, Store};

pub(crate) async fn due_are_living_pairs_oldest_first_and_claimed_once(medium: &impl Medium) {
    let store = medium.open(run()).await;
    for n in [5, 3, 1, 4, 2, 6] {
        first(&store, &user(n.into()), record(n)).await;
    }
    let dead = |n, generation| {
        let note = Note::RefreshDead(Generation(generation));
        let (store, user) = (&store, user(n));
        async move { store.note(&user, note).await.unwrap() }
    };
    dead(2, 1).await;
    dead(3, 0).await; // Of a pair that was replaced.
    store.forget(&user(4)).await.unwrap();
    store.note(&user(7), Note::Displaced(at(1))).await.unwrap();
    let claim = async |limit, hold| store.claim_due(at(6), limit, hold).await;
    let all = vec![user(1), user(3), user(5)];
    assert_eq!(claim(10, Duration::ZERO).await, Ok(all));
    assert_eq!(claim(2, LONG).await, Ok(vec![user(1), user(3)]));
    assert_eq!(claim(2, LONG).await, Ok(vec![user(5)]));
    assert_eq!(claim(2, LONG).await, Ok(vec![]));
    // A claim changes nothing of the entry, and a commit is not due for its age.
    let later = store.claim_due(at(7), 10, LONG).await;
    assert_eq!(later, Ok(vec![user(6)]));
}

pub(crate) async fn no_two_processes_claim_the_same_pair(medium: &impl Medium) {
    let stores = [
        medium.open(run()).await,
        medium.open(run()).await,
        medium.open(run()).await,
    ];
    let users = 1..=60u8;
    let commits = users
        .clone()
        .map(|n| async move { (user(n.into()), record(n)) });
    for commit in commits {
        let (principal, record) = commit.await;
        first(&stores[0], &principal, record).await;
    }
    let keepers = stores.iter().map(async |store| {
        let mut claimed = Vec::new();
        loop {
            let claim = store.claim_due(at(1_000), 7, LONG).await.unwrap();
            if claim.is_empty() {
                return claimed;
            }
            assert!(claim.len() <= 7);
            claimed.extend(claim);
        }
    });
    let mut claimed = futures_util::future::join_all(keepers).await.concat();
    claimed.sort();
    let all: Vec<_> = users.map(|n| user(n.into())).collect();
    assert_eq!(claimed, all);
    let late = medium.open(run()).await;
    assert_eq!(late.claim_due(at(1_000), 7, LONG).await, Ok(vec![]));
}

pub(crate) async fn a_claim_is_over_after_its_hold<M: Medium>(medium: &M) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    for n in [1, 2] {
        first(&one, &user(n.into()), record(n)).await;
    }
    let claimed = tokio::time::Instant::now();
    assert_eq!(one.claim_due(at(9), 1, M::TTL).await, Ok(vec![user(1)]));
    assert_eq!(one.claim_due(at(9), 1, LONG).await, Ok(vec![user(2)]));
    let again = async {
        loop {
            let due = other.claim_due(at(9), 2, LONG).await.unwrap();
            if !due.is_empty() {
                return due;
            }
        }
    };
    let again = tokio::time::timeout(SOON, again).await;
    assert_eq!(again.expect("the hold ends"), [user(1)]);
    assert!(claimed.elapsed() + M::CLOCK_ERROR >= M::TTL, "too early");
    // The process that holds it no more gets it no more.
    assert_eq!(one.claim_due(at(9), 2, LONG).await, Ok(vec![]));
}

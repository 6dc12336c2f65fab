//! What is read of many entries at once: changes, due pairs, pages; and strangers that are dropped.

use std::time::Duration;

use super::{LONG, Medium, at, first, over, principals, record, run, user};
use crate::principal::Principal;
use crate::store::{Change, Entry, Generation, Listed, Note, Rejected, Store};

pub(crate) async fn changes_of_all_processes_are_told(medium: &impl Medium) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    first(&one, &user(9), record(1)).await;
    let mut changes = one.changes();
    let mut next_of = async |principal: Principal| {
        let told = tokio::time::timeout(Duration::from_secs(5), async {
            loop {
                // Repeats, and what happened just before, are permitted.
                match changes.recv().await.expect("the store is open") {
                    Change::Entry {
                        principal: told,
                        version,
                    } if told == principal => return version,
                    _ => {}
                }
            }
        });
        told.await.expect("a change is told within a second")
    };
    first(&one, &user(1), record(1)).await;
    assert_eq!(next_of(user(1)).await, over(1, 0));
    first(&other, &user(2), record(1)).await;
    assert_eq!(next_of(user(2)).await, over(1, 0));
    other.forget(&user(1)).await.unwrap();
    assert_eq!(next_of(user(1)).await, over(1, 1));
    other.note(&user(3), Note::Displaced(at(1))).await.unwrap();
    assert_eq!(next_of(user(3)).await, over(0, 0));
}

pub(crate) async fn due_are_living_pairs_oldest_first_and_claimed_once(medium: &impl Medium) {
    let store = medium.open(run());
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
    assert_eq!(store.count().await, Ok(5));
}

pub(crate) async fn a_listing_pages_through_pairs_and_notes_in_order(medium: &impl Medium) {
    let store = medium.open(run());
    let account = |name: &str| Principal::Account(name.into());
    let expected = vec![user(1), user(2), user(3), account("a"), account("b")];
    for principal in expected.iter().rev().filter(|p| **p != user(2)) {
        first(&store, principal, record(1)).await;
    }
    store.note(&user(2), Note::Displaced(at(1))).await.unwrap();
    for size in 1..=expected.len() + 1 {
        let mut listed: Vec<Principal> = Vec::new();
        let mut after = None;
        loop {
            let page = store.list(Listed::Known, after.as_ref(), size);
            let page = page.await.unwrap();
            assert!(page.entries.len() <= size);
            for (principal, entry) in page.entries {
                assert_eq!(store.load(&principal).await, Ok(entry));
                listed.push(principal);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(listed, expected);
    }
    assert!(
        expected.is_sorted(),
        "the expected order is the principals'"
    );
}

pub(crate) async fn rejected_strangers_are_dropped_once_they_may_try_again(medium: &impl Medium) {
    let store = medium.open(run());
    let reject = async |n, until| {
        let with = [7; 8];
        let note = Note::Rejected(Rejected { until, with });
        store.note(&user(n), note).await.unwrap();
    };
    for n in 1..=5 {
        reject(n, at(50)).await;
    }
    reject(6, at(60)).await;
    reject(7, at(9_000)).await; // A clock was ahead.
    first(&store, &user(8), record(8)).await;
    reject(8, at(50)).await;
    reject(9, at(50)).await;
    store.note(&user(9), Note::Displaced(at(1))).await.unwrap();
    reject(10, at(50)).await;
    store.forget(&user(10)).await.unwrap();
    reject(10, at(50)).await;
    let dropped = async |limit| store.drop_rejected(at(50), at(100), limit).await;
    assert_eq!(dropped(4).await, Ok(4));
    assert_eq!(dropped(4).await, Ok(2));
    assert_eq!(dropped(4).await, Ok(0));
    let listed = store.list(Listed::Known, None, 20).await.unwrap();
    assert_eq!(principals(listed), [6, 8, 9, 10].map(user));
    assert_eq!(store.load(&user(10)).await.unwrap().epoch, 1);
    assert_eq!(store.load(&user(1)).await, Ok(Entry::default()));
    assert_eq!(first(&store, &user(1), record(1)).await, Generation(1));
    // What came last is told before it goes: its number is not given twice.
    let (one, other) = (medium.open(run()), medium.open(run()));
    let mut changes = one.changes();
    reject(11, at(50)).await;
    let mut next = async || {
        let told = tokio::time::timeout(Duration::from_secs(5), changes.recv());
        match told.await.unwrap().unwrap() {
            Change::Entry { principal, .. } => principal,
            Change::Everything => panic!("nothing was missed"),
        }
    };
    while next().await != user(11) {}
    assert_eq!(other.drop_rejected(at(50), at(100), 4).await, Ok(0));
    reject(12, at(50)).await;
    assert_eq!(other.drop_rejected(at(50), at(100), 4).await, Ok(1));
    while next().await != user(12) {}
}

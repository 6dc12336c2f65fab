//! Listings by pages, and strangers that are dropped.

use super::{Medium, at, first, principals, record, run, user};
use crate::principal::{InstanceId, Principal};
use crate::store::{Entry, Generation, Listed, Note, Rejected, Store};

pub(crate) async fn a_listing_pages_through_pairs_and_notes_in_order(medium: &impl Medium) {
    let store = medium.open(run()).await;
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
    let store = medium.open(run()).await;
    let instance = InstanceId::parse(&format!("{:032x}", 1)).unwrap();
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
    let registered = Note::RegisteredIn(instance);
    store.note(&user(11), registered).await.unwrap();
    reject(11, at(50)).await; // It is known no more.
    reject(12, at(50)).await;
    store.note(&user(12), registered).await.unwrap();
    let dropped = async |limit| store.drop_rejected(at(50), at(100), limit).await;
    assert_eq!(dropped(4).await, Ok(4));
    assert_eq!(dropped(5).await, Ok(4));
    assert_eq!(dropped(5).await, Ok(0));
    let listed = store.list(Listed::Known, None, 20).await.unwrap();
    assert_eq!(principals(listed), [6, 8, 9, 12].map(user));
    let kept = store.load(&user(12)).await.unwrap();
    assert_eq!(kept.known_instance(), Some(instance));
    assert_eq!(store.load(&user(10)).await.unwrap().epoch, 1);
    assert_eq!(store.load(&user(1)).await, Ok(Entry::default()));
    assert_eq!(first(&store, &user(1), record(1)).await, Generation(1));
}

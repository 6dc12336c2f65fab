//! Users that nobody names are forgotten: by the day on which they were last named.

use super::{Medium, SOON, first, pseudonyms, record, rounds, run, user};
use crate::principal::Principal;
use crate::store::{Change, Commit, Day, Restored, Store, Tombstone, Uses};

/// All users of whom a day is known, those first that were named longest ago.
async fn known(store: &impl Store) -> Vec<Principal> {
    store.unused(Day(i32::MAX), 100).await.unwrap()
}

pub(crate) async fn a_day_of_use_is_written_once_and_only_of_users_with_a_pair(
    medium: &impl Medium,
) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    first(&one, &user(1), record(1)).await;
    first(&one, &user(2), record(2)).await;
    let on = |day| [1, 2, 3].map(|n| (user(n), Day(day))).to_vec();
    assert_eq!(one.mark_used(on(100)).await, Ok(2));
    for day in [100, 99] {
        assert_eq!(other.mark_used(on(day)).await, Ok(0));
    }
    // One that is named twice counts by the later day.
    let twice = [102, 101].map(|day| (user(2), Day(day))).to_vec();
    assert_eq!(other.mark_used(twice).await.map(|rows| rows > 0), Ok(true));
    assert_eq!(one.unused(Day(101), 10).await, Ok(vec![user(1)]));
    assert_eq!(one.unused(Day(102), 10).await, Ok(vec![user(1)]));
    assert_eq!(one.unused(Day(103), 1).await, Ok(vec![user(1)]));
    assert_eq!(known(&other).await, [user(1), user(2)]);
}

pub(crate) async fn users_of_whom_no_day_is_known_count_from_today(medium: &impl Medium) {
    let store = medium.open(run()).await;
    for n in 1..=5 {
        first(&store, &user(n.into()), record(n)).await;
    }
    let account = Principal::Account("ops".into());
    first(&store, &account, record(6)).await;
    let marked = [(2, 90), (3, 101), (4, 102)].map(|(n, day)| (user(n), Day(day)));
    store.mark_used(marked.to_vec()).await.unwrap();
    let (mut place, mut pages) = (None, 0);
    loop {
        place = store.mark_unknown(Day(100), place, 2).await.unwrap();
        pages += 1;
        if place.is_none() {
            break;
        }
    }
    assert_eq!(pages, 3);
    assert_eq!(store.unused(Day(100), 10).await, Ok(vec![user(2)]));
    let mut today = store.unused(Day(101), 10).await.unwrap();
    today.sort();
    // A day that is yet to come is a clock's that jumped, unless it is the next one.
    assert_eq!(today, [user(1), user(2), user(4), user(5)]);
    assert_eq!(known(&store).await.len(), 5);
}

pub(crate) async fn an_unused_pair_is_forgotten_as_every_other_one(medium: &impl Medium) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    let mut changes = other.changes();
    for n in 1..=3 {
        first(&one, &user(n.into()), record(n)).await;
    }
    let marked = [(1, 10), (2, 12)].map(|(n, day)| (user(n), Day(day)));
    one.mark_used(marked.to_vec()).await.unwrap();
    // Nothing is known of the last one.
    for (n, forgotten) in [(1, true), (1, false), (2, false), (3, false)] {
        let done = other.forget_unused(&user(n), Day(12)).await;
        assert_eq!(done, Ok(forgotten), "{n}");
    }
    for (n, epoch) in [(1, 1), (2, 0), (3, 0)] {
        let entry = one.load(&user(n)).await.unwrap();
        assert_eq!((entry.epoch, entry.record.is_none()), (epoch, epoch == 1));
    }
    let told = async {
        loop {
            match changes.recv().await.expect("the store is open") {
                Change::Forgotten(Tombstone { pseudonym, version })
                    if pseudonym == pseudonyms().current(&user(1)) && version.epoch == 1 =>
                {
                    return;
                }
                _ => {}
            }
        }
    };
    let told = tokio::time::timeout(SOON, told).await;
    told.expect("every process hears of it");
}

pub(crate) async fn a_mark_of_the_last_moment_keeps_a_pair(medium: &impl Medium) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    for n in 0..rounds(20, 500) {
        let whose = user(n);
        first(&one, &whose, record(1)).await;
        one.mark_used(vec![(whose.clone(), Day(5))]).await.unwrap();
        let mark = async {
            if n % 2 == 0 {
                tokio::task::yield_now().await;
            }
            other
                .mark_used(vec![(whose.clone(), Day(9))])
                .await
                .unwrap()
        };
        let (forgotten, marked) = tokio::join!(one.forget_unused(&whose, Day(9)), mark);
        let entry = one.load(&whose).await.unwrap();
        let forgotten = forgotten.unwrap();
        assert_eq!(entry.record.is_none(), forgotten);
        if marked == 0 {
            assert!(forgotten, "its mark came too late");
        }
        if !forgotten {
            assert_eq!(marked, 1);
            assert_eq!(one.forget_unused(&whose, Day(9)).await, Ok(false));
        }
    }
}

pub(crate) async fn a_forgotten_users_days_are_forgotten_with_it(medium: &impl Medium) {
    let store = medium.open(run()).await;
    first(&store, &user(1), record(1)).await;
    store.mark_used(vec![(user(1), Day(5))]).await.unwrap();
    assert_eq!(store.forget(&user(1)).await, Ok(true));
    assert_eq!(known(&store).await, []);
    let entry = store.load(&user(1)).await.unwrap();
    let again = store
        .commit(&user(1), record(2), entry.version(), None)
        .await;
    assert!(matches!(again, Ok(Commit::Committed(_))));
    assert_eq!(store.forget_unused(&user(1), Day(50)).await, Ok(false));
    assert_eq!(store.mark_used(vec![(user(1), Day(50))]).await, Ok(1));
}

pub(crate) async fn a_day_of_a_pair_that_is_gone_does_not_stay(medium: &impl Medium) {
    let store = medium.open(run()).await;
    first(&store, &user(1), record(1)).await;
    store.mark_used(vec![(user(1), Day(5))]).await.unwrap();
    let mut entry = store.load(&user(1)).await.unwrap();
    // As a process does it that does not count.
    (entry.record, entry.epoch) = (None, 7);
    let restored = store.restore(vec![(user(1), entry)]).await;
    assert_eq!(restored, Ok(vec![Restored::Written]));
    assert_eq!(store.forget_unused(&user(1), Day(6)).await, Ok(false));
    assert_eq!(known(&store).await, []);
}

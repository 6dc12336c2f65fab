//! Users that nobody names are forgotten: by the day on which they were last named.

use super::{Medium, first, record, run, user};
use crate::store::{Commit, Day, Store, Uses};

pub(crate) async fn a_day_of_use_is_written_once_and_only_of_users_with_a_pair(
    medium: &impl Medium,
) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    first(&one, &user(1), record(1)).await;
    first(&one, &user(2), record(2)).await;
    let both = || vec![user(1), user(2), user(3)];
    assert_eq!(one.mark_used(both(), Day(100)).await, Ok(2));
    for day in [100, 99] {
        assert_eq!(other.mark_used(both(), Day(day)).await, Ok(0));
    }
    assert_eq!(other.mark_unknown(both(), Day(101)).await, Ok(0));
    assert_eq!(other.mark_used(vec![user(2)], Day(101)).await, Ok(1));
    let unused = one.forget_unused(Day(101), 10).await.unwrap();
    assert_eq!(unused.forgotten, [user(1)]);
}

pub(crate) async fn what_nobody_used_for_so_long_is_forgotten_and_nothing_else(
    medium: &impl Medium,
) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    for n in 1..=4 {
        first(&one, &user(n.into()), record(n)).await;
    }
    one.mark_used(vec![user(1), user(3)], Day(10))
        .await
        .unwrap();
    one.mark_used(vec![user(2)], Day(9)).await.unwrap();
    one.mark_used(vec![user(3)], Day(12)).await.unwrap();
    // Nothing is known of the last one.
    let unused = other.forget_unused(Day(12), 1).await.unwrap();
    assert_eq!((unused.looked_at, unused.forgotten), (1, vec![user(2)]));
    let unused = other.forget_unused(Day(12), 10).await.unwrap();
    assert_eq!((unused.looked_at, unused.forgotten), (1, vec![user(1)]));
    let unused = other.forget_unused(Day(12), 10).await.unwrap();
    assert_eq!((unused.looked_at, unused.forgotten), (0, vec![]));
    for (n, epoch) in [(1, 1), (2, 1), (3, 0), (4, 0)] {
        let entry = one.load(&user(n)).await.unwrap();
        assert_eq!((entry.epoch, entry.record.is_none()), (epoch, epoch == 1));
    }
    // It counts from the day on which that was found out.
    assert_eq!(one.mark_unknown(vec![user(4)], Day(12)).await, Ok(1));
    let unused = one.forget_unused(Day(13), 10).await.unwrap();
    assert_eq!(unused.looked_at, 2);
}

pub(crate) async fn a_forgotten_users_days_are_forgotten_with_it(medium: &impl Medium) {
    let store = medium.open(run()).await;
    first(&store, &user(1), record(1)).await;
    store.mark_used(vec![user(1)], Day(5)).await.unwrap();
    assert_eq!(store.forget(&user(1)).await, Ok(true));
    let entry = store.load(&user(1)).await.unwrap();
    let again = store
        .commit(&user(1), record(2), entry.version(), None)
        .await;
    assert!(matches!(again, Ok(Commit::Committed(_))));
    let unused = store.forget_unused(Day(50), 10).await.unwrap();
    assert_eq!(unused.looked_at, 0, "it counts anew");
}

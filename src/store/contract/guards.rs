//! GuardRows, the canary, and whether a store is writable.

use super::{Medium, run};
use crate::store::{Guard, GuardRows, Guarded, Store};

pub(crate) async fn the_first_canary_stands_until_it_is_replaced(medium: &impl Medium) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    assert_eq!(one.canary().await, Ok(None));
    assert_eq!(one.leave_canary(b"one".to_vec()).await, Ok(b"one".to_vec()));
    assert_eq!(one.canary().await, Ok(Some(b"one".to_vec())));
    for _repeated in 0..2 {
        let left = other.leave_canary(b"other".to_vec()).await;
        assert_eq!(left, Ok(b"one".to_vec()));
    }
    let replaced = other.replace_canary(b"other".to_vec(), b"new".to_vec());
    assert_eq!(replaced.await, Ok(false));
    for _repeated in 0..2 {
        let replaced = other.replace_canary(b"one".to_vec(), b"new".to_vec());
        assert_eq!(replaced.await, Ok(true));
    }
    assert_eq!(one.leave_canary(b"one".to_vec()).await, Ok(b"new".to_vec()));
}

pub(crate) async fn a_store_is_writable(medium: &impl Medium) {
    assert_eq!(medium.open(run()).await.writable(), Ok(()));
}

pub(crate) async fn a_guard_is_written_by_who_knows_what_stands_there(medium: &impl Medium) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    assert_eq!(one.guard("a").await, Ok(Guard::default()));
    let set = one.set_guard("a", 0, b"first".to_vec()).await;
    assert_eq!(set, Ok(Guarded::Set(1)));
    let stands = Guard {
        version: 1,
        value: b"first".to_vec(),
    };
    assert_eq!(other.guard("a").await, Ok(stands.clone()));
    assert_eq!(other.guard("b").await, Ok(Guard::default()));
    for stale in [0, 2] {
        let late = other.set_guard("a", stale, b"late".to_vec()).await;
        assert_eq!(late, Ok(Guarded::Superseded(stands.clone())));
    }
    assert_eq!(
        other.set_guard("a", 1, Vec::new()).await,
        Ok(Guarded::Set(2))
    );
    medium.close(one).await;
    medium.close(other).await;
    let reopened = medium.open(run()).await;
    let stands = Guard {
        version: 2,
        value: Vec::new(),
    };
    assert_eq!(reopened.guard("a").await, Ok(stands));
}

pub(crate) async fn a_repeated_write_of_a_guard_is_done_once(medium: &impl Medium) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    for _repeated in 0..3 {
        let set = one.set_guard("a", 0, b"first".to_vec()).await;
        assert_eq!(set, Ok(Guarded::Set(1)));
    }
    // The same value on top of itself is a write of its own.
    let again = one.set_guard("a", 1, b"first".to_vec()).await;
    assert_eq!(again, Ok(Guarded::Set(2)));
    let set = other.set_guard("a", 2, b"second".to_vec()).await;
    assert_eq!(set, Ok(Guarded::Set(3)));
    let late = one.set_guard("a", 1, b"first".to_vec()).await;
    let stands = Guard {
        version: 3,
        value: b"second".to_vec(),
    };
    assert_eq!(late, Ok(Guarded::Superseded(stands)));
}

pub(crate) async fn of_writes_of_a_guard_at_once_exactly_one_wins(medium: &impl Medium) {
    let stores = [medium.open(run()).await, medium.open(run()).await];
    let writes = (0..20u8).map(|n| stores[usize::from(n) % 2].set_guard("a", 0, vec![n]));
    let answers = futures_util::future::join_all(writes).await;
    let won: Vec<_> = (0..20u8)
        .zip(answers)
        .filter(|(_, answer)| *answer == Ok(Guarded::Set(1)))
        .collect();
    assert_eq!(won.len(), 1, "{won:?}");
    assert_eq!(stores[0].guard("a").await.unwrap().value, vec![won[0].0]);
}

//! Leases: one holder at a time, and orphans are recognised.

use std::time::Duration;

use super::{HELD, LONG, Medium, first, id, lease_of, over, record, run, user};
use crate::store::{Commit, Error, Generation, Lease, LeaseId, Store};

fn granted(orphaned: bool) -> Result<Lease, Error> {
    Ok(Lease::Granted { orphaned })
}

pub(crate) async fn only_one_process_holds_a_lease_and_a_release_frees_it(medium: &impl Medium) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    assert_eq!(lease_of(&one, &user(1), id(1), LONG).await, granted(false));
    assert_eq!(lease_of(&one, &user(1), id(1), LONG).await, granted(false));
    assert_eq!(lease_of(&other, &user(1), id(2), LONG).await, Ok(HELD));
    assert_eq!(
        lease_of(&other, &user(2), id(2), LONG).await,
        granted(false)
    );
    release(&one, 1, id(1)).await;
    assert_eq!(
        lease_of(&other, &user(1), id(2), LONG).await,
        granted(false)
    );
}

/// Releases, and returns once that has taken effect: before any later lease of the same handle.
async fn release(store: &impl Store, number: u64, by: LeaseId) {
    store.release(&user(number), by);
    lease_of(store, &user(1_000_000), by, LONG).await.unwrap();
    store.release(&user(1_000_000), by);
}

pub(crate) async fn a_lease_comes_with_the_entry_that_stands_once_it_is_taken(
    medium: &impl Medium,
) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    let taken = async |store, by, is_granted, generation| {
        let (lease, entry) = Store::lease(store, &user(1), by, LONG).await.unwrap();
        let granted = Lease::Granted { orphaned: false };
        assert_eq!(lease == granted, is_granted, "{lease:?}");
        assert_eq!(entry.unwrap().generation, generation);
    };
    taken(&one, id(1), true, Generation(0)).await;
    first(&one, &user(1), record(1)).await;
    taken(&other, id(2), false, Generation(1)).await;
    taken(&one, id(1), true, Generation(1)).await;
    release(&one, 1, id(1)).await;
    taken(&other, id(2), true, Generation(1)).await;
    let next = other.commit(&user(1), record(2), over(1, 0), None).await;
    assert_eq!(next, Ok(Commit::Committed(Generation(2))));
    taken(&one, id(1), false, Generation(2)).await;
}

pub(crate) async fn nobody_releases_the_lease_of_another(medium: &impl Medium) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    lease_of(&one, &user(1), id(1), LONG).await.unwrap();
    release(&other, 1, id(2)).await;
    assert_eq!(lease_of(&other, &user(1), id(2), LONG).await, Ok(HELD));
}

pub(crate) async fn a_lease_that_ran_out_is_granted_as_orphaned(medium: &impl Medium) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    lease_of(&one, &user(1), id(1), Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(lease_of(&other, &user(1), id(2), LONG).await, granted(true));
    assert_eq!(lease_of(&one, &user(1), id(1), LONG).await, Ok(HELD));
    release(&other, 1, id(2)).await;
    assert_eq!(lease_of(&one, &user(1), id(1), LONG).await, granted(false));
}

pub(crate) async fn the_leases_of_a_closed_process_are_orphaned_at_once(medium: &impl Medium) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    lease_of(&one, &user(1), id(1), LONG).await.unwrap();
    lease_of(&one, &user(2), id(1), LONG).await.unwrap();
    drop(one);
    assert_eq!(lease_of(&other, &user(1), id(2), LONG).await, granted(true));
    // A process that starts later, and clears up behind the dead, finds it out as well.
    let later = medium.open(run());
    assert_eq!(lease_of(&later, &user(2), id(3), LONG).await, granted(true));
    assert_eq!(lease_of(&later, &user(1), id(3), LONG).await, Ok(HELD));
}

//! Leases: one holder at a time, and orphans are recognised.

use std::time::Duration;

use super::{LONG, Medium, first, record, run, user};
use crate::store::{Commit, Error, Generation, Lease, Store};

fn granted(orphaned: bool) -> Result<Lease, Error> {
    Ok(Lease::Granted { orphaned })
}

pub(crate) async fn only_one_process_holds_a_lease_and_a_release_frees_it(medium: &impl Medium) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    assert_eq!(one.lease(&user(1), LONG).await, granted(false));
    assert_eq!(one.lease(&user(1), LONG).await, granted(false));
    assert_eq!(other.lease(&user(1), LONG).await, Ok(Lease::Held));
    assert_eq!(other.lease(&user(2), LONG).await, granted(false));
    release(&one, 1).await;
    assert_eq!(other.lease(&user(1), LONG).await, granted(false));
}

/// Releases, and returns once that has taken effect: before any later lease of the same handle.
async fn release(store: &impl Store, number: u64) {
    store.release(&user(number));
    store.lease(&user(1_000_000), LONG).await.unwrap();
    store.release(&user(1_000_000));
}

pub(crate) async fn a_lease_comes_with_the_entry_that_stands_once_it_is_taken(
    medium: &impl Medium,
) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    let taken = async |store, expected, generation| {
        let (lease, entry) = Store::lease_and_load(store, &user(1), LONG).await.unwrap();
        assert_eq!(
            (Ok(lease), entry.unwrap().generation),
            (expected, generation)
        );
    };
    taken(&one, granted(false), Generation(0)).await;
    first(&one, &user(1), record(1)).await;
    taken(&other, Ok(Lease::Held), Generation(1)).await;
    taken(&one, granted(false), Generation(1)).await;
    release(&one, 1).await;
    taken(&other, granted(false), Generation(1)).await;
    let next = other.commit(&user(1), record(2), Generation(1), 0).await;
    assert_eq!(next, Ok(Commit::Committed(Generation(2))));
    taken(&one, Ok(Lease::Held), Generation(2)).await;
}

pub(crate) async fn nobody_releases_the_lease_of_another(medium: &impl Medium) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    one.lease(&user(1), LONG).await.unwrap();
    release(&other, 1).await;
    assert_eq!(other.lease(&user(1), LONG).await, Ok(Lease::Held));
}

pub(crate) async fn a_lease_that_ran_out_is_granted_as_orphaned(medium: &impl Medium) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    one.lease(&user(1), Duration::ZERO).await.unwrap();
    assert_eq!(other.lease(&user(1), LONG).await, granted(true));
    assert_eq!(one.lease(&user(1), LONG).await, Ok(Lease::Held));
    release(&other, 1).await;
    assert_eq!(one.lease(&user(1), LONG).await, granted(false));
}

pub(crate) async fn the_leases_of_a_closed_process_are_orphaned_at_once(medium: &impl Medium) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    one.lease(&user(1), LONG).await.unwrap();
    one.lease(&user(2), LONG).await.unwrap();
    drop(one);
    assert_eq!(other.lease(&user(1), LONG).await, granted(true));
    // A process that starts later, and clears up behind the dead, finds it out as well.
    let later = medium.open(run());
    assert_eq!(later.lease(&user(2), LONG).await, granted(true));
    assert_eq!(later.lease(&user(1), LONG).await, Ok(Lease::Held));
}

//! Leases: one holder at a time, each taking has its own id, and orphans are recognised.

use std::time::Duration;

use super::{
    HELD, LONG, Medium, SOON, first, id, lease_of, lease_once_free, over, record, release, rounds,
    run, user,
};
use crate::store::{Commit, Error, Generation, Lease, Store, StoreClock};

fn granted(orphaned: bool) -> Result<Lease, Error> {
    Ok(Lease::Granted { orphaned })
}

pub(crate) async fn only_one_process_holds_a_lease_and_a_release_frees_it(medium: &impl Medium) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    assert_eq!(lease_of(&one, &user(1), id(1), LONG).await, granted(false));
    assert_eq!(lease_of(&one, &user(1), id(1), LONG).await, granted(false));
    assert_eq!(lease_of(&other, &user(1), id(2), LONG).await, Ok(HELD));
    assert_eq!(
        lease_of(&other, &user(2), id(2), LONG).await,
        granted(false)
    );
    release(&one, &user(1), id(1)).await;
    assert_eq!(
        lease_of(&other, &user(1), id(2), LONG).await,
        granted(false)
    );
}

pub(crate) async fn a_lease_comes_with_the_entry_that_stands_once_it_is_taken(
    medium: &impl Medium,
) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
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
    release(&one, &user(1), id(1)).await;
    taken(&other, id(2), true, Generation(1)).await;
    let next = other.commit(&user(1), record(2), over(1, 0), None).await;
    assert_eq!(next, Ok(Commit::Committed(Generation(2))));
    taken(&one, id(1), false, Generation(2)).await;
}

/// An engine that waits for the commit's lock, and then shows the entry as it was when it began to wait,
/// would let its caller redeem a RefreshToken that is spent.
pub(crate) async fn a_lease_that_follows_a_commit_reads_what_it_wrote(medium: &impl Medium) {
    let stores = [medium.open(run()).await, medium.open(run()).await];
    let others: Vec<_> = (0..4).map(|n| &stores[n % 2]).collect();
    for generation in 0..rounds(20, 500) {
        let lease = id(generation);
        let held = lease_of(&stores[0], &user(1), lease, LONG).await;
        assert_eq!(held, granted(false));
        let record = record(u8::try_from(generation % 250).unwrap());
        let over = over(generation, 0);
        let principal = user(1);
        let commit = stores[0].commit(&principal, record, over, Some(lease));
        let followers = (1_000..).zip(&others).map(async |(n, store)| {
            let asked = async {
                loop {
                    let asked = store.lease(&user(1), id(n), LONG).await;
                    let (Lease::Granted { orphaned }, entry) = asked.unwrap() else {
                        continue;
                    };
                    assert!(!orphaned, "the commit ended it");
                    let read = entry.unwrap().generation;
                    store.release(&user(1), id(n));
                    return read;
                }
            };
            tokio::time::timeout(SOON, asked).await.unwrap()
        });
        let (committed, read) = tokio::join!(commit, futures_util::future::join_all(followers));
        let next = Generation(generation).next();
        assert_eq!(committed, Ok(Commit::Committed(next)));
        assert_eq!(read, [next; 4]);
        for (n, store) in (1_000..).zip(&others) {
            release(*store, &user(1), id(n)).await;
        }
    }
}

pub(crate) async fn nobody_releases_the_lease_of_another(medium: &impl Medium) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    lease_of(&one, &user(1), id(1), LONG).await.unwrap();
    release(&other, &user(1), id(2)).await;
    assert_eq!(lease_of(&other, &user(1), id(2), LONG).await, Ok(HELD));
}

pub(crate) async fn a_late_release_frees_no_later_lease_of_the_same_process(medium: &impl Medium) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    lease_of(&one, &user(1), id(1), LONG).await.unwrap();
    assert_eq!(lease_of(&one, &user(1), id(2), LONG).await, Ok(HELD));
    release(&one, &user(1), id(1)).await;
    assert_eq!(lease_of(&one, &user(1), id(2), LONG).await, granted(false));
    release(&one, &user(1), id(1)).await;
    assert_eq!(lease_of(&other, &user(1), id(3), LONG).await, Ok(HELD));
    assert_eq!(one.extend(&user(1), id(1), LONG).await, Ok(false));
    assert_eq!(one.extend(&user(1), id(2), LONG).await, Ok(true));
}

pub(crate) async fn a_repeated_lease_lasts_from_its_repetition<M: Medium>(medium: &M) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    for ttl in [M::TTL, LONG] {
        let lease = lease_of(&one, &user(1), id(1), ttl).await;
        assert_eq!(lease, granted(false));
    }
    tokio::time::sleep(M::TTL).await;
    assert_eq!(lease_of(&other, &user(1), id(2), LONG).await, Ok(HELD));
}

pub(crate) async fn a_held_lease_says_how_long_it_still_lasts<M: Medium>(medium: &M) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    let left = async |n| match other.lease(&user(n), id(2), LONG).await {
        Ok((Lease::Held { left }, _)) => left,
        granted => panic!("not held: {granted:?}"),
    };
    for ttl in [LONG, LONG / 10] {
        lease_of(&one, &user(1), id(1), ttl).await.unwrap();
        let left = left(1).await;
        assert!(!left.is_zero() && left <= ttl + M::CLOCK_ERROR, "{left:?}");
    }
    // Who waits as long as it is told asks a few times at most.
    let asked = tokio::time::Instant::now();
    lease_of(&one, &user(2), id(1), M::TTL).await.unwrap();
    lease_once_free(&other, &user(2), id(2), LONG).await;
    assert!(asked.elapsed() + M::CLOCK_ERROR >= M::TTL);
}

pub(crate) async fn a_lease_is_extended_by_who_holds_it<M: Medium>(medium: &M) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    assert_eq!(one.extend(&user(1), id(1), LONG).await, Ok(false));
    lease_of(&one, &user(1), id(1), M::TTL).await.unwrap();
    for _repeated in 0..2 {
        assert_eq!(one.extend(&user(1), id(1), LONG).await, Ok(true));
    }
    assert_eq!(other.extend(&user(1), id(2), LONG).await, Ok(false));
    tokio::time::sleep(M::TTL).await;
    assert_eq!(lease_of(&other, &user(1), id(2), LONG).await, Ok(HELD));
    release(&one, &user(1), id(1)).await;
    assert_eq!(one.extend(&user(1), id(1), LONG).await, Ok(false));
}

/// As a process finds it that was stopped for longer than its lease.
pub(crate) async fn a_lease_that_was_lost_is_not_extended<M: Medium>(medium: &M) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    lease_of(&one, &user(1), id(1), M::TTL).await.unwrap();
    lease_once_free(&other, &user(1), id(2), LONG).await;
    assert_eq!(one.extend(&user(1), id(1), LONG).await, Ok(false));
    assert_eq!(lease_of(&one, &user(1), id(1), LONG).await, Ok(HELD));
    release(&one, &user(1), id(1)).await;
    assert_eq!(other.extend(&user(1), id(2), LONG).await, Ok(true));
    // Nor once the other has given it back.
    lease_of(&one, &user(2), id(1), M::TTL).await.unwrap();
    lease_once_free(&other, &user(2), id(2), LONG).await;
    release(&other, &user(2), id(2)).await;
    assert_eq!(one.extend(&user(2), id(1), LONG).await, Ok(false));
    assert_eq!(
        lease_of(&other, &user(2), id(3), LONG).await,
        granted(false)
    );
}

pub(crate) async fn a_lease_that_ran_out_is_orphaned_once<M: Medium>(medium: &M) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    lease_of(&one, &user(1), id(1), Duration::ZERO)
        .await
        .unwrap();
    let orphaned = lease_once_free(&other, &user(1), id(2), LONG).await;
    assert_eq!(orphaned, Lease::Granted { orphaned: true });
    assert_eq!(lease_of(&one, &user(1), id(1), LONG).await, Ok(HELD));
    release(&other, &user(1), id(2)).await;
    assert_eq!(lease_of(&one, &user(1), id(3), LONG).await, granted(false));
    // A process may have left one of its own behind, too.
    lease_of(&one, &user(2), id(1), Duration::ZERO)
        .await
        .unwrap();
    let orphaned = lease_once_free(&one, &user(2), id(2), LONG).await;
    assert_eq!(orphaned, Lease::Granted { orphaned: true });
    let committed = one
        .commit(&user(2), record(1), over(0, 0), Some(id(2)))
        .await;
    assert_eq!(committed, Ok(Commit::Committed(Generation(1))));
    let after = lease_once_free(&other, &user(2), id(3), LONG).await;
    assert_eq!(after, Lease::Granted { orphaned: false });
}

/// The pair that it brings is the newest there is: nothing but the version says whether it may stand.
pub(crate) async fn a_commit_after_its_lease_was_lost_is_accepted<M: Medium>(medium: &M) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    lease_of(&one, &user(1), id(1), M::TTL).await.unwrap();
    lease_once_free(&other, &user(1), id(2), LONG).await;
    let late = one
        .commit(&user(1), record(1), over(0, 0), Some(id(1)))
        .await;
    assert_eq!(late, Ok(Commit::Committed(Generation(1))));
    // The other's lease still stands, and its commit finds the newer pair.
    assert_eq!(lease_of(&one, &user(1), id(3), LONG).await, Ok(HELD));
    let stands = other.load(&user(1)).await.unwrap();
    let superseded = other
        .commit(&user(1), record(2), over(0, 0), Some(id(2)))
        .await;
    assert_eq!(superseded, Ok(Commit::Superseded(stands)));
}

pub(crate) async fn the_leases_of_a_closed_process_are_orphaned_at_once(medium: &impl Medium) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    lease_of(&one, &user(1), id(1), LONG).await.unwrap();
    lease_of(&one, &user(2), id(1), LONG).await.unwrap();
    medium.close(one).await;
    assert_eq!(lease_of(&other, &user(1), id(2), LONG).await, granted(true));
    // A process that starts later, and clears up behind the dead, finds it out as well.
    let later = medium.open(run()).await;
    assert_eq!(lease_of(&later, &user(2), id(3), LONG).await, granted(true));
    assert_eq!(lease_of(&later, &user(1), id(3), LONG).await, Ok(HELD));
}

/// It neither extends its lease nor dies. That a killed one's lease may end earlier is the engine's business.
pub(crate) async fn the_lease_of_a_stopped_process_ends_with_its_ttl<M: Medium>(medium: &M) {
    let (stopped, other) = (medium.open(run()).await, medium.open(run()).await);
    let asked = tokio::time::Instant::now();
    lease_of(&stopped, &user(1), id(1), M::TTL).await.unwrap();
    let lease = lease_once_free(&other, &user(1), id(2), LONG).await;
    assert_eq!(lease, Lease::Granted { orphaned: true });
    assert!(asked.elapsed() + M::CLOCK_ERROR >= M::TTL, "too early");
}

pub(crate) async fn the_holder_of_a_lease_is_told_to_everybody<M: Medium>(medium: &M) {
    let holds = run();
    let (one, other) = (medium.open(holds).await, medium.open(run()).await);
    let holder = async |n| other.lease_holder(&user(n)).await.unwrap();
    assert_eq!(holder(1).await, None);
    let began = other.now();
    lease_of(&one, &user(1), id(1), LONG).await.unwrap();
    let told = holder(1).await.expect("it is held");
    assert_eq!(told.run, holds);
    let left = told.left;
    assert!(!left.is_zero() && left <= LONG + M::CLOCK_ERROR, "{left:?}");
    if let Some(since) = told.since {
        let (from, to) = (
            began.minus(M::CLOCK_ERROR),
            other.now().plus(M::CLOCK_ERROR),
        );
        assert!(
            (from..=to).contains(&since),
            "{from:?} ..= {to:?}: {since:?}"
        );
    }
    assert_eq!(
        one.lease_holder(&user(1)).await.unwrap().unwrap().run,
        holds
    );
    release(&one, &user(1), id(1)).await;
    assert_eq!(holder(1).await, None);
    lease_of(&one, &user(2), id(1), Duration::ZERO)
        .await
        .unwrap();
    tokio::time::sleep(M::CLOCK_ERROR).await;
    assert_eq!(holder(2).await, None, "it ran out");
}

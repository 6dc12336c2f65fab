//! Commits: compare-and-swap, and every process sees what was committed.

use super::{
    HELD, LONG, Medium, all, first, id, lease_of, lease_once_free, over, record, run, user,
};
use crate::principal::Principal;
use crate::store::{Commit, Entry, Generation, Lease, Record, Store};

pub(crate) async fn a_commit_is_there_for_every_process(medium: &impl Medium) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    let account = Principal::Account("reporting".into());
    let of_account = Record {
        instance: None,
        ..record(2)
    };
    assert_eq!(first(&one, &user(1), record(1)).await, Generation(1));
    assert_eq!(
        first(&one, &account, of_account.clone()).await,
        Generation(1)
    );
    for (principal, record) in [(user(1), record(1)), (account, of_account)] {
        let expected = Entry {
            generation: Generation(1),
            record: Some(record),
            ..Entry::default()
        };
        assert_eq!(other.load(&principal).await, Ok(expected.clone()));
        let reopened = medium.open(run()).await;
        assert_eq!(reopened.load(&principal).await, Ok(expected));
    }
    assert_eq!(all(&other).await.len(), 2);
}

pub(crate) async fn a_commit_on_an_old_generation_is_superseded_and_writes_nothing(
    medium: &impl Medium,
) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    first(&one, &user(1), record(1)).await;
    let stands = one.load(&user(1)).await.unwrap();
    for (expected, epoch) in [(0, 0), (2, 0), (1, 1)] {
        let late = other
            .commit(&user(1), record(2), over(expected, epoch), None)
            .await;
        assert_eq!(late, Ok(Commit::Superseded(stands.clone())));
    }
    assert_eq!(other.load(&user(1)).await, Ok(stands));
    let ahead = other.commit(&user(2), record(2), over(1, 0), None).await;
    assert_eq!(ahead, Ok(Commit::Superseded(Entry::default())));
    assert_eq!(other.load(&user(2)).await, Ok(Entry::default()));
}

pub(crate) async fn of_commits_at_once_exactly_one_wins(medium: &impl Medium) {
    let stores = [medium.open(run()).await, medium.open(run()).await];
    let principal = user(1);
    let commits = (0..40u8).map(|n| {
        let store = &stores[usize::from(n) % stores.len()];
        store.commit(&principal, record(n), over(0, 0), None)
    });
    let answers = futures_util::future::join_all(commits).await;
    let won: Vec<_> = (0..40u8)
        .zip(answers)
        .filter(|(_, answer)| *answer == Ok(Commit::Committed(Generation(1))))
        .collect();
    assert_eq!(won.len(), 1, "{won:?}");
    let entry = stores[0].load(&principal).await.unwrap();
    assert_eq!(entry.record, Some(record(won[0].0)));
    assert_eq!(entry.generation, Generation(1));
}

pub(crate) async fn a_repeated_commit_is_committed_again_while_its_record_stands(
    medium: &impl Medium,
) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    let again = async |n, expected| {
        let commit = one
            .commit(&user(1), record(n), over(expected, 0), None)
            .await;
        commit.unwrap()
    };
    for _repeated in 0..3 {
        assert_eq!(again(1, 0).await, Commit::Committed(Generation(1)));
    }
    let stands = one.load(&user(1)).await.unwrap();
    assert_eq!(again(2, 0).await, Commit::Superseded(stands));
    let next = other.commit(&user(1), record(3), over(1, 0), None).await;
    assert_eq!(next, Ok(Commit::Committed(Generation(2))));
    let stands = one.load(&user(1)).await.unwrap();
    assert_eq!(again(1, 0).await, Commit::Superseded(stands));
    assert_eq!(again(3, 1).await, Commit::Committed(Generation(2)));
    // A forget in between ends the pair, and stays.
    assert_eq!(other.forget(&user(1)).await, Ok(true));
    let stands = one.load(&user(1)).await.unwrap();
    assert_eq!(again(3, 1).await, Commit::Superseded(stands.clone()));
    assert_eq!(one.load(&user(1)).await, Ok(stands));
}

pub(crate) async fn a_commit_ends_its_lease_and_no_other(medium: &impl Medium) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    for n in [1, 2] {
        lease_of(&one, &user(n), id(n), LONG).await.unwrap();
        for _repeated in 0..2 {
            // The lease of somebody else, or one that was given back long ago.
            let commit = one
                .commit(&user(n), record(1), over(0, 0), Some(id(9)))
                .await;
            assert_eq!(commit, Ok(Commit::Committed(Generation(1))));
        }
        let commit = one.commit(&user(n), record(2), over(1, 0), None).await;
        assert_eq!(commit, Ok(Commit::Committed(Generation(2))));
        assert_eq!(lease_of(&other, &user(n), id(3), LONG).await, Ok(HELD));
    }
    let commit = one
        .commit(&user(1), record(3), over(2, 0), Some(id(1)))
        .await;
    assert_eq!(commit, Ok(Commit::Committed(Generation(3))));
    let free = lease_once_free(&other, &user(1), id(3), LONG).await;
    assert_eq!(free, Lease::Granted { orphaned: false });
    assert_eq!(one.extend(&user(1), id(1), LONG).await, Ok(false));
    assert_eq!(lease_of(&other, &user(2), id(3), LONG).await, Ok(HELD));
}

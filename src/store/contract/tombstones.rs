//! Tombstones: what is left of who was forgotten.

use super::{
    LONG, Medium, all, at, first, id, over, principals, pseudonyms, record, rejected, run, user,
};
use crate::store::{Commit, Entry, Generation, Listed, Note, Restored, Store, Tombstone, Version};

fn left_of(n: u64, version: Version) -> Tombstone {
    Tombstone {
        pseudonym: pseudonyms().current(&user(n)),
        version,
    }
}

fn bare(version: Version) -> Entry {
    Entry::forgotten(version)
}

pub(crate) async fn what_is_forgotten_leaves_no_name_but_a_tombstone_that_all_find(
    medium: &impl Medium,
) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    first(&one, &user(1), record(1)).await;
    first(&one, &user(2), record(2)).await;
    one.note(&user(3), Note::Displaced(at(1))).await.unwrap();
    for n in [1, 3] {
        assert_eq!(one.forget(&user(n)).await, Ok(true));
        assert_eq!(other.forget(&user(n)).await, Ok(false));
    }
    let named: Vec<_> = all(&other).await.into_iter().map(|(of, _)| of).collect();
    assert_eq!(named, [user(2)]);
    for (n, version) in [(1, over(1, 1)), (3, over(0, 1))] {
        assert_eq!(other.load(&user(n)).await, Ok(bare(version)));
        let leased = other.lease(&user(n), id(n), LONG).await.unwrap();
        assert_eq!(leased.1, Ok(bare(version)));
        // Of the pair that there was, and of when nothing was known.
        for generation in [version.generation.0, 0] {
            let over = over(generation, 0);
            let late = one.commit(&user(n), record(3), over, None).await;
            assert_eq!(late, Ok(Commit::Superseded(bare(version))));
        }
    }
    assert_eq!(one.count().await, Ok(1));
    let due = one.claim_due(at(1_000), 10, LONG).await;
    assert_eq!(due, Ok(vec![user(2)]));
}

pub(crate) async fn a_tombstone_of_another_store_is_only_ever_raised(medium: &impl Medium) {
    let store = medium.open(run()).await;
    first(&store, &user(2), record(2)).await;
    use Restored::{Kept, Written};
    for (version, became, stands) in [
        (over(3, 2), Written, over(3, 2)),
        (over(3, 2), Kept, over(3, 2)),
        (over(2, 1), Kept, over(3, 2)),
        (over(4, 1), Written, over(4, 2)),
        (over(1, 3), Written, over(4, 3)),
    ] {
        let buried = store.bury(vec![left_of(1, version)]).await;
        assert_eq!(buried, Ok(vec![became]), "{version:?}");
        assert_eq!(store.load(&user(1)).await, Ok(bare(stands)));
    }
    let both = vec![left_of(1, over(0, 1)), left_of(2, over(5, 4))];
    assert_eq!(store.bury(both).await, Ok(vec![Kept, Written]));
    assert_eq!(store.bury(Vec::new()).await, Ok(Vec::new()));
    // A pair does not go before somebody says its name.
    let pair = store.load(&user(2)).await.unwrap();
    assert_eq!((pair.version(), pair.record), (over(1, 0), Some(record(2))));
    assert_eq!(store.forget(&user(2)).await, Ok(true));
    assert_eq!(store.load(&user(2)).await, Ok(bare(over(5, 5))));
}

pub(crate) async fn a_login_of_who_was_forgotten_stands_on_the_tombstone(medium: &impl Medium) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    for n in 1..=3 {
        first(&one, &user(n), record(1)).await;
        assert_eq!(one.forget(&user(n)).await, Ok(true));
    }
    // Notes do not stand in the way.
    one.note(&user(2), Note::Displaced(at(7))).await.unwrap();
    let noted = other.load(&user(2)).await.unwrap();
    assert_eq!((noted.version(), noted.record), (over(1, 1), None));
    for n in 1..=2 {
        let anew = other.commit(&user(n), record(2), over(1, 1), None).await;
        assert_eq!(anew, Ok(Commit::Committed(Generation(2))));
        let repeated = one.commit(&user(n), record(2), over(1, 1), None).await;
        assert_eq!(repeated, Ok(Commit::Committed(Generation(2))));
        let entry = one.load(&user(n)).await.unwrap();
        let displaced = (n == 2).then(|| at(7));
        assert_eq!(
            (entry.version(), entry.notes.displaced),
            (over(2, 1), displaced)
        );
        // The next ones as usual.
        let next = one.commit(&user(n), record(3), over(2, 1), None).await;
        assert_eq!(next, Ok(Commit::Committed(Generation(3))));
        assert_eq!(other.forget(&user(n)).await, Ok(true));
        assert_eq!(one.load(&user(n)).await, Ok(bare(over(3, 2))));
    }
    // A restored pair stands above it as well, under a generation that is above.
    let restored = |version: Version| Entry {
        record: Some(record(9)),
        ..bare(version)
    };
    let ended = vec![(user(3), restored(over(7, 0)))];
    assert_eq!(one.restore(ended).await, Ok(vec![Restored::Kept]));
    let above = vec![(user(3), restored(over(1, 1)))];
    assert_eq!(one.restore(above).await, Ok(vec![Restored::Written]));
    assert_eq!(other.load(&user(3)).await, Ok(restored(over(2, 1))));
}

pub(crate) async fn a_rejected_login_of_who_was_forgotten_is_dropped_like_a_strangers(
    medium: &impl Medium,
) {
    let store = medium.open(run()).await;
    first(&store, &user(1), record(1)).await;
    assert_eq!(store.forget(&user(1)).await, Ok(true));
    let rejected = rejected();
    store
        .note(&user(1), Note::Rejected(rejected))
        .await
        .unwrap();
    let entry = store.load(&user(1)).await.unwrap();
    let stands = (entry.version(), entry.notes.rejected);
    assert_eq!(stands, (over(1, 1), Some(rejected)));
    first(&store, &user(2), record(2)).await;
    assert_eq!(store.drop_rejected(at(50), at(100), 4).await, Ok(1));
    let named: Vec<_> = all(&store).await.into_iter().map(|(of, _)| of).collect();
    assert_eq!(named, [user(2)]);
    assert_eq!(store.load(&user(1)).await, Ok(bare(over(1, 1))));
}

pub(crate) async fn what_is_said_of_a_pair_is_nothing_to_who_has_none(medium: &impl Medium) {
    let store = medium.open(run()).await;
    first(&store, &user(1), record(1)).await;
    assert_eq!(store.forget(&user(1)).await, Ok(true));
    for n in 1..=2 {
        for note in [
            Note::RefreshDead(Generation(1)),
            Note::RefreshAlive,
            Note::AnswerLost(Generation(1)),
        ] {
            store.note(&user(n), note).await.unwrap();
            let entry = store.load(&user(n)).await.unwrap();
            assert!(entry.is_bare(), "{note:?}: {entry:?}");
        }
    }
    assert_eq!(all(&store).await, []);
    let known = store.list(Listed::Known, None, 10).await.unwrap();
    assert_eq!(principals(known), []);
}

/// As an earlier version, or an import, may leave it.
pub(crate) async fn a_commit_stands_on_the_higher_version_of_notes_and_tombstone(
    medium: &impl Medium,
) {
    let store = medium.open(run()).await;
    let cases = [
        (1, over(5, 1), over(9, 1), over(9, 1)),
        (2, over(5, 2), over(9, 1), over(9, 2)),
        (3, over(9, 2), over(5, 1), over(9, 2)),
        (4, over(0, 0), over(3, 1), over(3, 1)),
    ];
    for (n, noted, buried, stands) in cases {
        let mut noted = bare(noted);
        noted.notes.displaced = Some(at(1));
        let restored = store.restore(vec![(user(n), noted)]).await;
        assert_eq!(restored, Ok(vec![Restored::Written]));
        let raised = store.bury(vec![left_of(n, buried)]).await;
        assert_eq!(raised, Ok(vec![Restored::Written]));
        let entry = store.load(&user(n)).await.unwrap();
        assert_eq!(
            (entry.version(), entry.notes.displaced),
            (stands, Some(at(1)))
        );
        for lower in [over(0, 0), over(5, 1), over(9, 1), over(5, 2)] {
            if lower == stands {
                continue;
            }
            let superseded = store.commit(&user(n), record(1), lower, None).await;
            assert_eq!(
                superseded,
                Ok(Commit::Superseded(entry.clone())),
                "{n}: {lower:?}"
            );
        }
        let committed = store.commit(&user(n), record(1), stands, None).await;
        let next = stands.generation.next();
        assert_eq!(committed, Ok(Commit::Committed(next)));
        let entry = store.load(&user(n)).await.unwrap();
        assert_eq!(entry.version(), over(next.0, stands.epoch));
    }
}

pub(crate) async fn a_pair_that_a_tombstone_ended_goes_once_its_name_is_said(medium: &impl Medium) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    first(&one, &user(1), record(1)).await;
    let raised = one.bury(vec![left_of(1, over(1, 1))]).await;
    assert_eq!(raised, Ok(vec![Restored::Written]));
    let ended = vec![(user(1), bare(over(1, 1)))];
    let restored = one.restore(ended.clone()).await;
    assert_eq!(restored, Ok(vec![Restored::Written]));
    let stands = other.load(&user(1)).await.unwrap();
    assert!(stands.is_bare() && stands.epoch == 1, "{stands:?}");
    assert_eq!(other.restore(ended.clone()).await, Ok(vec![Restored::Kept]));
    // Who has logged in since keeps its pair.
    let anew = one
        .commit(&user(1), record(2), stands.version(), None)
        .await;
    assert!(matches!(anew, Ok(Commit::Committed(_))), "{anew:?}");
    assert_eq!(other.restore(ended).await, Ok(vec![Restored::Kept]));
    let kept = one.load(&user(1)).await.unwrap();
    assert_eq!((kept.epoch, kept.record), (1, Some(record(2))));
}

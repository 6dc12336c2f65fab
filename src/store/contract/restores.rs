//! Restores: whole entries, as an import or a process that knows more than the store writes them.

use super::{LONG, Medium, all, at, first, id, over, record, rejected, run, user};
use crate::principal::InstanceId;
use crate::store::{Commit, Entry, Generation, Note, Notes, Record, Restored, Store, Version};

/// An entry with a pair that was received at `received`.
fn entry(version: Version, received: u8) -> Entry {
    Entry {
        generation: version.generation,
        epoch: version.epoch,
        record: Some(record(received)),
        notes: Notes::default(),
    }
}

fn tombstone(version: Version) -> Entry {
    Entry {
        record: None,
        ..entry(version, 0)
    }
}

fn every_note() -> Notes {
    Notes {
        refresh_dead: Some(Generation(7)),
        answer_lost: Some(Generation(6)),
        rejected: Some(rejected()),
        displaced: Some(at(60)),
        contested_until: Some(at(70)),
        suppressed_until: Some(at(80)),
        registered_in: None,
    }
}

pub(crate) async fn an_entry_is_restored_whole_where_nothing_stands(medium: &impl Medium) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    let instance = InstanceId::parse(&format!("{:032x}", 1)).unwrap();
    let unknown = Record {
        known: false,
        instance: None,
        ..record(2)
    };
    let registered = Notes {
        registered_in: Some(instance),
        ..Notes::default()
    };
    let rejected = Notes {
        rejected: every_note().rejected,
        ..Notes::default()
    };
    let entries = vec![
        (user(1), entry(over(7, 3), 1)),
        (
            user(2),
            Entry {
                record: Some(unknown),
                notes: every_note(),
                ..entry(over(7, 0), 2)
            },
        ),
        (user(3), tombstone(over(4, 2))),
        (
            user(4),
            Entry {
                notes: registered,
                ..tombstone(over(0, 0))
            },
        ),
        (
            user(5),
            Entry {
                notes: rejected,
                ..tombstone(over(0, 0))
            },
        ),
        (user(6), Entry::default()),
    ];
    let mut expected = vec![Restored::Written; 5];
    expected.push(Restored::Kept);
    assert_eq!(one.restore(entries.clone()).await, Ok(expected));
    let named = [0, 1, 3, 4].map(|n| entries[n].clone());
    assert_eq!(all(&other).await, named);
    for (principal, entry) in &entries {
        assert_eq!(other.load(principal).await.as_ref(), Ok(entry));
    }
    assert_eq!(one.restore(Vec::new()).await, Ok(Vec::new()));
    let repeated = one.restore(entries.clone()).await;
    assert_eq!(repeated, Ok(vec![Restored::Kept; 6]));
    assert_eq!(all(&other).await, named);
    let next = other.commit(&user(1), record(3), over(7, 3), None).await;
    assert_eq!(next, Ok(Commit::Committed(Generation(8))));
}

pub(crate) async fn an_entry_is_restored_only_where_it_outranks_what_stands(medium: &impl Medium) {
    let store = medium.open(run()).await;
    let stands = entry(over(5, 2), 50);
    store
        .restore(vec![(user(1), stands.clone())])
        .await
        .unwrap();
    let kept = [
        entry(over(9, 1), 90), // An epoch that was ended.
        entry(over(9, 2), 49), // Received earlier.
        tombstone(over(9, 2)), // It knows of no pair.
        entry(over(4, 2), 50), // An earlier generation.
        entry(over(5, 2), 50), // The very same.
        Entry {
            notes: every_note(),
            ..stands.clone()
        },
        Entry::default(),
    ];
    let answers = store.restore(kept.map(|entry| (user(1), entry)).into());
    assert_eq!(answers.await, Ok(vec![Restored::Kept; 7]));
    assert_eq!(store.load(&user(1)).await, Ok(stands.clone()));
    // What outranks it takes its notes and its pair away with it.
    store.note(&user(1), Note::Displaced(at(1))).await.unwrap();
    for newer in [
        entry(over(6, 2), 50),
        entry(over(7, 2), 51),
        tombstone(over(8, 3)),
        entry(over(9, 3), 1),
        Entry {
            notes: every_note(),
            ..entry(over(10, 4), 1)
        },
    ] {
        for answer in [Restored::Written, Restored::Kept] {
            let restored = store.restore(vec![(user(1), newer.clone())]).await;
            assert_eq!(restored, Ok(vec![answer]), "{newer:?}");
            assert_eq!(store.load(&user(1)).await.as_ref(), Ok(&newer));
        }
    }
}

pub(crate) async fn anything_is_restored_over_an_entry_that_holds_nothing(medium: &impl Medium) {
    let store = medium.open(run()).await;
    let noted = Entry {
        notes: every_note(),
        ..Entry::default()
    };
    for (n, entry) in [(1, noted.clone()), (2, entry(over(0, 0), 1))] {
        // What ends a note of which there is none may leave a row that says nothing.
        store.note(&user(n), Note::RefreshAlive).await.unwrap();
        for answer in [Restored::Written, Restored::Kept] {
            let restored = store.restore(vec![(user(n), entry.clone())]).await;
            assert_eq!(restored, Ok(vec![answer]), "{entry:?}");
            assert_eq!(store.load(&user(n)).await.as_ref(), Ok(&entry));
        }
    }
    // A tombstone is more than nothing, and notes do not outrank it.
    let stone = tombstone(over(1, 1));
    store.restore(vec![(user(3), stone.clone())]).await.unwrap();
    let noted = Entry {
        notes: every_note(),
        ..stone.clone()
    };
    let restored = store.restore(vec![(user(3), noted)]).await;
    assert_eq!(restored, Ok(vec![Restored::Kept]));
    assert_eq!(store.load(&user(3)).await, Ok(stone));
}

/// Otherwise a process that has the replaced pair in memory would take it for the restored one.
pub(crate) async fn a_restored_entry_gets_a_generation_that_no_process_knows(medium: &impl Medium) {
    let store = medium.open(run()).await;
    for (n, newer) in [
        (1, entry(over(3, 0), 90)),
        (2, entry(over(5, 0), 90)),
        (3, tombstone(over(2, 1))),
    ] {
        let stands = entry(over(5, 0), 50);
        store.restore(vec![(user(n), stands)]).await.unwrap();
        let expected = Entry {
            generation: Generation(6),
            ..newer.clone()
        };
        for answer in [Restored::Written, Restored::Kept] {
            let restored = store.restore(vec![(user(n), newer.clone())]).await;
            assert_eq!(restored, Ok(vec![answer]), "{newer:?}");
            assert_eq!(store.load(&user(n)).await.as_ref(), Ok(&expected));
        }
    }
}

pub(crate) async fn a_principal_twice_in_one_restore_keeps_what_outranks(medium: &impl Medium) {
    let store = medium.open(run()).await;
    let (early, late) = (entry(over(1, 0), 1), entry(over(2, 0), 2));
    let answers = store.restore(vec![
        (user(1), early.clone()),
        (user(2), late.clone()),
        (user(1), late.clone()),
        (user(2), early.clone()),
        (user(3), early.clone()),
        (user(3), early.clone()),
    ]);
    use Restored::{Kept, Written};
    let expected = vec![Written, Written, Written, Kept, Written, Kept];
    assert_eq!(answers.await, Ok(expected));
    let stands = [(user(1), late.clone()), (user(2), late), (user(3), early)];
    assert_eq!(all(&store).await, stands);
}

pub(crate) async fn a_commit_under_way_during_a_restore_is_superseded(medium: &impl Medium) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    first(&one, &user(1), record(1)).await;
    one.lease(&user(1), id(1), LONG).await.unwrap().1.unwrap();
    let restored = other.restore(vec![(user(1), entry(over(1, 0), 90))]).await;
    assert_eq!(restored, Ok(vec![Restored::Written]));
    let stands = other.load(&user(1)).await.unwrap();
    assert_eq!(stands.version(), over(2, 0));
    let late = one
        .commit(&user(1), record(2), over(1, 0), Some(id(1)))
        .await;
    assert_eq!(late, Ok(Commit::Superseded(stands)));
}

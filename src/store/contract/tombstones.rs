//! Tombstones that stand under other names.

use super::{Medium, first, record, run, user};
use crate::clock::Timestamp;
use crate::store::{Commit, Entry, Generation, Listed, Note, Store, Version};

/// A user that was logged in once, and forgotten.
async fn forgotten(store: &impl Store, n: u64) -> Version {
    first(store, &user(n), record(1)).await;
    assert_eq!(store.forget(&user(n)).await, Ok(true));
    store.load(&user(n)).await.unwrap().version()
}

pub(crate) async fn a_tombstone_moves_to_another_name_and_back(medium: &impl Medium) {
    let store = medium.open(run()).await;
    let version = forgotten(&store, 1).await;
    assert_eq!((version.generation, version.epoch), (Generation(1), 1));
    let there = || vec![(user(1), user(9))];
    assert_eq!(store.tombstones_in_clear(10).await, Ok(vec![user(1)]));
    for moved in [1, 0] {
        assert_eq!(store.move_tombstones(there()).await, Ok(moved));
        assert_eq!(store.load(&user(1)).await, Ok(Entry::default()));
        assert_eq!(store.load(&user(9)).await.unwrap().version(), version);
    }
    let known = store.list(Listed::Known, None, 10).await.unwrap();
    assert_eq!(known.entries, []);
    let back = store.move_tombstones(vec![(user(9), user(1))]).await;
    assert_eq!(back, Ok(1));
    assert_eq!(store.load(&user(9)).await, Ok(Entry::default()));
    let commit = store.commit(&user(1), record(2), version, None).await;
    assert_eq!(commit, Ok(Commit::Committed(Generation(2))));
}

pub(crate) async fn only_tombstones_move_and_what_they_meet_keeps_its_notes(medium: &impl Medium) {
    let store = medium.open(run()).await;
    first(&store, &user(1), record(1)).await;
    let at = Timestamp::from_millis(5);
    store.note(&user(2), Note::Displaced(at)).await.unwrap();
    let none = vec![
        (user(1), user(11)),
        (user(2), user(12)),
        (user(3), user(13)),
    ];
    assert_eq!(store.move_tombstones(none).await, Ok(0));
    assert_eq!(store.tombstones_in_clear(10).await, Ok(vec![]));

    let version = forgotten(&store, 4).await;
    let moved = store.move_tombstones(vec![(user(4), user(2))]).await;
    assert_eq!(moved, Ok(1));
    let met = store.load(&user(2)).await.unwrap();
    assert_eq!((met.version(), met.notes.displaced), (version, Some(at)));
}

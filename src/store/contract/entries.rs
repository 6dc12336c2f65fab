//! Entries: notes, tombstones, records that are sealed anew.

use super::{Medium, all, at, first, over, principals, record, rejected, run, user};
use crate::principal::InstanceId;
use crate::store::{
    Commit, Entry, Generation, KeyId, Listed, Note, Notes, Page, Record, Rejected, Resealed, Store,
};

pub(crate) async fn nothing_is_known_of_a_new_principal(medium: &impl Medium) {
    let store = medium.open(run()).await;
    assert_eq!(store.load(&user(1)).await, Ok(Entry::default()));
    assert_eq!(store.forget(&user(1)).await, Ok(false));
    assert_eq!(all(&store).await, []);
    assert_eq!(store.count().await, Ok(0));
}

pub(crate) async fn every_note_is_remembered_and_a_commit_clears_those_about_the_old_pair(
    medium: &impl Medium,
) {
    let (store, other) = (medium.open(run()).await, medium.open(run()).await);
    let rejected = Rejected {
        until: at(50),
        with: *b"a fprint",
    };
    first(&store, &user(1), record(0)).await;
    for note in [
        Note::RefreshDead(Generation(1)),
        Note::AnswerLost(Generation(1)),
        Note::Rejected(rejected),
        Note::Displaced(at(60)),
        Note::ContestedUntil(at(70)),
        Note::SuppressedUntil(at(80)),
    ] {
        assert_eq!(store.note(&user(1), note).await, Ok(()));
    }
    let mut notes = Notes {
        refresh_dead: Some(Generation(1)),
        answer_lost: Some(Generation(1)),
        rejected: Some(rejected),
        displaced: Some(at(60)),
        contested_until: Some(at(70)),
        suppressed_until: Some(at(80)),
        registered_in: None,
    };
    assert_eq!(other.load(&user(1)).await.unwrap().notes, notes);
    store.note(&user(1), Note::RefreshAlive).await.unwrap();
    notes.refresh_dead = None;
    assert_eq!(other.load(&user(1)).await.unwrap().notes, notes);
    store
        .note(&user(1), Note::RefreshDead(Generation(1)))
        .await
        .unwrap();
    let anew = other.commit(&user(1), record(1), over(1, 0), None).await;
    assert_eq!(anew, Ok(Commit::Committed(Generation(2))));
    let entry = store.load(&user(1)).await.unwrap();
    let outlived = Notes {
        displaced: Some(at(60)),
        contested_until: Some(at(70)),
        suppressed_until: Some(at(80)),
        ..Notes::default()
    };
    assert_eq!((entry.generation, entry.epoch), (Generation(2), 0));
    assert_eq!(entry.notes, outlived);
}

pub(crate) async fn a_note_that_is_repeated_changes_nothing_more(medium: &impl Medium) {
    let (store, other) = (medium.open(run()).await, medium.open(run()).await);
    first(&store, &user(1), record(1)).await;
    let rejected = rejected();
    let instance = InstanceId::parse(&format!("{:032x}", 1)).unwrap();
    for n in [1, 2] {
        for note in [
            Note::RefreshDead(Generation(1)),
            Note::RefreshAlive,
            Note::AnswerLost(Generation(1)),
            Note::Rejected(rejected),
            Note::Displaced(at(60)),
            Note::ContestedUntil(at(70)),
            Note::SuppressedUntil(at(80)),
            Note::RegisteredIn(instance),
        ] {
            store.note(&user(n), note).await.unwrap();
            let noted = other.load(&user(n)).await;
            store.note(&user(n), note).await.unwrap();
            assert_eq!(other.load(&user(n)).await, noted, "{note:?}");
        }
        // What is noted is no commit.
        let version = other.load(&user(n)).await.unwrap().version();
        assert_eq!(version, over(u64::from(n == 1), 0));
    }
}

pub(crate) async fn a_rejected_login_ends_being_known(medium: &impl Medium) {
    let store = medium.open(run()).await;
    first(&store, &user(1), record(1)).await;
    let rejected = rejected();
    store
        .note(&user(1), Note::Rejected(rejected))
        .await
        .unwrap();
    let kept = store.load(&user(1)).await.unwrap().record.unwrap();
    assert!(!kept.known);
    assert_eq!(kept.sealed, record(1).sealed);
}

pub(crate) async fn where_a_user_was_registered_is_known_until_a_login_says_more(
    medium: &impl Medium,
) {
    let (store, other) = (medium.open(run()).await, medium.open(run()).await);
    let [here, elsewhere] = [1, 2].map(|n| InstanceId::parse(&format!("{n:032x}")).unwrap());
    let known = async |number| other.load(&user(number)).await.unwrap().known_instance();
    for number in 1..=3 {
        let note = Note::RegisteredIn(here);
        store.note(&user(number), note).await.unwrap();
        assert_eq!(known(number).await, Some(here));
    }
    let listed = store.list(Listed::Known, None, 10).await.unwrap();
    assert_eq!(principals(listed).len(), 3);

    let rejected = rejected();
    store
        .note(&user(1), Note::Rejected(rejected))
        .await
        .unwrap();
    assert_eq!(known(1).await, None);
    assert_eq!(store.forget(&user(2)).await, Ok(true));
    assert_eq!(known(2).await, None);
    let record = Record {
        instance: Some(elsewhere),
        ..record(3)
    };
    first(&store, &user(3), record).await;
    store
        .note(&user(3), Note::RegisteredIn(here))
        .await
        .unwrap();
    assert_eq!(known(3).await, Some(elsewhere), "the pair's counts");
}

pub(crate) async fn a_forgotten_principal_keeps_its_generation_and_stays_forgotten(
    medium: &impl Medium,
) {
    let (store, other) = (medium.open(run()).await, medium.open(run()).await);
    first(&store, &user(1), record(1)).await;
    store.note(&user(1), Note::Displaced(at(1))).await.unwrap();
    assert_eq!(other.forget(&user(1)).await, Ok(true));
    assert_eq!(other.forget(&user(1)).await, Ok(false));
    let tombstone = Entry {
        generation: Generation(1),
        epoch: 1,
        ..Entry::default()
    };
    assert_eq!(store.load(&user(1)).await, Ok(tombstone.clone()));
    let known = store.list(Listed::Known, None, 10).await;
    assert_eq!(known, Ok(Page::default()));
    assert_eq!(all(&store).await, []);
    let in_flight = store.commit(&user(1), record(2), over(1, 0), None).await;
    assert_eq!(in_flight, Ok(Commit::Superseded(tombstone)));
    let anew = store.commit(&user(1), record(3), over(1, 1), None).await;
    assert_eq!(anew, Ok(Commit::Committed(Generation(2))));
}

pub(crate) async fn a_record_is_resealed_only_while_it_is_the_one_that_was_read(
    medium: &impl Medium,
) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    for n in 1..=3 {
        first(&one, &user(n.into()), record(n)).await;
    }
    let keys = |mut keys: Vec<(KeyId, u64)>| {
        keys.sort_unstable();
        keys
    };
    let anew = |n: u8| Resealed {
        principal: user(n.into()),
        before: record(n).sealed,
        sealed: vec![n; 901],
        key: KeyId([9; 4]),
    };
    other.forget(&user(1)).await.unwrap();
    let newer = other.commit(&user(2), record(7), over(1, 0), None).await;
    assert_eq!(newer, Ok(Commit::Committed(Generation(2))));
    let before = one.load(&user(3)).await.unwrap();
    assert_eq!(one.reseal((1..=3).map(anew).collect()).await, Ok(1));
    assert_eq!(one.reseal((1..=3).map(anew).collect()).await, Ok(0));
    assert_eq!(one.load(&user(1)).await.unwrap().record, None);
    let kept = one.load(&user(2)).await.unwrap().record;
    assert_eq!(kept, Some(record(7)));
    let after = Entry {
        record: Some(Record {
            sealed: vec![3; 901],
            key: KeyId([9; 4]),
            ..record(3)
        }),
        ..before
    };
    assert_eq!(other.load(&user(3)).await, Ok(after));
    let needed = vec![(KeyId([7; 4]), 1), (KeyId([9; 4]), 1)];
    assert_eq!(other.keys().await.map(keys), Ok(needed));
}

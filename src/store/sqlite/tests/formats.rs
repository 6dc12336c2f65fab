//! Stores of earlier and later formats, and processes of other versions beside this one.

use super::*;
use crate::store::{Day, Uses};

#[tokio::test]
async fn a_newer_format_is_refused() {
    let directory = Directory::with_a_pair().await;
    directory.execute("PRAGMA user_version = 9");
    let refusal = directory.refusal();
    let newer = matches!(refusal, Refusal::Newer { found: 9, .. });
    assert!(newer, "{refusal:?}");
    assert!(refusal.to_string().contains("start the newer version"));
}

/// A store of format 1 with user 1's pair, as that version left it.
pub(super) fn format_1() -> Directory {
    let directory = Directory::default();
    directory.execute(
        "CREATE TABLE entries (
             principal TEXT PRIMARY KEY, seq INTEGER NOT NULL UNIQUE,
             generation INTEGER NOT NULL DEFAULT 0, epoch INTEGER NOT NULL DEFAULT 0,
             instance TEXT, known INTEGER NOT NULL DEFAULT 0, sealed BLOB, received INTEGER,
             expires INTEGER, run TEXT, refresh_dead INTEGER, answer_lost INTEGER,
             rejected_until INTEGER, rejected_with BLOB, displaced INTEGER, contested_until INTEGER
         ) STRICT;
         CREATE INDEX due ON entries (received) WHERE sealed IS NOT NULL
             AND (refresh_dead IS NULL OR refresh_dead <> generation);
         CREATE INDEX held ON entries (sealed IS NOT NULL);
         CREATE TABLE budgets (
             login_group TEXT PRIMARY KEY, taken TEXT NOT NULL, blocked_until INTEGER,
             halved_until INTEGER
         ) STRICT, WITHOUT ROWID;
         CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
         INSERT INTO entries (principal, seq, generation, known, sealed, received, expires, run)
         VALUES ('user:00000000-0000-0000-0000-000000000001', 1, 3, 1,
                 x'010a0b0c0dffffffff', 1000, 2000,
                 '00000000-0000-0002-0000-000000000001');
         PRAGMA application_id = 1146116185;
         PRAGMA user_version = 1;",
    );
    directory
}

#[tokio::test]
async fn a_store_of_format_1_is_migrated_and_a_process_of_it_can_go_on() {
    let directory = format_1();
    let before = Connection::open(directory.tokens()).unwrap();
    let store = directory.open(run());
    let entry = store.load(&user(1)).await.unwrap();
    assert_eq!(entry.generation, Generation(3));
    assert_eq!(entry.record.unwrap().key, KeyId([10, 11, 12, 13]));
    assert_eq!(store.count().await, Ok(1));
    let committed = store.commit(&user(1), record(4), over(3, 0), None).await;
    assert_eq!(committed, Ok(Commit::Committed(Generation(4))));
    before
        .execute_batch(
            "INSERT INTO entries (principal, seq, generation, sealed, received, expires, run)
             SELECT 'user:00000000-0000-0000-0000-000000000002', 9, 1, x'010102030405', received,
                 expires, run FROM entries",
        )
        .unwrap();
    let entry = store.load(&user(2)).await.unwrap();
    assert_eq!(entry.record.unwrap().key, KeyId([1, 2, 3, 4]));
    assert_eq!(store.count().await, Ok(2));
}

#[tokio::test]
async fn a_process_of_this_format_stops_writing_beside_a_newer_one() {
    let directory = Directory::with_a_pair().await;
    let store = directory.open(run());
    directory.execute("PRAGMA user_version = 3");
    let ttl = Duration::from_secs(9);
    for refused in [
        lease_of(&store, &user(1), id(1), ttl).await.map(drop),
        store
            .commit(&user(1), record(2), over(1, 0), None)
            .await
            .map(drop),
        store.note(&user(1), Note::RefreshAlive).await,
        store.writable(),
    ] {
        let Err(Error::Unwritable(why)) = refused else {
            panic!("not refused: {refused:?}")
        };
        assert!(why.contains("format 3"), "{why}");
    }
    let entry = store.load(&user(1)).await.unwrap();
    assert_eq!(entry.generation, Generation(1));
}

/// What the version before this one knew of a store of this format.
const WITHOUT_THE_NEWEST_COLUMN: &str = "ALTER TABLE entries DROP COLUMN suppressed_until";

#[tokio::test]
async fn a_store_without_the_newest_column_gets_it_beside_an_earlier_version() {
    let directory = Directory::with_a_pair().await;
    directory.execute(WITHOUT_THE_NEWEST_COLUMN);
    let earlier = Connection::open(directory.tokens()).unwrap();
    let mut renew = earlier
        .prepare("UPDATE entries SET seq = seq + 9, generation = generation + 1")
        .unwrap();
    renew.execute([]).unwrap();
    for opened in 1..=2 {
        let store = directory.open(run());
        let until = Timestamp::from_millis(opened);
        let note = Note::SuppressedUntil(until);
        store.note(&user(1), note).await.unwrap();
        renew.execute([]).unwrap();
        let entry = store.load(&user(1)).await.unwrap();
        let generation = u64::try_from(opened).unwrap() + 2;
        assert_eq!(entry.generation, Generation(generation));
        assert_eq!(entry.notes.suppressed_until, Some(until));
    }
}

#[tokio::test]
async fn a_view_of_a_store_without_the_newest_column_reads_it_in_place() {
    let directory = Directory::with_a_pair().await;
    // A process of the version before lives, and goes on writing.
    let _lives = directory.open(run());
    directory.execute(WITHOUT_THE_NEWEST_COLUMN);
    let view = view(directory.path(), pseudonyms(), directory.1)
        .unwrap()
        .unwrap();
    for generation in [1, 7] {
        directory.execute(&format!("UPDATE entries SET generation = {generation}"));
        let entry = view.load(&user(1)).await.unwrap();
        assert_eq!(entry.generation, Generation(generation));
        let listed = view.list(Listed::Known, None, 10).await.unwrap();
        assert_eq!(listed.entries, [(user(1), entry)]);
    }
    assert_eq!(view.count().await, Ok(1));
    assert_eq!(view.keys().await, Ok(vec![(KeyId([1; 4]), 1)]));
}

#[tokio::test]
async fn a_store_without_the_newest_table_gets_it_beside_an_earlier_version() {
    let directory = Directory::with_a_pair().await;
    directory.execute("DROP TABLE uses");
    // It is read as it is.
    let looked = view(directory.path(), pseudonyms(), directory.1)
        .unwrap()
        .unwrap();
    assert_eq!(looked.count().await, Ok(1));
    drop(looked);
    let earlier = Connection::open(directory.tokens()).unwrap();
    let mut renew = earlier
        .prepare("UPDATE entries SET seq = seq + 9, generation = generation + 1")
        .unwrap();
    renew.execute([]).unwrap();
    let stores = [(); 2].map(|()| directory.open(run()));
    renew.execute([]).unwrap();
    for (day, store) in (7..).zip(&stores) {
        assert_eq!(store.mark_used(vec![(user(1), Day(day))]).await, Ok(1));
    }
    let entry = stores[0].load(&user(1)).await.unwrap();
    assert_eq!(entry.generation, Generation(3));
}

/// As an earlier version forgot.
const FORGOTTEN_BY_NAME: &str =
    "UPDATE entries SET seq = seq + 1, epoch = 1, instance = NULL, known = 0,
    sealed = NULL, received = NULL, expires = NULL, run = NULL, key_id = NULL WHERE generation = 1";

#[tokio::test]
async fn who_an_earlier_version_forgot_keeps_its_epoch_and_loses_its_name() {
    let directory = Directory::with_a_pair().await;
    directory.execute(FORGOTTEN_BY_NAME);
    let store = directory.open(run());
    let tombstone = Entry {
        generation: Generation(1),
        epoch: 1,
        ..Entry::default()
    };
    assert_eq!(store.load(&user(1)).await.as_ref(), Ok(&tombstone));
    let named = vec![(user(1), tombstone.clone())];
    assert_eq!(all(&store).await, named);
    for _ in 0..2 {
        let restored = store.restore(named.clone()).await;
        assert_eq!(restored, Ok(vec![Restored::Kept]));
        assert_eq!(all(&store).await, []);
        assert_eq!(store.load(&user(1)).await.as_ref(), Ok(&tombstone));
    }
    // A login goes on from there, as it does from a tombstone that still has its name.
    directory.execute("DELETE FROM entries");
    let next = store.commit(&user(1), record(2), over(0, 0), None).await;
    assert_eq!(next, Ok(Commit::Committed(Generation(1))));
    directory.execute(FORGOTTEN_BY_NAME);
    let next = store.commit(&user(1), record(3), over(1, 1), None).await;
    assert_eq!(next, Ok(Commit::Committed(Generation(2))));
    assert_eq!(store.load(&user(1)).await.unwrap().version(), over(2, 1));
}

#[tokio::test]
async fn no_file_holds_the_name_of_who_was_forgotten() {
    let directory = Directory::default();
    let store = directory.open(run());
    for n in 1..=40 {
        commit(&store, n).await;
        let (lease, _) = store
            .lease(&user(n), id(n), Duration::from_secs(9))
            .await
            .unwrap();
        assert!(matches!(lease, Lease::Granted { .. }));
        store.release(&user(n), id(n));
    }
    let named = (1..=40).map(|n| (user(n), Day(1))).collect();
    assert_eq!(store.mark_used(named).await, Ok(40));
    for n in (1..=40).filter(|n| n % 4 != 0) {
        assert_eq!(store.forget(&user(n)).await, Ok(true));
    }
    drop(store);
    for file in fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap().path();
        if !file.is_file() {
            continue;
        }
        let content = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
        let holds = |n: &u64| content.contains(&user(*n).to_string());
        let held: Vec<_> = (1..=40).filter(holds).collect();
        assert!(held.iter().all(|n| n % 4 == 0), "{held:?} in {file:?}");
        assert!(!file.ends_with("tokens.db") || held.len() == 10, "{held:?}");
    }
}

#[tokio::test]
async fn a_tombstone_is_found_with_each_key_that_its_process_knew() {
    let directory = Directory::with_a_pair().await;
    let [old, new] = [[1; 32], [2; 32]];
    let open_with = |pseudonyms| open(directory.path(), pseudonyms, run(), directory.1).unwrap();
    let store = open_with(Pseudonyms::new(&old, [&new]));
    assert_eq!(store.forget(&user(1)).await, Ok(true));
    drop(store);
    for known in [
        Pseudonyms::new(&new, [&old]),
        Pseudonyms::new(&new, []),
        Pseudonyms::new(&old, []),
    ] {
        let store = open_with(known);
        assert_eq!(store.load(&user(1)).await.unwrap().version(), over(1, 1));
    }
    let stranger = open_with(Pseudonyms::new(&[3; 32], []));
    assert_eq!(stranger.load(&user(1)).await, Ok(Entry::default()));
}

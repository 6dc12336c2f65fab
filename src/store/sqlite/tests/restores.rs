//! A `tokens.db` beside a log: which of them belong together, whatever was killed, copied, moved or
//! restored.

use super::*;
use crate::store::ReadOnly;

const FILES: [&str; 2] = ["tokens.db", "tokens.db-wal"];

/// The files as a process leaves them that is killed now, in another place.
fn killed_and_moved(directory: &Directory) -> Directory {
    let moved = Directory::default();
    for name in FILES {
        fs::copy(directory.path().join(name), moved.path().join(name)).unwrap();
    }
    moved
}

/// Puts the file of `backup` in the place of that of `directory`.
fn restore(backup: &Directory, directory: &Directory) {
    fs::copy(backup.tokens(), directory.tokens()).unwrap();
}

fn checkpoint(directory: &Directory, mode: &str) {
    directory.execute(&format!("PRAGMA wal_checkpoint({mode})"));
}

async fn renew(store: &Sqlite, users: std::ops::RangeInclusive<u64>, generation: u64) {
    for n in users {
        let committed = store
            .commit(&user(n), record(1), over(generation, 0), None)
            .await;
        assert_eq!(
            committed,
            Ok(Commit::Committed(Generation(generation).next()))
        );
    }
}

fn refused_without_a_change(directory: &Directory) {
    let before = FILES.map(|name| fs::read(directory.path().join(name)).unwrap());
    let reader = view(directory.path(), pseudonyms(), directory.1)
        .err()
        .expect("refused");
    assert!(matches!(reader, Refusal::ForeignLog(_)), "{reader:?}");
    let refusal = directory.refusal();
    assert!(matches!(refusal, Refusal::ForeignLog(_)), "{refusal:?}");
    let said = refusal.to_string();
    assert!(
        said.contains("Remove tokens.db-wal and tokens.db-shm"),
        "{said}"
    );
    let after = FILES.map(|name| fs::read(directory.path().join(name)).unwrap());
    assert!(before == after, "a file was changed");
}

#[tokio::test]
async fn a_restored_file_beside_the_log_of_a_crash_is_told_and_left_as_it_is() {
    for users in [1, 20, 300] {
        let directory = Directory::default();
        let store = directory.open(run());
        renew(&store, 1..=users, 0).await;
        store.close();
        let backup = Directory::default();
        restore(&directory, &backup);
        let store = directory.open(run());
        renew(&store, 1..=users, 1).await;
        checkpoint(&directory, "TRUNCATE");
        renew(&store, 1..=1, 2).await;
        let crashed = killed_and_moved(&directory);
        restore(&backup, &crashed);
        refused_without_a_change(&crashed);
        // What the sentence says helps.
        fs::remove_file(crashed.path().join("tokens.db-wal")).unwrap();
        let _ = fs::remove_file(crashed.path().join("tokens.db-shm"));
        let restored = crashed.open(run());
        let entry = restored.load(&user(1)).await.unwrap();
        assert_eq!(entry.generation, Generation(1));
    }
}

#[tokio::test]
async fn a_rebuilt_file_beside_the_log_of_a_crash_is_told_and_left_as_it_is() {
    let directory = Directory::default();
    let store = directory.open(run());
    renew(&store, 1..=200, 0).await;
    for n in 1..=100 {
        store.forget(&user(n)).await.unwrap();
    }
    let rebuilt = Directory::default();
    directory.execute("DELETE FROM entries WHERE sealed IS NULL");
    directory.execute(&format!("VACUUM INTO '{}'", rebuilt.tokens().display()));
    renew(&store, 101..=200, 1).await;
    let crashed = killed_and_moved(&directory);
    restore(&rebuilt, &crashed);
    // Of another layout, with the log of the very same transactions.
    refused_without_a_change(&crashed);
}

#[tokio::test]
async fn no_kill_and_no_move_of_the_whole_is_taken_for_a_restore() {
    let directory = Directory::default();
    let store = directory.open(run());
    for round in 0..40 {
        renew(&store, 1..=8, round).await;
        match round % 4 {
            1 => checkpoint(&directory, "PASSIVE"),
            2 => checkpoint(&directory, "RESTART"),
            3 => checkpoint(&directory, "TRUNCATE"),
            _ => {}
        }
        if round % 3 == 0 {
            renew(&store, 9..=9, round / 3).await;
        }
        let crashed = killed_and_moved(&directory);
        let reader = view(crashed.path(), pseudonyms(), crashed.1)
            .unwrap()
            .unwrap();
        assert_eq!(reader.count().await, Ok(9));
        let moved = crashed.open(run());
        for n in 1..=8 {
            let entry = moved.load(&user(n)).await.unwrap();
            assert_eq!(entry.generation, Generation(round + 1));
        }
    }
}

#[tokio::test]
async fn the_same_file_without_its_last_renewals_goes_on_with_its_log() {
    let directory = Directory::default();
    let store = directory.open(run());
    renew(&store, 1..=20, 0).await;
    checkpoint(&directory, "TRUNCATE");
    let copied = Directory::default();
    restore(&directory, &copied);
    renew(&store, 1..=20, 1).await;
    let crashed = killed_and_moved(&directory);
    restore(&copied, &crashed);
    // Byte for byte what was there: nothing is lost.
    let entry = crashed.open(run()).load(&user(20)).await.unwrap();
    assert_eq!(entry.generation, Generation(2));
}

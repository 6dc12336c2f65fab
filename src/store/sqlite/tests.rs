//! The contract on SQLite, and what only files and processes can suffer: damage, kills, a full
//! disk.

mod broken;
mod processes;
mod restores;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::task::{Context, Waker};

use futures_util::future::join_all;
use tempfile::TempDir;

use super::*;
use crate::credentials::seal::Ring;
use crate::secret::Secret;
use crate::store::contract::{
    HELD, Medium, contract, id, lease_of, over, principals, record, run, user,
};
use crate::store::{self, Generation, KeyId, ReadOnly};

/// A directory that becomes a store.
struct Directory(TempDir, Clock);

impl Default for Directory {
    fn default() -> Directory {
        let now = Clock::real().stamp();
        Directory(tempfile::tempdir().unwrap(), Clock::standing(now))
    }
}

impl Medium for Directory {
    type Store = Sqlite;

    const TTL: Duration = Duration::from_millis(200);
    const TELLS_COMMITS: bool = true;
    // One machine has one clock, and times are kept in milliseconds.
    const CLOCK_ERROR: Duration = Duration::from_millis(1);

    async fn new() -> Directory {
        Directory::default()
    }

    async fn open(&self, run: RunId) -> Sqlite {
        self.open(run)
    }

    async fn open_scaled(&self, run: RunId, scale: u32) -> Sqlite {
        open(self.path(), run, Clock::scaled(scale)).unwrap()
    }

    async fn pass(&self, time: Duration) {
        let now = self.1.stamp();
        let millis = i64::try_from(time.as_millis()).unwrap();
        self.1.set(Stamp {
            since_boot: now.since_boot + millis,
            wall: now.wall.plus(time),
            ..now
        });
    }
}

impl Directory {
    /// One more process on the store, by a clock that stands.
    fn open(&self, run: RunId) -> Sqlite {
        open(self.path(), run, self.1).unwrap()
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn tokens(&self) -> PathBuf {
        self.path().join("tokens.db")
    }

    /// Changes `tokens.db` behind the engine's back.
    fn execute(&self, sql: &str) {
        let db = Connection::open(self.tokens()).unwrap();
        db.execute_batch(sql).unwrap();
    }

    /// A store that holds one pair, closed.
    async fn with_a_pair() -> Directory {
        let directory = Directory::default();
        commit(&directory.open(run()), 1).await;
        directory
    }

    fn refusal(&self) -> Refusal {
        open(self.path(), run(), self.1)
            .err()
            .expect("the store is refused")
    }
}

/// Commits a first record for user `n`.
async fn commit(store: &Sqlite, n: u64) {
    let committed = store
        .commit(&user(n), record(1), over(0, 0), None)
        .await
        .unwrap();
    assert_eq!(committed, Commit::Committed(Generation(1)));
}

contract!(Directory);

#[tokio::test]
async fn a_thousand_commits_at_once_cost_few_transactions() {
    let directory = Directory::default();
    let store = directory.open(run());
    join_all((1..=1_000).map(|n| commit(&store, n))).await;
    assert_eq!(store.count().await, Ok(1_000));
    let transactions = store.transactions();
    assert!(transactions < 100, "{transactions} transactions");
}

#[tokio::test]
async fn a_write_that_fails_leaves_the_others_of_its_group_alone() {
    let directory = Directory::with_a_pair().await;
    directory.execute("UPDATE entries SET run = 'nobody', generation = 7");
    let store = directory.open(run());
    let damaged = user(1);
    let (failed, ()) = tokio::join!(
        store.commit(&damaged, record(2), over(1, 0), None),
        commit(&store, 2),
    );
    assert_eq!(failed, Err(Error::Damaged(user(1))));
    assert_eq!(store.count().await, Ok(2));
    assert_eq!(store.writable(), Ok(()));
}

#[tokio::test]
async fn one_damaged_row_concerns_nobody_else_and_can_be_forgotten() {
    let directory = Directory::with_a_pair().await;
    directory.execute("UPDATE entries SET received = NULL");
    let store = directory.open(run());
    commit(&store, 2).await;
    assert_eq!(store.load(&user(1)).await, Err(Error::Damaged(user(1))));
    assert!(store.load(&user(2)).await.is_ok());
    let listed = store.list(Listed::Known, None, 10).await.unwrap();
    assert_eq!(principals(listed), [user(2)]);
    assert_eq!(store.forget(&user(1)).await, Ok(true));
    let entry = store.load(&user(1)).await.unwrap();
    assert_eq!((entry.generation, entry.epoch), (Generation(1), 1));
}

#[tokio::test]
async fn a_long_listing_delays_no_request() {
    let store = Directory::default().open(run());
    let (end, listing) = std::sync::mpsc::channel::<()>();
    let long = store.list_with(move |_| {
        let _ = listing.recv();
        Ok(())
    });
    let requests = async {
        for n in 0..4 {
            let load = tokio::time::timeout(Duration::from_secs(5), store.load(&user(n))).await;
            assert_eq!(load, Ok(Ok(Entry::default())));
        }
        drop(end);
    };
    tokio::join!(async { long.await.unwrap() }, requests);
}

#[tokio::test]
async fn a_flipped_bit_in_one_pair_breaks_that_seal_and_no_other() {
    let directory = Directory::default();
    let ring = Ring::new(&Secret::new("A".repeat(43) + "="), &[]).unwrap();
    let store = directory.open(run());
    for n in [1, 2] {
        let sealed = ring.seal(&user(n), "pair", b"a token");
        let record = Record {
            sealed,
            ..record(1)
        };
        store
            .commit(&user(n), record, over(0, 0), None)
            .await
            .unwrap();
    }
    drop(store);
    let mut bytes = fs::read(directory.tokens()).unwrap();
    let sealed = sealed_of(&directory, 1).await;
    let at = bytes
        .windows(sealed.len())
        .position(|found| found == sealed);
    bytes[at.unwrap() + sealed.len() - 1] ^= 1;
    fs::write(directory.tokens(), bytes).unwrap();
    assert!(open_pair(&directory, &ring, 1).await.is_none());
    assert_eq!(open_pair(&directory, &ring, 2).await.unwrap(), b"a token");
}

async fn sealed_of(directory: &Directory, n: u64) -> Vec<u8> {
    let entry = directory.open(run()).load(&user(n)).await.unwrap();
    entry.record.unwrap().sealed
}

async fn open_pair(directory: &Directory, ring: &Ring, n: u64) -> Option<Vec<u8>> {
    let sealed = sealed_of(directory, n).await;
    ring.open(&user(n), "pair", &sealed)
        .ok()
        .map(|pair| pair.to_vec())
}

#[tokio::test]
async fn files_and_directories_are_their_owners_alone() {
    let parent = Directory::default();
    let path = parent.path().join("a/store");
    let store = open(&path, run(), Clock::real()).unwrap();
    commit(&store, 1).await;
    lease_of(&store, &user(1), id(1), Duration::from_secs(9))
        .await
        .unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    let mut files = 0;
    let mut directories = vec![path];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(&path), expected, "{}", path.display());
            match path.is_dir() {
                true => directories.push(path),
                false => files += 1,
            }
        }
    }
    // Two databases with their -wal and -shm, the opening lock and the owner's.
    assert_eq!(files, 8);
}

#[tokio::test]
async fn processes_that_open_a_new_store_at_once_all_succeed() {
    let directory = Directory::default();
    let stores: Vec<Sqlite> = std::thread::scope(|scope| {
        let threads = [(); 8].map(|()| scope.spawn(|| directory.open(run())));
        threads.map(|thread| thread.join().unwrap()).into()
    });
    commit(&stores[0], 1).await;
    for store in &stores {
        assert_eq!(store.count().await, Ok(1));
    }
}

#[tokio::test]
async fn a_directory_with_other_files_becomes_a_store() {
    let directory = Directory::default();
    for name in ["store.key", "lost+found", "tokens.db.new"] {
        fs::write(directory.path().join(name), "x").unwrap();
    }
    commit(&directory.open(run()), 1).await;
}

#[tokio::test]
async fn a_vanished_store_is_refused() {
    let directory = Directory::with_a_pair().await;
    fs::remove_file(directory.tokens()).unwrap();
    let refusal = directory.refusal();
    assert!(matches!(refusal, Refusal::Missing(_)), "{refusal:?}");
    assert!(refusal.to_string().contains("restore it from a backup"));
    assert!(!directory.tokens().exists(), "nothing was started empty");
}

#[tokio::test]
async fn an_empty_or_foreign_file_is_refused_and_left_as_it_is() {
    let foreign = Directory::default();
    foreign.execute("PRAGMA journal_mode = DELETE; CREATE TABLE other (a)");
    let foreign = fs::read(foreign.tokens()).unwrap();
    for content in [Vec::new(), b"not a database ".repeat(100), foreign] {
        let directory = Directory::default();
        fs::write(directory.tokens(), &content).unwrap();
        let refusal = directory.refusal();
        assert!(matches!(refusal, Refusal::Foreign(_)), "{refusal:?}");
        assert_eq!(fs::read(directory.tokens()).unwrap(), content);
    }
}

#[tokio::test]
async fn a_truncated_or_garbled_store_is_refused() {
    for garble in [
        |file: &fs::File, length: u64| file.set_len(length / 2).unwrap(),
        |file: &fs::File, length: u64| {
            // All pages but the first, which holds the schema.
            let garbage = vec![0xA5; usize::try_from(length - 4_096).unwrap()];
            file.write_all_at(&garbage, 4_096).unwrap();
        },
    ] {
        let directory = Directory::default();
        let store = directory.open(run());
        join_all((1..=100).map(|n| commit(&store, n))).await;
        drop(store);
        let file = fs::File::options().write(true).open(directory.tokens());
        let length = fs::metadata(directory.tokens()).unwrap().len();
        garble(&file.unwrap(), length);
        let refusal = directory.refusal();
        assert!(matches!(refusal, Refusal::Damaged { .. }), "{refusal:?}");
        assert!(refusal.to_string().contains("restore it from a backup"));
    }
}

/// A closed store of 20 MiB and more.
async fn large() -> Directory {
    let directory = Directory::default();
    let store = directory.open(run());
    join_all((1..=100).map(async |n| {
        let large = Record {
            sealed: vec![1; 256 * 1024],
            ..record(1)
        };
        let committed = store.commit(&user(n), large, over(0, 0), None).await;
        assert_eq!(committed, Ok(Commit::Committed(Generation(1))));
    }))
    .await;
    drop(store);
    assert!(fs::metadata(directory.tokens()).unwrap().len() > 20 * 1024 * 1024);
    directory
}

#[tokio::test]
async fn damage_in_a_large_store_ends_renewals_soon_after_the_start() {
    let directory = large().await;
    let file = fs::File::options().write(true).open(directory.tokens());
    let garbage = vec![0xA5; 1024 * 1024];
    file.unwrap()
        .write_all_at(&garbage, 10 * 1024 * 1024)
        .unwrap();
    let store = directory.open(run());
    let reader = view(directory.path(), directory.1).unwrap().unwrap();
    let checked = reader.check_whole().await;
    let damaged = match &checked {
        Err(store::OpenError::Refused(why)) => {
            matches!(why.downcast_ref(), Some(Refusal::Damaged { .. }))
        }
        _ => false,
    };
    assert!(damaged, "{checked:?}");
    let found = async {
        loop {
            if let Err(error) = store.writable() {
                return error.to_string();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(60), found).await;
    let found = found.expect("the damage is found");
    assert!(found.contains("restore it from a backup"), "{found}");
    let refused = lease_of(&store, &user(1), id(1), Duration::from_secs(1)).await;
    assert!(matches!(refused, Err(Error::Unwritable(_))), "{refused:?}");
    // What can be read still is.
    assert!(store.load(&user(1)).await.unwrap().record.is_some());
}

#[tokio::test]
async fn a_large_store_that_is_whole_is_used_at_once_and_closed_at_once() {
    let directory = large().await;
    for _ in 0..10 {
        let store = directory.open(run());
        assert_eq!(store.count().await, Ok(100));
        assert_eq!(store.writable(), Ok(()));
        let reader = view(directory.path(), directory.1).unwrap().unwrap();
        reader.check_whole().await.unwrap();
    }
}

#[tokio::test]
async fn a_large_store_that_was_truncated_is_refused() {
    let directory = large().await;
    let file = fs::File::options().write(true).open(directory.tokens());
    file.unwrap().set_len(18 * 1024 * 1024).unwrap();
    let refusal = directory.refusal();
    assert!(matches!(refusal, Refusal::Damaged { .. }), "{refusal:?}");
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let directory = Directory::with_a_pair().await;
    directory.execute("PRAGMA user_version = 9");
    let refusal = directory.refusal();
    let newer = matches!(refusal, Refusal::Newer { found: 9, .. });
    assert!(newer, "{refusal:?}");
    assert!(refusal.to_string().contains("start the newer version"));
}

#[tokio::test]
async fn leases_that_were_given_back_are_soon_free_though_nothing_else_happens() {
    let directory = Directory::default();
    let (one, other) = (directory.open(run()), directory.open(run()));
    let ttl = Duration::from_secs(600);
    for given_back in [1, 2] {
        for number in 0..given_back {
            lease_of(&one, &user(number), id(1), ttl).await.unwrap();
        }
        (0..given_back).for_each(|number| one.release(&user(number), id(1)));
        let freed = async {
            for number in 0..given_back {
                while lease_of(&other, &user(number), id(2), ttl).await == Ok(HELD) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                other.release(&user(number), id(2));
            }
            lease_of(&other, &user(1_000), id(2), ttl).await.unwrap();
        };
        let freed = tokio::time::timeout(Duration::from_secs(10), freed).await;
        assert!(freed.is_ok());
    }
}

#[tokio::test]
async fn leases_asked_for_at_once_are_each_judged_alone_and_given_back_at_once() {
    const BY_OTHER: u64 = 2;
    const KNOWN: u64 = 3;
    let directory = Directory::default();
    let (one, other) = (directory.open(run()), directory.open(run()));
    let ttl = Duration::from_secs(600);
    commit(&one, KNOWN).await;
    lease_of(&other, &user(BY_OTHER), id(2), ttl).await.unwrap();
    for _first_then_extended in 0..2 {
        let one = &one;
        let all = (1..=200).map(|n| async move { one.lease(&user(n), id(1), ttl).await });
        for (n, leased) in (1..).zip(join_all(all).await) {
            let (lease, entry) = leased.unwrap();
            let is_granted = lease == Lease::Granted { orphaned: false };
            assert_eq!(is_granted, n != BY_OTHER, "{n}");
            let generation = entry.unwrap().generation;
            assert_eq!(generation, Generation(u64::from(n == KNOWN)), "{n}");
        }
    }
    (1..=200).for_each(|n| one.release(&user(n), id(1)));
    // It gives back before it takes.
    lease_of(&one, &user(1_000), id(1), ttl).await.unwrap();
    let other = &other;
    let all = (1..=200).map(|n| async move { lease_of(other, &user(n), id(2), ttl).await });
    for (n, lease) in (1..).zip(join_all(all).await) {
        assert_eq!(lease, Ok(Lease::Granted { orphaned: false }), "{n}");
    }
}

#[tokio::test]
async fn damaged_leases_are_replaced_under_running_processes() {
    let directory = Directory::default();
    let (one, other) = (directory.open(run()), directory.open(run()));
    let ttl = Duration::from_secs(600);
    lease_of(&one, &user(1), id(1), ttl).await.unwrap();
    for file in ["leases.db", "leases.db-wal", "leases.db-shm"] {
        fs::remove_file(directory.path().join(file)).unwrap();
    }
    fs::write(directory.path().join("leases.db"), "garbage".repeat(1_000)).unwrap();
    let granted = Lease::Granted { orphaned: false };
    assert_eq!(lease_of(&one, &user(1), id(1), ttl).await, Ok(granted));
    assert_eq!(lease_of(&other, &user(1), id(2), ttl).await, Ok(HELD));
    drop((one, other));
    fs::write(directory.path().join("leases.db"), "garbage".repeat(1_000)).unwrap();
    let later = directory.open(run());
    assert_eq!(lease_of(&later, &user(1), id(3), ttl).await, Ok(granted));
}

#[tokio::test]
async fn a_lease_of_an_earlier_boot_is_orphaned() {
    let directory = Directory::default();
    let (one, other) = (directory.open(run()), directory.open(run()));
    let ttl = Duration::from_secs(600);
    lease_of(&one, &user(1), id(1), ttl).await.unwrap();
    let db = Connection::open(directory.path().join("leases.db")).unwrap();
    db.execute("UPDATE leases SET boot = 'earlier'", [])
        .unwrap();
    let granted = Lease::Granted { orphaned: true };
    assert_eq!(lease_of(&other, &user(1), id(2), ttl).await, Ok(granted));
}

#[tokio::test]
async fn a_closed_store_answers_that_it_is_closed() {
    let directory = Directory::default();
    let store = directory.open(run());
    let principal = user(1);
    let queued = store.commit(&principal, record(1), over(0, 0), None);
    let mut queued = std::pin::pin!(queued);
    let mut context = Context::from_waker(Waker::noop());
    assert!(queued.as_mut().poll(&mut context).is_pending());
    store.close();
    assert_eq!(queued.await, Ok(Commit::Committed(Generation(1))));
    assert_eq!(store.load(&user(1)).await, Err(Error::Closed));
    assert_eq!(store.forget(&user(1)).await, Err(Error::Closed));
    let lease = lease_of(&store, &user(1), id(1), Duration::from_secs(9)).await;
    assert_eq!(lease, Err(Error::Closed));
    assert!(store.changes().recv().await.is_none());
    let wal = fs::metadata(directory.path().join("tokens.db-wal"));
    assert!(wal.is_err(), "everything was checkpointed");
}

#[tokio::test]
async fn the_keeper_and_the_count_read_an_index() {
    let directory = Directory::with_a_pair().await;
    let db = Connection::open(directory.tokens()).unwrap();
    let plan = |sql: &str| -> String {
        let mut explained = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let mut steps = explained.raw_query();
        steps.next().unwrap().unwrap().get(3).unwrap()
    };
    let due = plan(entries::DUE);
    assert!(due.contains("USING INDEX due"), "{due}");
    let count = plan(entries::COUNT);
    assert!(count.contains("USING COVERING INDEX held"), "{count}");
    let rejected = {
        let sql = format!("EXPLAIN QUERY PLAN {}", entries::DROP_REJECTED);
        let mut explained = db.prepare(&sql).unwrap();
        let steps = explained.query_map([0, 0, 1], |row| row.get::<_, String>(3));
        steps.unwrap().map(Result::unwrap).collect::<String>()
    };
    assert!(rejected.contains("USING INDEX rejected"), "{rejected}");
    let keys = plan(entries::KEYS);
    assert!(keys.contains("USING COVERING INDEX held"), "{keys}");
}

/// A store of format 1 with user 1's pair, as that version left it.
fn format_1() -> Directory {
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

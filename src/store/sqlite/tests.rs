//! The contract on SQLite, and what only files and processes can suffer: damage, kills, a full
//! disk.

mod broken;
mod files;
mod formats;
mod leases;
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
    HELD, Medium, all, contract, id, lease_of, lease_once_free, over, principals, pseudonyms,
    record, run, told, user,
};
use crate::store::{
    self, Budgets, Class, Generation, KeyId, LoginWindow, LoginWindows, ReadOnly, Rejected, Slot,
    SlotId,
};

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
        open(self.path(), pseudonyms(), run, Clock::scaled(scale)).unwrap()
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
        open(self.path(), pseudonyms(), run, self.1).unwrap()
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
        open(self.path(), pseudonyms(), run(), self.1)
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
        let sql = format!("EXPLAIN QUERY PLAN {}", entry_writes::DROP_REJECTED);
        let mut explained = db.prepare(&sql).unwrap();
        let steps = explained.query_map([0, 0, 1], |row| row.get::<_, String>(3));
        steps.unwrap().map(Result::unwrap).collect::<String>()
    };
    assert!(rejected.contains("USING INDEX rejected"), "{rejected}");
    let keys = plan(entries::KEYS);
    assert!(keys.contains("USING COVERING INDEX held"), "{keys}");
}

/// Its number would be given again, and what comes with that would not be told.
#[tokio::test]
async fn the_newest_row_is_never_dropped() {
    let directory = Directory::default();
    let (one, other) = (directory.open(run()), directory.open(run()));
    let at = Timestamp::from_millis;
    let rejected = Rejected {
        until: at(50),
        with: [7; 8],
    };
    let mut changes = one.changes();
    for (n, dropped) in [(11, 0), (12, 1), (13, 1)] {
        let note = Note::Rejected(rejected);
        one.note(&user(n), note).await.unwrap();
        told(&mut changes, &user(n), over(0, 0)).await;
        let drop = other.drop_rejected(at(50), at(100), 4).await;
        assert_eq!(drop, Ok(dropped), "{n}");
    }
}

#[tokio::test]
async fn a_step_of_the_wall_clock_frees_no_slot() {
    let directory = Directory::default();
    let store = directory.open(run());
    let windows = LoginWindows {
        group: "default".into(),
        windows: vec![LoginWindow {
            logins: 1,
            per: Duration::from_secs(60),
        }],
        reserve: 0,
    };
    let take = async || {
        let id = SlotId(uuid::Uuid::new_v4());
        store.take_login(id, Class::Known, &windows).await
    };
    assert_eq!(take().await, Ok(Slot::Taken));
    let right = directory.1.stamp();
    let far = Duration::from_secs(9_000);
    for wall in [right.wall.plus(far), right.wall.minus(far)] {
        directory.1.set(Stamp { wall, ..right });
        let full = Slot::Wait {
            left: Duration::from_secs(60),
            blocked: false,
        };
        assert_eq!(take().await, Ok(full));
    }
}

//! Tests that need a process to kill or to starve.

use rustix::process::{Resource, Rlimit};

use super::formats::format_1;
use super::*;
use crate::store::actor::{self, Actor, say};

const THE_PART: &str = "store::sqlite::tests::processes::the_part_of_a_child";

fn play(part: &str, directory: &Directory) -> Actor {
    Actor::play(THE_PART, part, directory.path())
}

/// No test of its own: what a child process does.
#[tokio::test]
async fn the_part_of_a_child() {
    let Some((part, directory)) = actor::part() else {
        return;
    };
    if part == "migrate half-way" {
        return migrate_half_way(&directory).await;
    }
    let store = open(&directory, pseudonyms(), run(), Clock::real()).unwrap();
    match part.as_str() {
        "hold a lease" => hold_a_lease(&store, 1, Duration::from_secs(600)).await,
        "hold a short lease" => hold_a_lease(&store, 2, Duration::from_secs(2)).await,
        "commit" => commit_for_ever(&store).await,
        "fill the disk" => fill_the_disk(&store).await,
        other => panic!("no such part: {other}"),
    }
}

async fn hold_a_lease(store: &Sqlite, of: u64, ttl: Duration) {
    let lease = lease_of(store, &user(of), id(1), ttl).await;
    say(format!("{lease:?}"));
    std::future::pending().await
}

/// Does all of a migration but its end.
async fn migrate_half_way(directory: &Path) {
    let db = Connection::open(directory.join("tokens.db")).unwrap();
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA cache_size = 1; BEGIN IMMEDIATE")
        .unwrap();
    super::schema::to_2(&db, Clock::real()).unwrap();
    db.pragma_update(None, "user_version", 2).unwrap();
    say("half-way");
    std::future::pending().await
}

/// Commits generation after generation for eight users at once, and says which are durable.
async fn commit_for_ever(store: &Sqlite) {
    join_all((1..=8).map(async |n| {
        let mut generation = store.load(&user(n)).await.unwrap().generation;
        loop {
            let sealed = generation.next().0.to_string().repeat(200).into_bytes();
            let record = Record {
                sealed,
                ..record(1)
            };
            let committed = store
                .commit(&user(n), record, over(generation.0, 0), None)
                .await;
            generation = generation.next();
            assert_eq!(committed, Ok(Commit::Committed(generation)));
            say(format!("{n} {}", generation.0));
        }
    }))
    .await;
}

/// Lives through a medium that takes no more bytes, and one that takes them again.
async fn fill_the_disk(store: &Sqlite) {
    let limit = |current| {
        let maximum = None;
        rustix::process::setrlimit(Resource::Fsize, Rlimit { current, maximum }).unwrap();
    };
    commit(store, 1).await;
    limit(Some(4_096));
    let refused = store.commit(&user(2), record(2), over(0, 0), None).await;
    assert!(matches!(refused, Err(Error::Unwritable(_))), "{refused:?}");
    let lease = lease_of(store, &user(2), id(1), Duration::from_secs(9)).await;
    assert!(matches!(lease, Err(Error::Unwritable(_))), "{lease:?}");
    assert!(store.writable().is_err());
    assert!(store.load(&user(1)).await.unwrap().record.is_some());
    limit(None);
    // The probe finds it out by itself.
    let recovered = tokio::time::timeout(Duration::from_secs(10), async {
        while store.writable().is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    recovered.await.expect("a probe a second");
    assert_eq!(store.load(&user(2)).await, Ok(Entry::default()));
    commit(store, 2).await;
    say("recovered");
}

#[tokio::test]
async fn the_lease_of_a_killed_process_is_granted_at_once_as_orphaned() {
    let directory = Directory::default();
    let store = directory.open(run());
    let mut owner = play("hold a lease", &directory);
    assert_eq!(
        owner.hear().as_deref(),
        Some("Ok(Granted { orphaned: false })")
    );
    let ttl = Duration::from_secs(600);
    assert_eq!(lease_of(&store, &user(1), id(1), ttl).await, Ok(HELD));
    owner.kill();
    let granted = Lease::Granted { orphaned: true };
    assert_eq!(lease_of(&store, &user(1), id(1), ttl).await, Ok(granted));
}

#[tokio::test]
async fn a_migration_that_is_killed_leaves_the_earlier_format_whole() {
    let directory = format_1();
    let mut migrating = play("migrate half-way", &directory);
    assert_eq!(migrating.hear().as_deref(), Some("half-way"));
    migrating.kill();
    let db = Connection::open(directory.tokens()).unwrap();
    let found = super::schema::format(&db).unwrap();
    let budgets = db.query_row("SELECT count(*) FROM budgets", [], |row| row.get(0));
    assert_eq!((found, budgets), (1, Ok(0)));
    drop(db);
    let entry = directory.open(run()).load(&user(1)).await.unwrap();
    assert_eq!(entry.generation, Generation(3));
}

#[tokio::test]
async fn every_acknowledged_commit_survives_kill_9() {
    let directory = Directory::default();
    let mut acknowledged = [0u64; 9];
    for round in 0..10 {
        let mut writer = play("commit", &directory);
        let heard: Vec<_> = (0..20 + round * 13).map_while(|_| writer.hear()).collect();
        assert!(!heard.is_empty(), "the writer said nothing");
        for said in heard.into_iter().chain(writer.kill()) {
            // The kill may cut the last line short.
            let Some((n, generation)) = said.split_once(' ') else {
                continue;
            };
            let (Ok(n), Ok(generation)) = (n.parse::<usize>(), generation.parse()) else {
                continue;
            };
            acknowledged[n] = acknowledged[n].max(generation);
        }
        let store = directory.open(run());
        for n in 1..=8u64 {
            let entry = store.load(&user(n)).await.unwrap();
            let expected = acknowledged[usize::try_from(n).unwrap()];
            assert!(
                entry.generation >= Generation(expected),
                "user {n}, round {round}"
            );
            if let Some(record) = entry.record {
                let whole = entry.generation.0.to_string().repeat(200);
                assert_eq!(record.sealed, whole.into_bytes());
            }
        }
    }
    assert!(acknowledged[1..].iter().all(|generation| *generation > 0));
}

#[test]
fn a_full_disk_refuses_writes_and_leases_until_a_probe_succeeds() {
    let directory = Directory::default();
    let mut actor = play("fill the disk", &directory);
    assert_eq!(actor.hear().as_deref(), Some("recovered"));
}

#[tokio::test]
async fn a_missing_lock_file_voids_no_lease() {
    let directory = Directory::default();
    let (one, other) = (directory.open(run()), directory.open(run()));
    let ttl = Duration::from_secs(600);
    lease_of(&one, &user(1), id(1), ttl).await.unwrap();
    fs::remove_dir_all(directory.path().join("owners")).unwrap();
    for _ in 0..20 {
        assert_eq!(lease_of(&other, &user(1), id(2), ttl).await, Ok(HELD));
    }
    // A killed one cannot make its file anew: its leases last their time.
    let mut owner = play("hold a short lease", &directory);
    owner.hear().unwrap();
    owner.kill();
    fs::remove_dir_all(directory.path().join("owners")).unwrap();
    assert_eq!(lease_of(&other, &user(2), id(2), ttl).await, Ok(HELD));
    let granted = async {
        while lease_of(&other, &user(2), id(2), ttl).await == Ok(HELD) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let granted = tokio::time::timeout(Duration::from_secs(20), granted).await;
    granted.expect("the ttl ends it");
}

#[tokio::test]
async fn the_leases_of_a_killed_process_are_void_once_another_has_started() {
    let directory = Directory::default();
    let mut owner = play("hold a lease", &directory);
    owner.hear().unwrap();
    owner.kill();
    // It removes the lock file of the dead.
    let store = directory.open(run());
    let locks = fs::read_dir(directory.path().join("owners")).unwrap();
    assert_eq!(locks.count(), 1);
    let granted = Lease::Granted { orphaned: true };
    let lease = lease_of(&store, &user(1), id(1), Duration::from_secs(9)).await;
    assert_eq!(lease, Ok(granted));
}

#[tokio::test]
async fn leases_outlive_the_removal_of_their_files() {
    for gone in [
        &["leases.db", "leases.db-wal", "leases.db-shm"][..],
        &["leases.db"],
        &["leases.db-wal"],
        &["leases.db-shm"],
    ] {
        let directory = Directory::default();
        let (one, other) = (directory.open(run()), directory.open(run()));
        let ttl = Duration::from_secs(600);
        lease_of(&one, &user(1), id(1), ttl).await.unwrap();
        for name in gone {
            fs::remove_file(directory.path().join(name)).unwrap();
        }
        let started = tokio::time::Instant::now();
        while started.elapsed() < Duration::from_millis(1_200) {
            assert_eq!(
                lease_of(&other, &user(1), id(2), ttl).await,
                Ok(HELD),
                "{gone:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let granted = Lease::Granted { orphaned: false };
        assert_eq!(
            lease_of(&other, &user(2), id(2), ttl).await,
            Ok(granted),
            "{gone:?}"
        );
        assert_eq!(
            lease_of(&one, &user(2), id(1), ttl).await,
            Ok(HELD),
            "{gone:?}"
        );
    }
}

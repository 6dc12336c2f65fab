//! What was acknowledged stays, on real servers: a server that stands still, a process that ends, a standby
//! that takes over short of the last commits.

use std::collections::HashMap;

use futures_util::future::join_all;
use servers::{Database, Forwarder, Replication, Server};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use super::media::settings;
use super::*;
use crate::store::contract::pseudonyms;
use crate::store::{Generation, postgres};

/// Long for servers that recover in a second.
const SOON: Duration = Duration::from_secs(30);

/// A process on a database, with its outbox.
struct Sidecar {
    store: Postgres,
    folder: TempDir,
}

impl Sidecar {
    async fn start(url: &str) -> Sidecar {
        Sidecar::start_in(tempfile::tempdir().unwrap(), url).await
    }

    async fn start_in(folder: TempDir, url: &str) -> Sidecar {
        let process = Process::new(run(), folder.path()).unwrap();
        let store = postgres::open(settings(url), true, pseudonyms(), process, Clock::real()).await;
        let store = store.unwrap_or_else(|refusal| panic!("{refusal}"));
        Sidecar { store, folder }
    }

    /// Ends the process; its folder stays.
    fn end(self) -> TempDir {
        self.folder
    }

    /// Commits the pair number `n` of a user, over the one before.
    async fn commit(&self, of: u64, n: u8) -> Result<Commit, Error> {
        let over = Version {
            generation: Generation(u64::from(n) - 1),
            epoch: 0,
        };
        let lease = Some(LeaseId::fresh());
        self.store.commit(&user(of), record(n), over, lease).await
    }

    /// What stands in the database, once it can be read.
    async fn stands(&self, of: u64) -> Entry {
        let direct = Arc::clone(&self.store.parts.direct);
        loop {
            let standing = direct.entries.standing(&[user(of)]).await;
            match standing {
                Ok(mut standing) => {
                    return standing
                        .pop()
                        .map_or_else(Entry::default, |(_, entry)| entry);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Waits until this pair stands.
    async fn has(&self, of: u64, generation: u64, n: u8) {
        let stands = async {
            loop {
                let entry = self.stands(of).await;
                let is_it = entry.record.as_ref() == Some(&record(n));
                if is_it && entry.generation == Generation(generation) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(SOON, stands).await.is_err() {
            panic!("user {of}: {:?}", self.stands(of).await);
        }
    }

    async fn has_sent_all(&self) {
        let mut waiting = self.store.parts.beside.outbox.waiting();
        let empty = waiting.wait_for(|waiting| *waiting == 0);
        timeout(SOON, empty).await.expect("all is sent").unwrap();
    }
}

fn committed(generation: u64) -> Result<Commit, Error> {
    Ok(Commit::Committed(Generation(generation)))
}

#[tokio::test]
async fn a_commit_while_the_server_stands_still_is_durable_soon() {
    let database = Database::new();
    let network = Forwarder::to(database.server().address());
    let sidecar = Sidecar::start(&database.url_at(&[network.address()])).await;
    assert_eq!(sidecar.commit(1, 1).await, committed(1));
    network.pause();
    let began = Instant::now();
    assert_eq!(sidecar.commit(1, 2).await, committed(2));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(sidecar.store.condition().outbox, 1);
    network.resume();
    sidecar.has_sent_all().await;
    sidecar.has(1, 2, 2).await;
    let loaded = sidecar.store.load(&user(1)).await.unwrap();
    assert_eq!(loaded.generation, Generation(2));
}

#[tokio::test]
async fn the_next_process_sends_what_waits_when_the_server_is_back() {
    let database = Database::new();
    let network = Forwarder::to(database.server().address());
    let url = database.url_at(&[network.address()]);
    let sidecar = Sidecar::start(&url).await;
    sidecar.commit(1, 1).await.unwrap();
    network.cut();
    join_all((1..=50).map(async |of| {
        let n = if of == 1 { 2 } else { 1 };
        assert_eq!(sidecar.commit(of, n).await, committed(n.into()));
    }))
    .await;
    assert_eq!(sidecar.store.condition().outbox, 50);
    let folder = sidecar.end();
    network.resume();
    let sidecar = Sidecar::start_in(folder, &url).await;
    sidecar.has_sent_all().await;
    sidecar.has(1, 2, 2).await;
    for of in 2..=50 {
        sidecar.has(of, 1, 1).await;
    }
}

#[tokio::test]
async fn no_lease_hands_out_the_older_pair_while_the_newer_one_waits() {
    let database = Database::new();
    let sidecar = Sidecar::start(&database.url()).await;
    sidecar.commit(1, 1).await.unwrap();
    // Another transaction has the row for a while: commits wait for it, leases and reads do not.
    let sql = "BEGIN; SELECT FROM entries FOR UPDATE; SELECT pg_sleep(3); COMMIT";
    let holding = async {
        database.sql(sql).await;
    };
    let renewing = async {
        let locked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3)%'
            AND wait_event = 'PgSleep' AND datname = current_database()";
        while database.value(locked).await != "1" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(sidecar.commit(1, 2).await, committed(2));
        let (lease, entry) = sidecar
            .store
            .lease(&user(1), LeaseId::fresh(), Duration::from_secs(15))
            .await
            .unwrap();
        assert_eq!(lease, Lease::Granted { orphaned: false });
        let entry = entry.unwrap();
        assert_eq!(
            (entry.generation, entry.record),
            (Generation(2), Some(record(2)))
        );
        assert_eq!(sidecar.stands(1).await.generation, Generation(1));
    };
    tokio::join!(holding, renewing);
    sidecar.has_sent_all().await;
    sidecar.has(1, 2, 2).await;
}

/// A server that has a standby which lacks what is committed from now on, and the standby.
struct Pair {
    primary: Database,
    standby: servers::Standby,
}

impl Pair {
    async fn start() -> Pair {
        let server = Server::start().await;
        let primary = Database::on(&server);
        let standby = server.standby(Replication::Asynchronous).await;
        Pair { primary, standby }
    }

    fn url(&self) -> String {
        let addresses = [
            self.primary.server().address(),
            self.standby.server().address(),
        ];
        self.primary.url_at(&addresses)
    }

    /// Waits until the standby has all that stands, and keeps from it what comes.
    async fn hold_back(&self) {
        // A standby that has not told yet how far it is has no row, or NULL in it.
        let level = "SELECT count(*) FROM pg_stat_replication
            WHERE replay_lsn >= pg_current_wal_lsn()";
        while self.primary.value(level).await != "1" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.standby.hold_back();
    }

    /// The primary dies, and the standby takes its place.
    async fn fail_over(&self) {
        self.primary.server().kill().await;
        self.standby.promote().await;
    }
}

#[tokio::test]
async fn what_a_standby_lacks_that_takes_over_is_restored_by_its_writers() {
    let pair = Pair::start().await;
    let (one, other) = (
        Sidecar::start(&pair.url()).await,
        Sidecar::start(&pair.url()).await,
    );
    for of in 1..=20 {
        one.commit(of, 1).await.unwrap();
    }
    other.commit(21, 1).await.unwrap();
    pair.hold_back().await;
    join_all((1..=19).map(async |of| assert_eq!(one.commit(of, 2).await, committed(2)))).await;
    // One after the other: the pair received later is that of the second.
    assert_eq!(one.commit(20, 2).await, committed(2));
    assert_eq!(other.commit(20, 3).await, committed(3));
    assert_eq!(one.store.forget(&user(21)).await, Ok(true));
    let anew = Version {
        generation: Generation(1),
        epoch: 1,
    };
    let again = one.store.commit(&user(21), record(4), anew, None).await;
    assert_eq!(again, committed(2));
    assert_eq!(other.store.forget(&user(21)).await, Ok(true));
    assert_eq!(
        one.store.condition().outbox + other.store.condition().outbox,
        0
    );
    pair.fail_over().await;
    for of in 1..=19 {
        one.has(of, 2, 2).await;
    }
    one.has(20, 3, 3).await;
    let forgotten = async {
        while one.stands(21).await.epoch != 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, forgotten).await.expect("it is done again");
    assert_eq!(one.stands(21).await.record, None);
    for sidecar in [&one, &other] {
        let condition = sidecar.store.condition();
        assert!(condition.reasserted > 0, "{condition:?}");
        let doubted = condition.doubted_for.unwrap_or_default();
        assert!(doubted <= Duration::from_secs(15), "{doubted:?}");
    }
    let all: HashMap<u64, u64> = join_all((1..=20).map(async |of| {
        let loaded = other.store.load(&user(of)).await.unwrap();
        (of, loaded.generation.0)
    }))
    .await
    .into_iter()
    .collect();
    assert!(all.values().all(|generation| *generation >= 2), "{all:?}");
}

#[tokio::test]
async fn a_lease_after_a_fail_over_is_given_what_was_lost_or_believes_nothing() {
    let pair = Pair::start().await;
    let sidecar = Sidecar::start(&pair.url()).await;
    sidecar.commit(1, 1).await.unwrap();
    pair.hold_back().await;
    assert_eq!(sidecar.commit(1, 2).await, committed(2));
    pair.fail_over().await;
    // The same one each time: an attempt whose answer is lost may have taken it.
    let id = LeaseId::fresh();
    let leased = async {
        loop {
            let lease = sidecar
                .store
                .lease(&user(1), id, Duration::from_secs(15))
                .await;
            match lease {
                Ok((Lease::Granted { .. }, entry)) => return entry.unwrap(),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let entry = timeout(SOON, leased).await.expect("the standby is found");
    assert_eq!(
        (entry.generation, entry.record),
        (Generation(2), Some(record(2)))
    );
    assert!(sidecar.store.condition().doubted_for.is_some());
    // What is committed on top of it stays, whether it was restored meanwhile or not.
    assert_eq!(sidecar.commit(1, 3).await, committed(3));
    sidecar.has(1, 3, 3).await;
}

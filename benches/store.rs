//! What a token store does by itself, without a proxy before it: PostgreSQL on the same machine beside the
//! embedded engine.
//!
//! ```sh
//! cargo bench --bench store              # PRINCIPALS=100000 CONCURRENT=256
//! ```
//!
//! A renewal is what the store sees of one: a lease with the entry that stands, and a commit on top of it;
//! both durable, each user once a round, in random order. The server runs with PostgreSQL's defaults
//! (`fsync` on), and shares the cores with this program. A sealed pair of a JWT of 1 kB has 1,200 bytes. Needs Debian's
//! postgresql.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use damoov_proxy::clock::{Clock, Timestamp};
use damoov_proxy::principal::{DeviceToken, InstanceId, Principal};
use damoov_proxy::store::postgres::{Password, Settings as Server, Url};
use damoov_proxy::store::{
    Commit, Engine, Entry, Generation, KeyId, Lease, LeaseId, Notes, Opened, Pseudonyms, Record,
    RunId, Settings, Store, open,
};
use futures_util::future::join_all;
use servers::Database;
use tokio::time::Instant;
use uuid::Uuid;

/// A JWT of 1 kB and a RefreshToken, sealed.
const SEALED: usize = 1_200;
const TTL: Duration = Duration::from_secs(15);
/// Renewals of each user.
const ROUNDS: usize = 3;
/// Entries of one call that restores.
const RESTORED_AT_ONCE: usize = 500;
/// Users that are loaded one after the other.
const COLD: usize = 2_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let principals = number("PRINCIPALS", 100_000);
    let concurrent = number("CONCURRENT", 256);
    println!("{principals} principals, {concurrent} callers at once");
    let folder = tempfile::tempdir().expect("a folder");
    measure(
        "SQLite",
        settings(folder.path(), Engine::Embedded),
        principals,
        concurrent,
    )
    .await;

    let server = servers::Server::builder()
        .set("shared_buffers", "128MB")
        .set("max_wal_size", "1GB");
    let database = Database::on(&server.start().await);
    let url = Url::parse(&database.url()).expect("the URL of a test's server");
    let server = Server {
        address: url.address,
        password: Password::Absent,
        ca_file: None,
        connections: 4,
    };
    let folder = tempfile::tempdir().expect("a folder");
    let settings = settings(folder.path(), Engine::Postgres(server));
    measure("PostgreSQL", settings, principals, concurrent).await;
    println!("  bytes a principal, with all indexes:");
    let mut all = 0;
    for table in ["entries", "due", "leases", "feed", "rejections"] {
        let size = format!("SELECT pg_total_relation_size('{table}')");
        let size: usize = database.value(&size).await.parse().expect("a number");
        println!("    {table:<10} {:>6}", size / principals);
        all += size;
    }
    println!("    all        {:>6}", all / principals);
    let hot =
        "SELECT 100 * n_tup_hot_upd / n_tup_upd FROM pg_stat_user_tables WHERE relname = 'entries'";
    println!(
        "  writes that touched no index of entries: {} %",
        database.value(hot).await
    );
}

fn number(name: &str, default: usize) -> usize {
    let set = std::env::var(name).ok().and_then(|set| set.parse().ok());
    set.unwrap_or(default)
}

fn settings(path: &Path, engine: Engine) -> Settings {
    Settings {
        path: path.to_owned(),
        create: true,
        engine,
    }
}

async fn measure(name: &str, settings: Settings, principals: usize, concurrent: usize) {
    println!("{name}");
    let start = async || {
        let began = Instant::now();
        let opened = open(&settings, Pseudonyms::none(), Clock::real())
            .await
            .expect("it opens");
        (opened, began.elapsed())
    };
    let (Opened { store, .. }, empty) = start().await;
    let took = restore(&*store, principals).await;
    println!(
        "  restored          {:>8.0} entries/s",
        rate(principals, took)
    );
    for round in 1..=ROUNDS {
        let took = renew(&store, principals, concurrent).await;
        println!(
            "  round {round}           {:>8.0} renewals/s",
            rate(principals, took)
        );
    }
    let mut loads = Vec::new();
    for n in 0..COLD.min(principals) {
        let began = Instant::now();
        store.load(&user(n)).await.expect("it is read");
        loads.push(began.elapsed());
    }
    loads.sort();
    println!(
        "  a cold user       {:>8} µs",
        loads[loads.len() / 2].as_micros()
    );
    drop(store);
    let (opened, full) = start().await;
    println!(
        "  start             {:>8} ms, empty {} ms",
        full.as_millis(),
        empty.as_millis()
    );
    drop(opened);
}

fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn user(n: usize) -> Principal {
    // Spread as device tokens are.
    let spread = (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let id = Uuid::from_u64_pair(spread, n as u64).to_string();
    Principal::User(DeviceToken::parse(&id).expect("a UUID"))
}

fn record(received: i64) -> Record {
    let mut sealed = vec![0; SEALED];
    fastrand::fill(&mut sealed);
    let instance = InstanceId::parse("11111111-1111-4111-8111-111111111111").expect("a UUID");
    Record {
        instance: Some(instance),
        known: true,
        sealed,
        key: KeyId([1; 4]),
        received: Timestamp::from_millis(received),
        expires: Timestamp::from_millis(received + 86_400_000),
        run: RunId(Uuid::nil()),
    }
}

async fn restore(store: &dyn Store, principals: usize) -> Duration {
    let began = Instant::now();
    for first in (0..principals).step_by(RESTORED_AT_ONCE) {
        let entry = |n| {
            let entry = Entry {
                generation: Generation(1),
                epoch: 0,
                record: Some(record(0)),
                notes: Notes::default(),
            };
            (user(n), entry)
        };
        let entries = (first..principals.min(first + RESTORED_AT_ONCE)).map(entry);
        store
            .restore(entries.collect())
            .await
            .expect("they are restored");
    }
    began.elapsed()
}

/// Renews each user once.
async fn renew(store: &Arc<dyn Store>, principals: usize, concurrent: usize) -> Duration {
    let mut order: Vec<usize> = (0..principals).collect();
    fastrand::shuffle(&mut order);
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    let callers = (0..concurrent).map(async |_| {
        while let Some(n) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            renew_one(&**store, &user(*n)).await;
        }
    });
    join_all(callers).await;
    began.elapsed()
}

async fn renew_one(store: &dyn Store, user: &Principal) {
    let id = LeaseId::fresh();
    let (lease, entry) = store.lease(user, id, TTL).await.expect("it is leased");
    assert_eq!(lease, Lease::Granted { orphaned: false });
    let over = entry.expect("it is read").version();
    let record = record(over.generation.0 as i64);
    let committed = store.commit(user, record, over, Some(id)).await;
    assert_eq!(committed, Ok(Commit::Committed(over.generation.next())));
}

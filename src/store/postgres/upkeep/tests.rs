//! Stores that are opened, watched, and lost from sight, on real servers.

use futures_util::future::{join, join_all};
use servers::{Database, Forwarder, Replication, Server, Stop};
use tokio::time::timeout;

use super::*;
use crate::clock::Clock;
use crate::store::contract::{pseudonyms, run};
use crate::store::postgres::session::Statement;
use crate::store::postgres::{Password, Postgres, Process, Settings, Url, open, view};
use crate::store::{OpenError, ReadOnly, Store};

fn settings(url: &str) -> Settings {
    Settings {
        address: Url::parse(url).unwrap().address,
        password: Password::Absent,
        ca_file: None,
        connections: 2,
    }
}

async fn opened(url: &str) -> Postgres {
    match open(
        settings(url),
        true,
        pseudonyms(),
        Process::patient(run()),
        Clock::real(),
    )
    .await
    {
        Ok(store) => store,
        Err(refusal) => panic!("{refusal}"),
    }
}

/// Why a store is not opened.
async fn refusal(url: &str, create: bool) -> String {
    match open(
        settings(url),
        create,
        pseudonyms(),
        Process::patient(run()),
        Clock::real(),
    )
    .await
    {
        Ok(_) => panic!("it was opened"),
        Err(refusal) => OpenError::from(refusal).to_string(),
    }
}

/// How long until the condition is so.
async fn until(store: &Postgres, is_so: impl Fn(&Condition) -> bool) -> Duration {
    let begun = Instant::now();
    let waiting = async {
        while !is_so(&store.condition()) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = timeout(Duration::from_secs(30), waiting).await;
    assert!(waited.is_ok(), "{:?}", store.condition());
    begun.elapsed()
}

fn is_here(condition: &Condition) -> bool {
    condition.away.is_none()
}

/// Calls until one fails, so that somebody suspects something.
async fn until_a_call_fails(store: &Postgres) {
    while store.count().await.is_ok() {}
}

#[tokio::test]
async fn a_store_that_is_here_says_who_shares_it_and_what_stands_behind_it() {
    let database = Database::new();
    let one = opened(&database.url()).await;
    let condition = one.condition();
    assert_eq!(condition.away, None);
    assert_eq!((condition.processes, condition.shared), (1, true));
    assert_eq!(condition.standby, Some(false));
    assert!(condition.clock_offset.abs() < 1.0);

    let two = opened(&database.url()).await;
    assert_eq!(two.condition().processes, 2);
    // One that was killed 31 s ago, and one that died yesterday.
    database
        .sql(
            "WITH clock AS (SELECT (extract(epoch FROM now()) * 1000)::int8 AS now)
             INSERT INTO sidecars (run, seen)
             SELECT gen_random_uuid(), now - 31000 FROM clock
             UNION ALL SELECT gen_random_uuid(), now - 86401000 FROM clock",
        )
        .await;
    drop(one);
    let three = opened(&database.url()).await;
    assert_eq!(three.condition().processes, 2);
    assert_eq!(database.value("SELECT count(*) FROM sidecars").await, "3");
}

#[tokio::test]
async fn a_synchronous_standby_behind_the_store_is_seen() {
    let server = Server::start().await;
    let _standby = server.standby(Replication::Synchronous).await;
    let database = Database::on(&server);
    let store = opened(&database.url()).await;
    assert_eq!(store.condition().standby, Some(true));
}

#[tokio::test]
async fn a_server_that_restarts_is_missed_and_found_again_within_three_seconds() {
    let server = Server::start().await;
    let database = Database::on(&server);
    let store = opened(&database.url()).await;
    let connected = store.parts.link.connected();
    for how in [Stop::Fast, Stop::Immediate] {
        server.stop(how).await;
        // Nobody calls: an idle connection that ends is enough.
        until(&store, |condition| condition.away.is_some()).await;
        let away = store.condition().away.unwrap();
        assert!(away.why.contains(&server.address().to_string()), "{away:?}");
        server.restart().await;
        let back = until(&store, is_here).await;
        assert!(back < Duration::from_secs(3), "{back:?}");
        store.count().await.unwrap();
    }
    assert!(connected.has_changed().unwrap());
}

#[tokio::test]
async fn a_server_that_is_paused_is_missed_and_found_again() {
    let server = Server::start().await;
    let database = Database::on(&server);
    let store = opened(&database.url()).await;
    server.pause();
    until_a_call_fails(&store).await;
    until(&store, |condition| condition.away.is_some()).await;
    // After a while nobody waits for it any more.
    sleep(Duration::from_secs(2)).await;
    let begun = Instant::now();
    assert!(store.count().await.is_err());
    assert!(begun.elapsed() < Duration::from_millis(200));
    server.resume();
    let back = until(&store, is_here).await;
    assert!(back < Duration::from_secs(3), "{back:?}");
}

#[tokio::test]
async fn a_store_that_takes_no_writes_is_away_although_it_answers() {
    let server = Server::start().await;
    let database = Database::on(&server);
    let store = opened(&database.url()).await;
    server.set_read_only(true).await;
    store.parts.link.suspicion().notify_one();
    while is_here(&store.condition()) {
        // The setting reaches open sessions a moment later.
        sleep(Duration::from_millis(20)).await;
        store.parts.link.suspicion().notify_one();
    }
    let why = store.condition().away.unwrap().why;
    assert!(
        why.contains("read-only") || why.contains("no writes"),
        "{why}"
    );
    server.set_read_only(false).await;
    until(&store, is_here).await;
}

#[tokio::test]
async fn a_store_whose_disk_is_full_is_away_and_still_read() {
    let database = Database::new();
    let store = opened(&database.url()).await;
    database
        .sql(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION 'No space left' USING ERRCODE = '53100'; END $$;
             CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON sidecars
                 EXECUTE FUNCTION full_disk()",
        )
        .await;
    store.parts.link.suspicion().notify_one();
    until(&store, |condition| condition.away.is_some()).await;
    let why = store.condition().away.unwrap().why;
    assert!(why.contains("No space left (SQLSTATE 53100)"), "{why}");
    assert_eq!(store.count().await, Ok(0));
    database.sql("DROP TRIGGER full_disk ON sidecars").await;
    until(&store, is_here).await;
}

#[tokio::test]
async fn a_process_starts_while_the_store_is_away_and_uses_it_once_it_is_back() {
    let server = Server::start().await;
    let database = Database::on(&server);
    server.stop(Stop::Fast).await;
    let store = opened(&database.url()).await;
    assert!(store.condition().away.is_some());
    assert!(matches!(store.count().await, Err(Error::Away(_))));
    server.restart().await;
    let back = until(&store, is_here).await;
    assert!(back < Duration::from_secs(3), "{back:?}");
    assert_eq!(store.count().await, Ok(0));
}

#[tokio::test]
async fn sessions_that_are_terminated_are_no_absence() {
    let database = Database::new();
    let store = opened(&database.url()).await;
    let connected = store.parts.link.connected();
    for _ in 0..3 {
        database.terminate_sessions().await;
        while store.count().await.is_err() {}
    }
    until(&store, is_here).await;
    assert!(!connected.has_changed().unwrap());
}

#[tokio::test]
async fn a_store_whose_connections_are_all_in_use_is_busy_and_not_away() {
    let database = Database::new();
    let store = opened(&database.url()).await;
    let link = &store.parts.link;
    // 4 s of work for two connections: who comes last finds none in time, as a look does.
    let sleeps = (0..40).map(|_| {
        let sleep = Statement {
            sql: "SELECT pg_sleep(0.2)",
            parameters: &[],
        };
        async move { link.write([sleep]).await }
    });
    link.suspicion().notify_one();
    // Longer than a look may take, which finds no connection.
    let watching = timeout(
        Duration::from_millis(2_500),
        until(&store, |condition| condition.away.is_some()),
    );
    let (slept, away) = join(join_all(sleeps), watching).await;
    assert!(slept.iter().any(Result::is_err));
    assert!(slept.iter().any(Result::is_ok));
    assert!(away.is_err(), "it was away");
}

#[tokio::test]
async fn a_cut_network_is_an_absence_that_ends_with_the_cut() {
    let database = Database::new();
    let forwarder = Forwarder::to(database.server().address());
    let store = opened(&database.url_at(&[forwarder.address()])).await;
    let connected = store.parts.link.connected();
    forwarder.cut();
    until(&store, |condition| condition.away.is_some()).await;
    forwarder.resume();
    let back = until(&store, is_here).await;
    assert!(back < Duration::from_secs(3), "{back:?}");
    // It is counted before any call gets a session.
    store.count().await.unwrap();
    assert!(connected.has_changed().unwrap());
}

#[tokio::test]
async fn what_will_not_change_by_itself_is_refused_at_the_start() {
    let database = Database::new();
    let absent = refusal(&database.url(), false).await;
    assert!(absent.contains("`[store] create` is false"), "{absent}");
    drop(opened(&database.url()).await);
    assert!(
        open(
            settings(&database.url()),
            false,
            pseudonyms(),
            Process::patient(run()),
            Clock::real()
        )
        .await
        .is_ok()
    );
    database.sql("UPDATE meta SET format = 99").await;
    let newer = refusal(&database.url(), true).await;
    assert!(newer.contains("format 99"), "{newer}");

    let server = Server::builder().set("fsync", "off").start().await;
    let unsafe_server = refusal(&Database::on(&server).url(), true).await;
    assert!(unsafe_server.contains("`fsync` is off"), "{unsafe_server}");
}

#[tokio::test]
async fn tables_that_vanish_are_not_made_again() {
    let database = Database::new();
    let store = opened(&database.url()).await;
    database
        .sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        .await;
    until_a_call_fails(&store).await;
    until(&store, |condition| {
        let away = condition.away.as_ref();
        away.is_some_and(|away| away.why.contains("there is no store"))
    })
    .await;
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(database.value(tables).await, "0");
}

#[tokio::test]
async fn a_view_changes_nothing_and_says_what_is_there() {
    let database = Database::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let seen = async |create| {
        view(
            path,
            settings(&database.url()),
            create,
            pseudonyms(),
            Clock::real(),
        )
        .await
    };
    assert!(matches!(seen(true).await, Ok(None)));
    assert!(seen(false).await.is_err());
    drop(opened(&database.url()).await);
    let view = seen(true).await.ok().flatten().unwrap();
    assert_eq!(view.count().await, Ok(0));
    assert_eq!(view.condition().standby, Some(false));
    assert_eq!(database.value("SELECT count(*) FROM sidecars").await, "0");
    let nobody = "postgres://postgres@127.0.0.1:1/none";
    let away = super::super::view(path, settings(nobody), true, pseudonyms(), Clock::real()).await;
    let away = away.map_err(OpenError::from);
    assert!(matches!(away, Err(OpenError::Away(_))));
}

#[tokio::test]
async fn a_role_that_owns_one_schema_is_enough() {
    let database = Database::new();
    let role = database.role("unused").await;
    let url = servers::url(&role.name, &[database.server().address()], database.name());
    let store = opened(&url).await;
    assert_eq!(store.count().await, Ok(0));
    let owned = "SELECT count(*) FROM pg_tables WHERE tablename = 'sidecars'";
    assert_eq!(
        database
            .value(&format!("{owned} AND schemaname = '{}'", role.name))
            .await,
        "1"
    );
}

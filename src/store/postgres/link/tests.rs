//! The link on real servers: what crosses the wire, and what does not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use futures_util::future::join_all;
use servers::{Authority, Database, Forwarder, Pgbouncer, Replication, Server, Stop};
use tokio_postgres::types::Type;

use super::*;
use crate::store::postgres::session::Statement;
use crate::store::postgres::{Password, Url};

fn settings(url: &str) -> Settings {
    let url = Url::parse(url).unwrap();
    Settings {
        address: url.address,
        password: url.password.map_or(Password::Absent, Password::Given),
        ca_file: None,
        connections: 2,
    }
}

fn link(url: &str) -> Link {
    Link::new(settings(url), Clock::real()).unwrap()
}

async fn text(link: &Link, sql: &'static str) -> Result<String, Error> {
    let rows = link.read(sql, []).await?;
    Ok(rows[0].get(0))
}

/// What a call is told of a store that is not reached.
fn away<T>(outcome: Result<T, Error>) -> String {
    match outcome {
        Err(Error::Away(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was reached"),
    }
}

/// Calls until `call` says that it is so, with pauses that leave the machine to the servers.
async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    while !is_so().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const PID: &str = "SELECT pg_backend_pid()::text";
const DATABASE: &str = "SELECT current_database()::text";
const INSERT: &str = "INSERT INTO kept VALUES ($1)";

async fn insert(link: &Link, number: i32) -> Result<(), Error> {
    let parameters = [(&number as _, Type::INT4)];
    let statement = Statement {
        sql: INSERT,
        parameters: &parameters,
    };
    link.write([statement]).await.map(drop)
}

#[tokio::test]
async fn a_connection_is_made_once_and_used_again() {
    let database = Database::new();
    let link = link(&database.socket_url());
    let first = text(&link, PID).await.unwrap();
    for _ in 0..5 {
        assert_eq!(text(&link, PID).await.unwrap(), first);
    }
    assert_eq!(text(&link, DATABASE).await.unwrap(), database.name());
}

#[tokio::test]
async fn many_calls_share_a_few_connections_in_turn() {
    let database = Database::new();
    let link = link(&database.url());
    let calls = (0..40).map(|_| text(&link, PID));
    let mut pids: Vec<_> = join_all(calls)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 2);
}

#[tokio::test]
async fn a_call_that_finds_no_free_connection_is_told_so_in_time() {
    let database = Database::new();
    let link = link(&database.url());
    let _held = [link.session().await.unwrap(), link.session().await.unwrap()];
    let why = away(link.session_within(Duration::from_millis(100)).await);
    assert_eq!(why, "no connection was free in time");
}

#[tokio::test]
async fn nothing_is_prepared_under_a_name_and_no_session_keeps_state() {
    let database = Database::new();
    database.sql("CREATE TABLE kept (number int)").await;
    let pooler = Pgbouncer::before(database.server(), 1);
    let one = link(&database.url_at(&[pooler.address()]));
    let two = link(&database.url_at(&[pooler.address()]));
    let calls = (0..50).map(|number| insert(if number % 2 == 0 { &one } else { &two }, number));
    for done in join_all(calls).await {
        done.unwrap();
    }
    assert_eq!(database.value("SELECT count(*) FROM kept").await, "50");
    let named = "SELECT count(*)::text FROM pg_prepared_statements WHERE name <> ''";
    assert_eq!(text(&one, named).await.unwrap(), "0");
    let timeout = "SELECT current_setting('lock_timeout')";
    assert_eq!(text(&one, timeout).await.unwrap(), "0");
}

#[tokio::test]
async fn a_transaction_is_durable_whatever_the_role_has_set() {
    let database = Database::new();
    database
        .sql(&format!(
            "ALTER DATABASE {name} SET synchronous_commit = off;
             ALTER DATABASE {name} SET statement_timeout = 1000;
             ALTER DATABASE {name} SET default_transaction_isolation = serializable",
            name = database.name()
        ))
        .await;
    let link = link(&database.url());
    let seen = Statement {
        sql: "SELECT concat_ws(' ', current_setting('synchronous_commit'), \
              current_setting('statement_timeout'), current_setting('transaction_isolation'))",
        parameters: &[],
    };
    let [rows] = link.write([seen]).await.unwrap();
    assert_eq!(rows[0].get::<_, &str>(0), "on 0 read committed");
}

#[tokio::test]
async fn what_a_server_refuses_leaves_the_connection_usable() {
    let database = Database::new();
    let link = link(&database.url());
    let pid = text(&link, PID).await.unwrap();
    let missing = insert(&link, 1).await.unwrap_err();
    assert!(matches!(missing, Error::Unwritable(why) if why.contains("42P01")));
    let missing = link.read("SELECT * FROM kept", []).await.unwrap_err();
    assert!(matches!(missing, Error::Unreadable(why) if why.contains("42P01")));
    assert_eq!(text(&link, PID).await.unwrap(), pid);
}

#[tokio::test]
async fn a_commit_whose_wait_for_a_standby_is_cancelled_is_no_success() {
    let server = Server::start().await;
    let database = Database::on(&server);
    database.sql("CREATE TABLE kept (number int)").await;
    server.set("synchronous_standby_names", "nobody").await;
    let link = link(&database.url());
    let committing = tokio::spawn({
        let link = link.clone();
        async move { insert(&link, 1).await }
    });
    let waiting = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity \
                   WHERE wait_event = 'SyncRep' AND application_name = 'damoov-proxy'";
    until(async || database.value(waiting).await != "0").await;
    let why = away(committing.await.unwrap());
    assert!(why.contains("warning"), "{why}");
    // It was done: that is why the answer is neither success nor failure.
    assert_eq!(database.value("SELECT count(*) FROM kept").await, "1");
}

#[tokio::test]
async fn past_its_deadline_a_call_is_dropped_and_nothing_is_cancelled() {
    let server = Server::start().await;
    let database = Database::on(&server);
    database.sql("CREATE TABLE kept (number int)").await;
    let link = link(&database.url());
    insert(&link, 1).await.unwrap();
    server.pause();
    let begun = Instant::now();
    away(insert(&link, 2).await);
    let took = begun.elapsed();
    server.resume();
    assert!(
        took >= CALL_DEADLINE && took < CALL_DEADLINE * 2,
        "{took:?}"
    );
    until(async || insert(&link, 3).await.is_ok()).await;
    // The second one may have been done, or not.
    let kept = "SELECT count(*) FROM kept WHERE number <> 2";
    assert_eq!(database.value(kept).await, "2");
    assert!(!server.log().contains("cancel"));
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_closes_its_connection() {
    let database = Database::new();
    let link = link(&database.url());
    let pid = text(&link, PID).await.unwrap();
    let slept = tokio::time::timeout(
        Duration::from_millis(50),
        text(&link, "SELECT pg_sleep(1)::text"),
    );
    assert!(slept.await.is_err());
    assert_ne!(text(&link, PID).await.unwrap(), pid);
}

#[tokio::test]
async fn of_several_servers_the_one_that_takes_writes_is_used() {
    let primary = Server::start().await;
    let standby = primary.standby(Replication::Synchronous).await;
    let database = Database::on(&primary);
    // A port that nobody listens on.
    let nobody = "127.0.0.1:1".parse().unwrap();
    let addresses = [nobody, standby.server().address(), primary.address()];
    let link = link(&database.url_at(&addresses));
    let writes = "SELECT pg_is_in_recovery()::text";
    assert_eq!(text(&link, writes).await.unwrap(), "false");
    let mut connected = link.connected();
    assert_eq!(*connected.borrow_and_update(), None);

    primary.kill().await;
    standby.promote().await;
    until(async || text(&link, writes).await.is_ok()).await;
    assert_eq!(text(&link, writes).await.unwrap(), "false");
    // Another server: what was acknowledged may be gone.
    assert!(connected.has_changed().unwrap());
}

#[tokio::test]
async fn a_server_that_became_read_only_is_left_at_once() {
    let server = Server::start().await;
    let database = Database::on(&server);
    database.sql("CREATE TABLE kept (number int)").await;
    let link = link(&database.url());
    insert(&link, 1).await.unwrap();
    server.set_read_only(true).await;
    // The setting reaches open sessions a moment later.
    until(async || insert(&link, 2).await.is_err()).await;
    let why = away(text(&link, PID).await);
    assert!(why.contains("it takes no writes"), "{why}");
    server.set_read_only(false).await;
    until(async || insert(&link, 3).await.is_ok()).await;
}

#[tokio::test]
async fn a_server_that_restarted_is_counted_as_another() {
    let server = Server::start().await;
    let database = Database::on(&server);
    let link = link(&database.url());
    let connected = link.connected();
    text(&link, PID).await.unwrap();
    database.terminate_sessions().await;
    until(async || text(&link, PID).await.is_ok()).await;
    assert!(!connected.has_changed().unwrap(), "the same server");
    server.stop(Stop::Fast).await;
    server.restart().await;
    until(async || text(&link, PID).await.is_ok()).await;
    assert!(connected.has_changed().unwrap());
}

#[tokio::test]
async fn a_server_that_is_cut_off_costs_no_call_more_than_its_deadline() {
    let database = Database::new();
    let forwarder = Forwarder::to(database.server().address());
    let link = link(&database.url_at(&[forwarder.address()]));
    text(&link, PID).await.unwrap();
    forwarder.pause();
    for _ in 0..2 {
        let begun = Instant::now();
        away(text(&link, PID).await);
        assert!(begun.elapsed() < CALL_DEADLINE * 2);
    }
    forwarder.resume();
    until(async || text(&link, PID).await.is_ok()).await;
}

#[tokio::test]
async fn a_password_that_was_replaced_is_read_again() {
    let server = Server::builder().passwords().start().await;
    let database = Database::on(&server);
    let mut role = database.role("first").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    write_password(&file, "first");
    let mut settings = settings(&servers::url(
        &role.name,
        &[server.address()],
        database.name(),
    ));
    settings.password = Password::In(file.clone());
    let link = Link::new(settings, Clock::real()).unwrap();
    assert_eq!(text(&link, DATABASE).await.unwrap(), database.name());

    database.change_password(&mut role, "second").await;
    database.terminate_sessions().await;
    until(async || away(text(&link, DATABASE).await).contains("password")).await;
    write_password(&file, "second");
    assert_eq!(text(&link, DATABASE).await.unwrap(), database.name());
    fs::remove_file(&file).unwrap();
    database.terminate_sessions().await;
    until(async || away(text(&link, DATABASE).await).contains("cannot be read")).await;
}

fn write_password(file: &Path, password: &str) {
    fs::write(file, format!("{password}\n")).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn over_tls_certificate_and_name_are_verified() {
    let authority = Authority::new();
    let server = Server::builder().tls(&authority).start().await;
    let database = Database::on(&server);
    let role = database.role("s:ecret").await;
    let port = server.address().port();
    let url = |host: &str| {
        let (role, database) = (&role.name, database.name());
        format!("postgres://{role}:s%3Aecret@{host}:{port}/{database}?sslmode=verify-full")
    };
    let over_tls = |host: &str, authority: Option<&Authority>| {
        let mut settings = settings(&url(host));
        settings.ca_file = authority.map(|authority| authority.file().to_owned());
        Link::new(settings, Clock::real()).unwrap()
    };
    let ssl = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    for host in ["localhost", "127.0.0.1"] {
        let link = over_tls(host, Some(&authority));
        assert!(text(&link, ssl).await.unwrap().starts_with("TLSv1"));
    }
    for stranger in [None, Some(Authority::new())] {
        let why = away(text(&over_tls("localhost", stranger.as_ref()), ssl).await);
        assert!(why.contains("certificate"), "{why}");
    }
    // Another name of the same machine, which the certificate does not hold.
    let why = away(text(&over_tls("127.0.0.2", Some(&authority)), ssl).await);
    assert!(why.contains("127.0.0.2"), "{why}");
}

#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to_where_tls_is_asked_for() {
    let database = Database::new();
    let url = format!("{}?sslmode=require", database.url());
    let why = away(text(&link(&url), PID).await);
    assert!(why.contains("does not support TLS"), "{why}");
}

#[tokio::test]
async fn the_servers_clock_is_known_after_the_first_connection() {
    let database = Database::new();
    let link = link(&database.url());
    text(&link, PID).await.unwrap();
    assert!(link.time.offset().abs() < 0.1, "{}", link.time.offset());
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let ahead = link.time.wall().as_millis() - i64::try_from(now.as_millis()).unwrap();
    assert!(ahead.abs() < 100, "{ahead} ms");
}

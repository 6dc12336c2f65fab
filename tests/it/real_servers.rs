//! The servers that other tests start do what those tests rely on.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use servers::{
    At, Authority, Database, Forwarder, Part, Pgbouncer, Replication, Server, Stop, url,
};
use tokio::time::timeout;
use tokio_postgres::{Client, Error, NoTls};

use crate::harness::eventually;

/// A session that ends with its connection.
async fn session(url: &str) -> Result<Client, Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A database with one table, of one column.
async fn with_table(server: &Server) -> Database {
    let database = Database::on(server);
    database.sql("CREATE TABLE numbers (number int)").await;
    database
}

async fn count(database: &Database) -> String {
    database.value("SELECT count(*) FROM numbers").await
}

const INSERT: &str = "INSERT INTO numbers VALUES (1)";

#[tokio::test]
async fn each_database_is_empty_and_is_reached_in_every_way() {
    let (one, other) = (Database::new(), Database::new());
    one.sql("CREATE TABLE numbers (number int)").await;
    assert!(other.server().try_sql(other.name(), INSERT).await.is_err());
    let pooler = Pgbouncer::before(one.server(), 2);
    let forwarder = Forwarder::to(one.server().address());
    for url in [
        one.url(),
        one.socket_url(),
        one.url_at(&[pooler.address()]),
        one.url_at(&[forwarder.address()]),
    ] {
        let client = session(&url).await.unwrap();
        client.batch_execute(INSERT).await.unwrap();
    }
    assert_eq!(count(&one).await, "4");
    assert_eq!(one.value("SHOW fsync").await, "on");
}

#[tokio::test]
async fn what_was_committed_is_there_after_every_kind_of_end() {
    let server = Server::start().await;
    let database = with_table(&server).await;
    for round in 1..=3 {
        database.sql(INSERT).await;
        match round {
            1 => server.kill().await,
            2 => server.stop(Stop::Immediate).await,
            _ => server.stop(Stop::Fast).await,
        }
        assert!(session(&database.url()).await.is_err());
        server.restart().await;
        assert_eq!(count(&database).await, round.to_string());
    }
}

#[tokio::test]
async fn a_paused_server_is_silent_and_then_goes_on() {
    let server = Server::start().await;
    let database = with_table(&server).await;
    let client = session(&database.url()).await.unwrap();
    server.pause();
    let silent = timeout(Duration::from_millis(300), client.batch_execute(INSERT)).await;
    assert!(silent.is_err());
    server.resume();
    eventually("inserted", async || count(&database).await == "1").await;
}

#[tokio::test]
async fn a_synchronous_standby_has_what_was_acknowledged() {
    let server = Server::start().await;
    let database = with_table(&server).await;
    let standby = server.standby(Replication::Synchronous).await;
    let client = session(&database.url()).await.unwrap();
    client.batch_execute(INSERT).await.unwrap();
    standby.hold_back();
    let waits = timeout(Duration::from_millis(300), client.batch_execute(INSERT)).await;
    assert!(
        waits.is_err(),
        "nothing is acknowledged that the standby lacks"
    );
    server.kill().await;
    standby.promote().await;
    let url = url("postgres", &[standby.server().address()], database.name());
    let promoted = session(&url).await.unwrap();
    promoted.batch_execute(INSERT).await.unwrap();
    let rows = standby.server().sql(database.name(), "TABLE numbers").await;
    assert_eq!(rows.len(), 2);
}

#[tokio::test]
async fn an_asynchronous_standby_lacks_what_was_held_back() {
    let server = Server::start().await;
    let database = with_table(&server).await;
    let standby = server.standby(Replication::Asynchronous).await;
    let there = async || {
        let rows = standby.server().try_sql(database.name(), "TABLE numbers");
        rows.await.map_or(0, |rows| rows.len())
    };
    database.sql(INSERT).await;
    eventually("it follows", async || there().await == 1).await;
    standby.hold_back();
    database.sql(INSERT).await;
    server.kill().await;
    standby.promote().await;
    assert_eq!(there().await, 1);
}

#[tokio::test]
async fn a_server_refuses_what_it_was_told_to() {
    let server = Server::start().await;
    let database = with_table(&server).await;
    let client = session(&database.url()).await.unwrap();
    server.set_read_only(true).await;
    eventually("refused", async || {
        client.batch_execute(INSERT).await.is_err()
    })
    .await;
    server.set_read_only(false).await;
    eventually("taken", async || client.batch_execute(INSERT).await.is_ok()).await;
    database.terminate_sessions().await;
    assert!(client.batch_execute(INSERT).await.is_err());
}

#[tokio::test]
async fn a_role_owns_its_schema_and_needs_its_password() {
    let server = Server::builder().passwords().start().await;
    let database = Database::on(&server);
    let mut role = database.role("first").await;
    let url = |password: &str| {
        let role = format!("{}:{password}", role.name);
        url(&role, &[server.address()], database.name())
    };
    let client = session(&url("first")).await.unwrap();
    client.batch_execute("CREATE TABLE mine ()").await.unwrap();
    let others = client.batch_execute("CREATE TABLE public.others ()").await;
    assert!(others.is_err());
    let (first, second) = (url("first"), url("second"));
    database.change_password(&mut role, "second").await;
    assert!(session(&first).await.is_err());
    session(&second).await.unwrap();
}

#[tokio::test]
async fn a_server_with_tls_speaks_nothing_else() {
    let authority = Authority::new();
    let server = Server::builder().tls(&authority).start().await;
    let database = Database::on(&server);
    let role = database.role("secret").await;
    let role = format!("{}:secret", role.name);
    let plain = url(&role, &[server.address()], database.name());
    assert!(session(&plain).await.is_err());
    let mut openssl = Command::new("openssl");
    openssl
        .args(["s_client", "-starttls", "postgres", "-verify_return_error"])
        .args(["-verify_hostname", "localhost", "-connect"])
        .arg(server.address().to_string())
        .arg("-CAfile")
        .arg(authority.file())
        .stdin(Stdio::null());
    let (code, said) = crate::harness::said(openssl).await;
    assert_eq!(code, Some(0), "{said}");
}

/// The database is the shared server's: what a forwarder does concerns its own connections alone.
async fn through(forwarder: &Forwarder, database: &Database) -> Client {
    let url = database.url_at(&[forwarder.address()]);
    session(&url).await.unwrap()
}

#[tokio::test]
async fn a_lost_answer_is_the_one_that_was_meant_and_what_it_answered_is_done() {
    let database = with_table(Database::new().server()).await;
    let forwarder = Forwarder::to(database.server().address());
    let other = through(&forwarder, &database).await;
    let client = through(&forwarder, &database).await;
    let loss = forwarder.lose(Part::Answer, At::Statement(INSERT.to_owned()));
    client.batch_execute("SELECT 1").await.unwrap();
    let lost = client.query_typed(INSERT, &[]).await;
    assert!(lost.unwrap_err().is_closed());
    loss.happened().await;
    assert_eq!(count(&database).await, "1");
    other.batch_execute(INSERT).await.unwrap();
    assert_eq!(count(&database).await, "2");
}

#[tokio::test]
async fn a_lost_request_is_not_done() {
    let database = with_table(Database::new().server()).await;
    let forwarder = Forwarder::to(database.server().address());
    let client = through(&forwarder, &database).await;
    let loss = forwarder.lose(Part::Request, At::Statement(INSERT.to_owned()));
    assert!(client.batch_execute(INSERT).await.is_err());
    loss.happened().await;
    assert_eq!(count(&database).await, "0");
}

#[tokio::test]
async fn the_answer_to_a_commit_is_lost_of_the_transaction_that_was_meant() {
    let database = with_table(Database::new().server()).await;
    let forwarder = Forwarder::to(database.server().address());
    let client = through(&forwarder, &database).await;
    let loss = forwarder.lose(Part::Answer, At::CommitOf(INSERT.to_owned()));
    for statement in ["BEGIN", "SELECT 1", "COMMIT", "BEGIN", INSERT] {
        client.batch_execute(statement).await.unwrap();
    }
    assert!(client.batch_execute("COMMIT").await.is_err());
    loss.happened().await;
    assert_eq!(count(&database).await, "1");
}

#[tokio::test]
async fn a_network_is_cut_is_silent_is_slow_and_comes_back() {
    let database = with_table(Database::new().server()).await;
    let forwarder = Forwarder::to(database.server().address());
    let client = through(&forwarder, &database).await;
    forwarder.pause();
    let silent = timeout(Duration::from_millis(200), client.batch_execute(INSERT)).await;
    assert!(silent.is_err());
    assert_eq!(count(&database).await, "0");
    forwarder.resume();
    client.batch_execute(INSERT).await.unwrap();
    assert_eq!(count(&database).await, "2");

    forwarder.delay(Duration::from_millis(100));
    let quick = timeout(Duration::from_millis(150), client.batch_execute(INSERT)).await;
    assert!(quick.is_err(), "both directions are delayed");

    forwarder.cut();
    assert!(client.batch_execute(INSERT).await.is_err());
    let refused = tokio::net::TcpStream::connect(forwarder.address()).await;
    assert!(refused.is_err());
    forwarder.resume();
    through(&forwarder, &database).await;
}

const PART: &str = "SERVERS_TEST_PART";

/// No test of its own: what a child process does, until it is killed.
#[tokio::test]
#[expect(clippy::print_stdout, reason = "the parent reads it")]
async fn the_part_of_a_child() {
    if std::env::var(PART).is_err() {
        return;
    }
    let database = Database::new();
    let paused = Server::start().await;
    paused.pause();
    let folder = database.server().socket().parent().unwrap();
    println!("\nsays {}", folder.display());
    println!("says {}", database.server().address());
    std::future::pending().await
}

#[tokio::test]
async fn no_server_survives_a_test_binary_that_is_killed() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            "--test-threads=1",
            "real_servers::the_part_of_a_child",
        ])
        .env(PART, "serve")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut says = std::io::BufRead::lines(stdout)
        .map_while(Result::ok)
        .filter_map(|line| Some(line.strip_prefix("says ")?.to_owned()));
    let folder = says.next().unwrap();
    let address: SocketAddr = says.next().unwrap().parse().unwrap();
    assert!(fs::exists(&folder).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("everything is gone", async || {
        !fs::exists(&folder).unwrap() && std::net::TcpStream::connect(address).is_err()
    })
    .await;
}

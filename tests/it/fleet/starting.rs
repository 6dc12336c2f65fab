//! Sidecars that start while the database is away, or with a key that is not the store's: they serve whom
//! they can, say what is wrong, and heal.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use damoov_proxy::simulator::Simulator;
use servers::{Database, Server, Stop};

use crate::harness::{Builder, SCORES, damoov, eventually, proxy, user};

/// A sidecar on this database, with the key of this number.
fn sidecar(damoov: &Simulator, url: &str, key: u8) -> Builder {
    proxy(damoov)
        .set("store.url", url)
        .set("store.key", &BASE64_STANDARD.encode([key; 32]))
        .set("login_budget.logins", "1000")
}

fn logins(damoov: &Simulator) -> u64 {
    damoov.handle().counts().total.logins.all()
}

#[tokio::test]
async fn a_sidecar_starts_without_its_database_and_serves_once_it_is_there() {
    let damoov = damoov().await;
    let server = Server::start().await;
    let database = Database::on(&server);
    server.stop(Stop::Fast).await;
    let mut sidecar = sidecar(&damoov, &database.url(), 1).start().await;
    let ready = sidecar.status("/readyz").await;
    assert_eq!(ready.status, 200, "{}", ready.text());
    assert!(ready.text().contains("store_away"), "{}", ready.text());
    let refused = sidecar.get(1, SCORES).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (503, "store_unavailable")
    );
    assert_eq!(logins(&damoov), 0);

    server.restart().await;
    eventually("the store is back", async || {
        !sidecar
            .status("/readyz")
            .await
            .text()
            .contains("store_away")
    })
    .await;
    let served = sidecar.get(1, SCORES).await;
    assert_eq!(served.status, 200, "{}", served.text());
    assert_eq!(served.served_as(), user(1).to_string());
    sidecar.has_logged("the store is back").await;
    assert!(sidecar.terminate().await.success());
    assert_eq!(database.value("SELECT count(*) FROM sidecars").await, "0");
}

#[tokio::test]
async fn a_sidecar_with_another_key_refuses_only_whom_it_cannot_open() {
    let damoov = damoov().await;
    let database = Database::new();
    let first = sidecar(&damoov, &database.url(), 1).start().await;
    assert_eq!(first.get(1, SCORES).await.status, 200);
    let canary = "SELECT encode(canary, 'hex') FROM meta";
    let stands = database.value(canary).await;
    assert!(!stands.is_empty());

    let other = sidecar(&damoov, &database.url(), 2).start().await;
    other.has_logged("sealed with another key").await;
    let refused = other.get(1, SCORES).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (503, "store_unavailable")
    );
    assert_eq!(other.status("/readyz").await.status, 200);
    assert_eq!(logins(&damoov), 1);
    assert_eq!(other.get(2, SCORES).await.status, 200);
    assert_eq!(logins(&damoov), 2);
    assert_eq!(first.get(1, SCORES).await.status, 200);
    assert_eq!(database.value(canary).await, stands);
}

#[tokio::test]
async fn what_a_store_on_postgres_is_refused_for_is_exit_code_78() {
    let damoov = damoov().await;
    let database = Database::new();
    let closed = sidecar(&damoov, &database.url(), 1)
        .set("store.create", "false")
        .stopped_here();
    for command in ["run", "check"] {
        let (code, said) = closed.run(command).await;
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("`[store] create` is false"), "{said}");
    }
    drop(sidecar(&damoov, &database.url(), 1).start().await);
    database.sql("UPDATE meta SET format = 99").await;
    let (code, said) = closed.run("run").await;
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("format 99"), "{said}");
}

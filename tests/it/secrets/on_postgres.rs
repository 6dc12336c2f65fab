//! The same for a store on PostgreSQL: its password, what the database holds, and the outbox.

use std::fs;

use damoov_proxy::simulator::{Action, Delay, Fault, On};
use servers::{Database, Forwarder, Server, url};

use super::needles::{absent, files_below, forms};
use super::tap::Tap;
use super::{INSTANCE_KEY, STORE_KEY, said, shown};
use crate::harness::{ECHO, captured, damoov_with, eventually, principal, proxy, user};

const DATABASE_PASSWORD: &str = "canary-database-password/+%ends";

#[tokio::test]
async fn no_secret_is_in_a_database_or_an_outbox_nor_the_password_in_any_output() {
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        INSTANCE_KEY.clone_into(&mut settings.instances[0].key);
    })
    .await;
    let tap = Tap::before(&damoov).await;
    let server = Server::builder().passwords().start().await;
    let database = Database::on(&server);
    let role = database.role(DATABASE_PASSWORD).await;
    let network = Forwarder::to(server.address());
    let store = url(&role.name, &[network.address()], database.name());
    let mut proxy = proxy(&damoov)
        .redirect("user.telematicssdk.com", &tap.url)
        .set("instance.0.key.env", "CANARY_INSTANCE_KEY")
        .env("CANARY_INSTANCE_KEY", INSTANCE_KEY)
        .set("store.key.env", "CANARY_STORE_KEY")
        .env("CANARY_STORE_KEY", STORE_KEY)
        .set("login_budget.logins", "1000")
        .set("store.url", &store)
        .set("store.password.env", "CANARY_DATABASE_PASSWORD")
        .env("CANARY_DATABASE_PASSWORD", DATABASE_PASSWORD)
        .env("DAMOOV_PROXY_LOG", "trace")
        .start()
        .await;

    // Logins, refreshes, a connection that is lost.
    let mut texts = Vec::new();
    let mut ask = async |n| {
        let answer = proxy.get(n, ECHO).await;
        assert_eq!(answer.status, 200, "{n}: {}", answer.text());
        texts.push(shown(&answer));
    };
    for n in 0..4 {
        ask(n).await;
    }
    for n in 1..4 {
        damoov.handle().expire(Some(&principal(n)));
        ask(n).await;
    }
    database.terminate_sessions().await;
    damoov.handle().expire(Some(&principal(1)));
    ask(1).await;

    // A pair that arrives while the database does not answer.
    let slow = Fault::new(On::Refresh, Action::Delay(Delay::Millis(1_000)));
    damoov.handle().expire(Some(&principal(0)));
    damoov.handle().add_fault(slow.of(principal(0)).times(1));
    let arrives = eventually("the refresh is under way", async || {
        damoov.handle().counts_of(&principal(0)).refreshes_at_once == 1
    });
    let silent = async {
        arrives.await;
        network.pause();
    };
    tokio::join!(ask(0), silent);
    let outbox = files_below(proxy.store());
    let waiting = outbox.iter().any(|file| file.ends_with("outbox.db"));
    assert!(waiting, "no outbox among {outbox:?}");
    let mut files: Vec<_> = outbox.iter().map(|file| fs::read(file).unwrap()).collect();
    let told = principal(0).to_string();
    let tells = |file: &Vec<u8>| String::from_utf8_lossy(file).contains(&told);
    assert!(files.iter().any(tells), "the outbox does not hold the pair");
    network.resume();
    let generation = format!(
        "SELECT coalesce(max(generation), 0) FROM {}.entries WHERE principal = '{}'",
        role.name, told
    );
    eventually("the pair is in the database", async || {
        database.value(&generation).await == "2"
    })
    .await;

    let device = user(0).to_string();
    for command in [&format!("tokens show {device}"), "tokens list", "check"] {
        let output = captured(proxy.command(command)).await;
        assert_eq!(output.status.code(), Some(0), "{command}: {output:?}");
        texts.push(said(&output));
    }
    texts.push(shown(&proxy.status("/metrics").await));
    assert!(proxy.terminate().await.success());
    texts.push(proxy.log());
    files.extend(
        files_below(proxy.store())
            .iter()
            .map(|file| fs::read(file).unwrap()),
    );
    let dumped = dumped(&database, &role.name).await;
    assert!(dumped.iter().any(tells), "the database does not hold it");
    files.extend(dumped);

    let mut secrets = tap.tokens();
    assert!(secrets.len() > 15, "only {} tokens issued", secrets.len());
    secrets.extend([INSTANCE_KEY, STORE_KEY, DATABASE_PASSWORD].map(str::to_owned));
    let needles: Vec<_> = secrets.iter().flat_map(|secret| forms(secret)).collect();
    for text in &texts {
        absent(&needles, text.as_bytes(), text);
    }
    for file in &files {
        absent(&needles, file, "a file, or a table");
    }
}

/// Every row of every table of `schema`: as text, and the bytes that stand in it in hex.
async fn dumped(database: &Database, schema: &str) -> Vec<Vec<u8>> {
    let tables = format!("SELECT tablename FROM pg_tables WHERE schemaname = '{schema}'");
    let mut dumped = Vec::new();
    for table in database.sql(&tables).await.concat() {
        let rows = format!("SELECT one::text FROM {schema}.{table} one");
        for row in database.sql(&rows).await.concat() {
            let binary = row.split("\\x").skip(1).map(|hex| {
                let hex = hex.as_bytes().chunks_exact(2).map_while(|pair| {
                    let pair = str::from_utf8(pair).ok()?;
                    u8::from_str_radix(pair, 16).ok()
                });
                hex.collect::<Vec<u8>>()
            });
            dumped.extend(binary);
            dumped.push(row.into_bytes());
        }
    }
    dumped
}

//! Replacing the store's key: a pair whose key is missing is as good as any, and nobody logs in
//! instead of it or writes over it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use damoov_proxy::simulator::Simulator;
use rusqlite::Connection;

use super::{calls, log_in, refused, roomy, served};
use crate::harness::{Builder, Proxy, SCORES, damoov, principal, user};

/// Three keys, of which the first is the store's.
fn keyed(damoov: &Simulator) -> Builder {
    let key = |byte: u8| BASE64_STANDARD.encode([byte; 32]);
    roomy(damoov)
        .set("store.key.env", "FIRST_KEY")
        .env("FIRST_KEY", &key(1))
        .env("SECOND_KEY", &key(2))
        .env("THIRD_KEY", &key(3))
}

fn sealed(proxy: &Proxy, number: usize) -> Vec<u8> {
    Connection::open(proxy.store().join("tokens.db"))
        .unwrap()
        .query_row(
            "SELECT sealed FROM entries WHERE principal = ?1",
            [principal(number).to_string()],
            |row| row.get(0),
        )
        .unwrap()
}

#[tokio::test]
async fn an_old_key_is_missed_until_everything_is_resealed_and_never_after() {
    let damoov = damoov().await;
    let mut proxy = keyed(&damoov).start().await;
    log_in(&damoov, &proxy, 1..=3).await;
    proxy.terminate().await;

    proxy.reconfigure("store.key.env", "SECOND_KEY");
    proxy.reconfigure("store.old_keys", "[{ env = \"FIRST_KEY\" }]");
    proxy.start().await;
    served(&proxy.get(1, SCORES).await, 1);
    let (code, said) = proxy.run("check").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("3 pairs"), "{said}");
    assert!(said.contains("tokens reseal"), "{said}");
    proxy.terminate().await;

    // Dropped too early.
    proxy.reconfigure("store.old_keys", "[{ env = \"THIRD_KEY\" }]");
    for command in ["run", "check", "tokens reseal"] {
        let (code, said) = proxy.run(command).await;
        assert_eq!(code, Some(78), "{command}: {said}");
        assert!(said.contains("3 pairs"), "{said}");
        assert!(said.contains("old_keys"), "{said}");
    }

    proxy.reconfigure("store.old_keys", "[{ env = \"FIRST_KEY\" }]");
    proxy.start().await;
    let (code, said) = proxy.run("tokens reseal").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("resealed 3"), "{said}");
    assert!(said.contains("nothing is sealed with it"), "{said}");
    // The running proxy noticed nothing.
    served(&proxy.get(1, SCORES).await, 1);
    proxy.terminate().await;

    proxy.reconfigure("store.old_keys", "[]");
    proxy.start().await;
    for number in 1..=3 {
        served(&proxy.get(number, SCORES).await, number);
        assert_eq!(calls(&damoov, number), (0, 0));
    }
}

#[tokio::test]
async fn a_pair_whose_key_this_process_lacks_is_503_and_stays_as_it_is() {
    let damoov = damoov().await;
    let mut proxy = keyed(&damoov).start().await;
    log_in(&damoov, &proxy, [1, 2]).await;
    let mut newer = keyed(&damoov)
        .set("store.key.env", "SECOND_KEY")
        .set("store.old_keys", "[{ env = \"FIRST_KEY\" }]")
        .start_on(proxy.store())
        .await;
    damoov.handle().expire(None);
    served(&newer.get(1, SCORES).await, 1);
    let before = sealed(&proxy, 1);
    for _ in 0..3 {
        refused(&proxy.get(1, SCORES).await, 503, "store_unavailable");
    }
    // Commands say so, too, and which key it needs.
    newer.reconfigure("store.old_keys", "[]");
    let show = format!("tokens show {}", user(2));
    let (_, said) = newer.run(&show).await;
    assert!(said.contains("key missing"), "{said}");
    assert!(!said.contains("obstacle       none"), "{said}");
    let needed = said.split("sealed with the key ").nth(1).unwrap();
    let needed = needed.split([',', '\n']).next().unwrap();
    let (code, said) = newer.run("tokens export --to -").await;
    assert_eq!(code, Some(1));
    assert!(
        said.contains(&format!("with the key {needed}, which")),
        "{said}"
    );
    // A rejected RefreshToken is no reason either.
    Connection::open(proxy.store().join("tokens.db"))
        .unwrap()
        .execute(
            "UPDATE entries SET refresh_dead = generation WHERE principal = ?1",
            [principal(1).to_string()],
        )
        .unwrap();
    refused(&proxy.get(1, SCORES).await, 503, "store_unavailable");
    assert_eq!(sealed(&proxy, 1), before);
    assert_eq!(calls(&damoov, 1), (0, 1));
    // Nobody else is concerned.
    served(&proxy.get(2, SCORES).await, 2);
    let unknown = "result=\"unknown_key\"";
    assert!(proxy.metric("store_operations_total", unknown).await >= 4.0);
    proxy.terminate().await;
    let told = proxy.log();
    let told: Vec<_> = told
        .lines()
        .filter(|line| line.contains("a key that this process lacks"))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("ERROR"), "{}", told[0]);
    assert!(!told[0].contains(&user(1).to_string()));
}

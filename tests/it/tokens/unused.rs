//! `forget_unused`: who is named stays, who is not named for so long is forgotten, and an import counts.

use rusqlite::{Connection, params};
use serde_json::Value;

use super::{fast, fast_damoov};
use crate::harness::{Proxy, SCORES, eventually, principal};

/// A day passes in 72 seconds.
const SCALE: u32 = 1_200;
/// Long ago, in days.
const LONG: i64 = 100;

/// What the store of a proxy says that is not running.
fn opened(proxy: &Proxy) -> Connection {
    Connection::open(proxy.store().join("tokens.db")).unwrap()
}

/// Lets this user have been named last long ago.
fn ages(db: &Connection, number: usize) {
    let rows = db.execute(
        "UPDATE uses SET day = day - ?2 WHERE principal = ?1",
        params![principal(number).to_string(), LONG],
    );
    assert_eq!(rows, Ok(1), "its day was written");
}

/// Lets the days have been counted for longer than that.
fn has_counted(db: &Connection) {
    let read = "SELECT value FROM guards WHERE name = 'uses'";
    let value: Vec<u8> = db.query_row(read, [], |row| row.get(0)).unwrap();
    let mut value: Value = serde_json::from_slice(&value).unwrap();
    value["since"] = (value["since"].as_i64().unwrap() - 2 * LONG).into();
    let write = "UPDATE guards SET value = ?1, version = version + 1 WHERE name = 'uses'";
    let rows = db.execute(write, [serde_json::to_vec(&value).unwrap()]);
    assert_eq!(rows, Ok(1));
}

fn holds_a_pair(proxy: &Proxy, number: usize) -> bool {
    let read = "SELECT sealed IS NOT NULL FROM entries WHERE principal = ?1";
    let held = opened(proxy).query_row(read, [principal(number).to_string()], |row| row.get(0));
    held.unwrap_or(false)
}

#[tokio::test]
async fn who_is_named_stays_and_who_is_not_named_for_so_long_is_forgotten() {
    let damoov = fast_damoov(SCALE).await;
    let mut proxy = fast(&damoov, SCALE).start().await;
    let logins = || damoov.handle().counts().total.logins.all();
    for number in [1, 2, 3] {
        assert_eq!(proxy.get(number, SCORES).await.status, 200);
    }
    eventually("the day is counted", async || {
        let read = "SELECT count(*) FROM guards WHERE name = 'uses'";
        opened(&proxy).query_row(read, [], |row| row.get(0)) == Ok(1)
    })
    .await;
    assert!(proxy.terminate().await.success());
    has_counted(&opened(&proxy));
    // What is imported counts as used, although it stands already.
    let used_on = || {
        let read = "SELECT day FROM uses WHERE principal = ?1";
        let day = opened(&proxy).query_row(read, [principal(3).to_string()], |row| row.get(0));
        day.unwrap_or(0_i64)
    };
    let before = used_on();
    for export in ["export", "export --sealed"] {
        ages(&opened(&proxy), 3);
        assert!(used_on() < before);
        let file = proxy.config().with_file_name(export.replace(' ', ""));
        for command in [export, "import"] {
            let which = match command {
                "import" => "--from",
                _ => "--to",
            };
            let command = format!("tokens {command} {which} {}", file.display());
            let (code, said) = proxy.run(&command).await;
            assert_eq!(code, Some(0), "{said}");
        }
        assert!(used_on() >= before, "{export}");
    }
    ages(&opened(&proxy), 2);
    proxy.reconfigure("renewal.forget_unused", "2d");
    proxy.start().await;
    eventually("the second user is forgotten", async || {
        proxy.get(1, SCORES).await;
        !holds_a_pair(&proxy, 2)
    })
    .await;
    proxy.has_logged("forget_unused").await;
    assert!(holds_a_pair(&proxy, 3), "it was imported today");
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    assert_eq!(logins(), 3, "the first one keeps its pair");
    assert_eq!(proxy.get(2, SCORES).await.status, 200);
    assert_eq!(logins(), 4);
}

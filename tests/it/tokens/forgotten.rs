//! What is left of who was forgotten: nothing that names anybody, and enough to keep ended what was handed out.

use std::fs;
use std::path::Path;

use rusqlite::{Connection, params};

use super::{fast, fast_damoov, forgiving, roomy};
use crate::auth_endpoints::{Tokens, log_in};
use crate::harness::{Proxy, SCORES, eventually, principal, user};

/// How many times as fast the clocks of a test go.
const SCALE: u32 = 1_200;

/// The files of a store that hold this text.
fn holding(store: &Path, text: &str) -> Vec<String> {
    let mut holding = Vec::new();
    for file in fs::read_dir(store).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file()
            && String::from_utf8_lossy(&fs::read(file.path()).unwrap()).contains(text)
        {
            holding.push(file.file_name().into_string().unwrap());
        }
    }
    holding
}

async fn forget(proxy: &Proxy, number: usize) {
    let (code, said) = proxy.run(&format!("tokens forget {}", user(number))).await;
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn who_is_forgotten_leaves_no_name_and_what_was_handed_out_stays_ended() {
    let damoov = forgiving().await;
    let mut proxy = roomy(&damoov)
        .set("store.key.env", "FIRST_KEY")
        .env("FIRST_KEY", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=")
        .env("SECOND_KEY", "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=")
        .start()
        .await;
    let [gone, stays] = [1, 2];
    let before = Tokens::of(&log_in(&proxy, gone).await);
    let others = Tokens::of(&log_in(&proxy, stays).await);
    let status = async |proxy: &Proxy, tokens: &Tokens| proxy.send(tokens.get(SCORES)).await.status;
    assert_eq!(status(&proxy, &before).await, 200);
    forget(&proxy, gone).await;
    eventually("the proxy hears of it", async || {
        status(&proxy, &before).await == 401
    })
    .await;
    let (code, shown) = proxy.run(&format!("tokens show {}", user(gone))).await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(
        shown.contains("epoch          1\n") && shown.contains("pair           none\n"),
        "{shown}"
    );
    // Whatever becomes of the process and of the key.
    for key in ["FIRST_KEY", "SECOND_KEY"] {
        assert!(proxy.terminate().await.success());
        let name = user(gone).to_string();
        assert_eq!(holding(proxy.store(), &name), Vec::<String>::new());
        assert_eq!(
            holding(proxy.store(), &user(stays).to_string()),
            ["tokens.db"]
        );
        proxy.reconfigure("store.key.env", key);
        proxy.reconfigure("store.old_keys", "[{ env = \"FIRST_KEY\" }]");
        proxy.start().await;
        assert_eq!(status(&proxy, &before).await, 401);
        assert_eq!(status(&proxy, &others).await, 200);
    }
    // Who comes back is served, and that does not bring back what was handed out before.
    for _ in 0..2 {
        let anew = Tokens::of(&log_in(&proxy, gone).await);
        assert_eq!(status(&proxy, &anew).await, 200);
        assert_eq!(status(&proxy, &before).await, 401);
        forget(&proxy, gone).await;
        eventually("it is forgotten again", async || {
            status(&proxy, &anew).await == 401
        })
        .await;
    }
}

#[tokio::test]
async fn the_names_of_whom_an_earlier_version_forgot_are_dropped() {
    let damoov = fast_damoov(SCALE).await;
    let mut proxy = fast(&damoov, SCALE).stopped_here();
    proxy.import(&damoov, 1..=3);
    let forgets =
        "UPDATE entries SET seq = 9, epoch = 4, instance = NULL, known = 0, sealed = NULL,
        received = NULL, expires = NULL, run = NULL, key_id = NULL WHERE principal = ?1";
    let tokens = proxy.store().join("tokens.db");
    let rows = Connection::open(&tokens)
        .unwrap()
        .execute(forgets, params![principal(2).to_string()]);
    assert_eq!(rows, Ok(1));
    // This version came to the store long ago.
    let since = r#"{"since":1,"begun":null,"done":false}"#;
    Connection::open(&tokens)
        .unwrap()
        .execute(
            "INSERT INTO guards VALUES ('burials', 1, ?1)",
            [since.as_bytes()],
        )
        .unwrap();
    proxy.start().await;
    let named = || -> Vec<String> {
        let db = Connection::open(&tokens).unwrap();
        let mut read = db.prepare("SELECT principal FROM entries").unwrap();
        let rows = read.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap)
            .filter(|name: &String| name.starts_with("user:"))
            .collect()
    };
    eventually("the name is dropped", async || {
        named() == [1, 3].map(|number| principal(number).to_string())
    })
    .await;
    let left = "SELECT generation, epoch FROM entries WHERE principal LIKE 'forgotten:%'";
    let left = Connection::open(&tokens)
        .unwrap()
        .query_row(left, [], |row| Ok((row.get(0)?, row.get(1)?)));
    assert_eq!(left, Ok((1_i64, 4_i64)));
    for number in 1..=3 {
        assert_eq!(proxy.get(number, SCORES).await.status, 200);
    }
    assert_eq!(damoov.handle().counts().total.logins.all(), 1);
}

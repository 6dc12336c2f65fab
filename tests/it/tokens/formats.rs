//! Stores of every format that was ever written, in `tests/it/fixtures`: opened by this version, each
//! serves its users without a login. Each holds the pairs of three users, a rejected stranger, a user
//! that was forgotten, and a login budget that a clock far ahead has blocked; `store.key` beside it is
//! its key. They were made by `tokens import` of the version that wrote that format, and a few
//! statements of SQL.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::Request;
use rusqlite::Connection;

use super::store_faults::Disk;
use crate::harness::{Builder, Proxy, SCORES, captured, damoov, proxy};

const USERS: std::ops::RangeInclusive<u64> = 1..=3;

fn device(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

/// All formats, oldest first.
fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures");
    let mut all: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("store-format-")
        })
        .collect();
    all.sort();
    assert_eq!(all.len(), 2, "one for each format");
    all
}

/// Puts a store where the proxy looks for it.
fn lay(fixture: &Path, store: &Path) {
    fs::create_dir(store).unwrap();
    fs::set_permissions(store, fs::Permissions::from_mode(0o700)).unwrap();
    for name in ["tokens.db", "store.key"] {
        let to = store.join(name);
        fs::copy(fixture.join(name), &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

fn format(store: &Path) -> i64 {
    let db = Connection::open(store.join("tokens.db")).unwrap();
    db.query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap()
}

/// An API that accepts any JWT, renews the pairs of the fixtures, and logs nobody in.
struct Api {
    url: String,
    /// The paths of the Auth endpoints that were called, and the RefreshTokens that were shown.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Api {
    fn start() -> Api {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let noted = noted.clone();
                thread::spawn(move || answer(stream.unwrap(), &noted));
            }
        });
        Api { url, seen }
    }

    fn seen(&self) -> Vec<String> {
        let mut seen = self.seen.lock().unwrap().clone();
        seen.sort();
        seen
    }
}

fn answer(mut stream: TcpStream, seen: &Mutex<Vec<String>>) {
    let mut bytes = Vec::new();
    let (head, content) = loop {
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(read) => bytes.extend(&piece[..read]),
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, content)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .map_or(0, |length| length.trim().parse().unwrap());
        if content.len() >= length {
            break (head, content.to_owned());
        }
    };
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let (status, content) = if path.ends_with("/auth/refreshtoken") {
        let pair: serde_json::Value = serde_json::from_str(&content).unwrap();
        let token = pair["RefreshToken"].as_str().unwrap();
        seen.lock().unwrap().push(token.to_owned());
        (200, renewed(pair["AccessToken"].as_str().unwrap()))
    } else if path.contains("/auth/") {
        seen.lock().unwrap().push(path);
        (404, r#"{"Result":null,"Status":404}"#.to_owned())
    } else {
        (200, r#"{"Result":{},"Status":200}"#.to_owned())
    };
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{content}",
        content.len(),
    );
}

/// The answer to a refresh with this JWT.
fn renewed(jwt: &str) -> String {
    let claims = BASE64_URL_SAFE_NO_PAD
        .decode(jwt.split('.').nth(1).unwrap())
        .unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    let claims = serde_json::json!({ "DeviceToken": claims["DeviceToken"], "n": "newer" });
    let claims = BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
    serde_json::json!({
        "Result": {
            "AccessToken": { "Token": format!("e30.{claims}.c2ln"), "ExpiresIn": 86_400 },
            "RefreshToken": "newer",
        },
        "Status": 200, "Title": "", "Errors": [],
    })
    .to_string()
}

fn on(api: &Api, builder: Builder) -> Builder {
    builder
        .redirect("user.telematicssdk.com", &api.url)
        .redirect("api.telematicssdk.com", &api.url)
}

async fn get(proxy: &Proxy, number: u64) -> http::StatusCode {
    let request = Request::get(SCORES).header("DeviceToken", device(number));
    proxy.send(request).await.status
}

#[tokio::test]
async fn a_store_of_every_format_serves_its_users_without_a_login() {
    let damoov = damoov().await;
    for fixture in fixtures() {
        let api = Api::start();
        let builder = on(&api, proxy(&damoov));
        lay(&fixture, &builder.store());
        let mut proxy = builder.start().await;
        assert_eq!(format(proxy.store()), 2);
        for number in USERS {
            assert_eq!(get(&proxy, number).await, 200, "{fixture:?} {number}");
        }
        assert_eq!(api.seen(), ["refresh-1", "refresh-2", "refresh-3"]);
        // What was blocked while a clock was ahead is blocked for a day at most.
        let blocked = proxy.metric("login_blocked_seconds", "").await;
        assert!((1.0..=86_400.0).contains(&blocked), "{blocked}");
        assert_eq!(get(&proxy, 0xb).await, 503, "the one that was forgotten");
        assert_eq!(proxy.metric("tokens_stored", "").await, 3.0);
        proxy.crash().await;
        for number in USERS {
            assert_eq!(get(&proxy, number).await, 200, "{fixture:?} {number}");
        }
        assert_eq!(api.seen().len(), 3);
    }
}

#[tokio::test]
async fn a_full_disk_leaves_the_earlier_format_as_it_was_and_says_so() {
    let Some(disk) = Disk::new() else { return };
    let damoov = damoov().await;
    let earlier = &fixtures()[0];
    lay(earlier, &disk.store());
    let mut proxy = proxy(&damoov).stopped(&disk.store());
    disk.fill(40 * 1024);
    let output = captured(proxy.command("run")).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("format 1"), "{said}");
    assert!(said.contains("space"), "{said}");
    assert_eq!(format(&disk.store()), 1);
    disk.empty();
    proxy.start().await;
    assert_eq!(format(&disk.store()), 2);
}

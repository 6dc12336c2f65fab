//! The `[admin]` listener of a running proxy: the dashboard's page, its API, what it costs.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use damoov_proxy::simulator::{INSTANCE_KEY, Simulator};
use http::Request;
use http_body_util::Full;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use crate::harness::{
    Answer, Client, Proxy, SCORES, damoov, eventually, principal, proxy, rounds, user,
};

const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:0\"\n";

/// A proxy with a dashboard, and where that is.
async fn administered(damoov: &Simulator) -> (Proxy, SocketAddr) {
    let proxy = proxy(damoov).toml(ADMIN).start().await;
    let log = proxy.log();
    let line = log
        .lines()
        .find(|line| line.contains("serving the dashboard"))
        .unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    let address = line["address"].as_str().unwrap().parse().unwrap();
    (proxy, address)
}

async fn send(at: SocketAddr, request: http::request::Builder) -> Answer {
    let mut request = request.body(Full::<Bytes>::default()).unwrap();
    let uri = format!("http://{at}{}", request.uri());
    *request.uri_mut() = uri.parse().unwrap();
    Client::new().send(request).await.expect("an answer")
}

async fn get(at: SocketAddr, path: &str) -> Value {
    let answer = send(at, Request::get(path)).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    serde_json::from_slice(answer.content()).unwrap()
}

async fn post(at: SocketAddr, path: &str) -> Answer {
    send(at, Request::post(path).header("X-Damoov-Proxy", "1")).await
}

#[tokio::test]
async fn the_page_and_all_of_status_are_served_and_the_state_is_true() {
    let damoov = damoov().await;
    let (proxy, admin) = administered(&damoov).await;
    let page = send(admin, Request::get("/dashboard")).await;
    assert_eq!(page.status, 200);
    assert!(page.content().len() <= 64 * 1024);
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(page.header("cache-control"), "no-store");
    for path in ["/livez", "/readyz", "/startupz", "/metrics"] {
        assert_eq!(send(admin, Request::get(path)).await.status, 200, "{path}");
        assert_eq!(proxy.status(path).await.status, 200, "{path}");
    }
    assert_eq!(proxy.status("/api/state").await.status, 404);

    proxy.get(1, SCORES).await;
    let state = get(admin, "/api/state").await;
    assert_eq!(state["stage"], "serving");
    assert_eq!(state["sentence"]["level"], "calm", "{state}");
    assert_eq!(state["logins"]["limit"], 4);
    assert_eq!(state["logins"]["windows"][0]["used"], 1);
    assert_eq!(state["tokens"]["fresh"], 1);
    let hosts = state["upstreams"].as_array().unwrap();
    let asked: u64 = hosts.iter().map(|h| h["requests"].as_u64().unwrap()).sum();
    let open: u64 = hosts
        .iter()
        .map(|h| h["connections"].as_u64().unwrap())
        .sum();
    assert_eq!((asked, open), (1, 1), "{state}");
    let room = state["room"].as_array().unwrap();
    let callers = room
        .iter()
        .find(|row| row["what"] == "connections of callers");
    assert_eq!(callers.unwrap()["used"], 1, "{state}");
}

#[tokio::test]
async fn what_the_api_tells_is_what_the_commands_print() {
    let damoov = damoov().await;
    let (proxy, admin) = administered(&damoov).await;
    proxy.get(1, SCORES).await;
    let said = async |command: &str| -> Value {
        let (code, said) = proxy.run(command).await;
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str(said.lines().next().unwrap()).unwrap()
    };
    let listed = get(admin, "/api/principals").await;
    assert_eq!(listed["principals"][0], said("tokens list --json").await);
    assert!(listed["next"].is_null());
    let named = |told: &Value| {
        told.as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    let budget = get(admin, "/api/budget").await;
    assert_eq!(named(&budget), named(&said("budget --json").await));
    let path = format!("/api/principals/{}", user(1));
    let explained = get(admin, &path).await;
    let command = format!("explain {} --json", user(1));
    assert_eq!(named(&explained), named(&said(&command).await));
    assert_eq!(explained["stored"], "refreshable");
    let unknown = format!("/api/principals/{}", user(2));
    let unknown = send(admin, Request::get(unknown)).await;
    assert_eq!(
        (unknown.status.as_u16(), &*unknown.code()),
        (404, "principal_unknown")
    );

    let config = get(admin, "/api/config").await;
    assert_eq!(config["settings"]["instance"][0]["key"], "***");
    assert!(!config.to_string().contains(INSTANCE_KEY), "{config}");
}

#[tokio::test]
async fn a_user_is_renewed_and_forgotten_on_request() {
    let damoov = damoov().await;
    let (proxy, admin) = administered(&damoov).await;
    proxy.get(1, SCORES).await;
    let path = |what: &str| format!("/api/principals/{}/{what}", user(1));
    let counted = || damoov.handle().counts_of(&principal(1));

    let refused = send(admin, Request::post(path("forget"))).await;
    assert_eq!(refused.status, 403);
    let renewed = post(admin, &path("renew")).await;
    let renewed: Value = serde_json::from_slice(renewed.content()).unwrap();
    assert_eq!(renewed["outcome"], "refreshed");
    assert_eq!((counted().logins.ok, counted().refreshes.ok), (1, 1));

    assert_eq!(post(admin, &path("forget")).await.status, 200);
    proxy.get(1, SCORES).await;
    assert_eq!(counted().logins.ok, 2, "it had to log in anew");
    let unknown = format!("/api/principals/{}/forget", user(2));
    assert_eq!(post(admin, &unknown).await.status, 404);
}

#[tokio::test]
async fn a_reload_is_asked_for_and_says_what_came_of_it() {
    let damoov = damoov().await;
    let (proxy, admin) = administered(&damoov).await;
    let reload = async || -> Value {
        let answer = post(admin, "/api/reload").await;
        serde_json::from_slice(answer.content()).unwrap()
    };
    assert_eq!(reload().await["result"], "unchanged");
    let text = fs::read_to_string(proxy.config()).unwrap();
    fs::write(proxy.config(), format!("hosts = [\"a.example\"]\n{text}")).unwrap();
    let (asked, looked) = (reload().await, get(admin, "/api/config").await);
    let result = asked["result"].as_str().unwrap();
    assert!(matches!(result, "applied" | "unchanged"), "{asked}");
    assert_eq!(looked["settings"]["hosts"][0], "a.example");
    fs::write(proxy.config(), "nonsense").unwrap();
    let refused = reload().await;
    assert_eq!(refused["result"], "refused");
    assert!(
        refused["report"]
            .as_str()
            .unwrap()
            .contains("damoov-proxy.toml")
    );
    let state = get(admin, "/api/state").await;
    assert_eq!(state["sentence"]["what"], "The configuration is refused.");
    assert_eq!(state["config"]["last_reload"], "refused");
}

#[tokio::test]
async fn an_event_stream_tells_logins_and_ends_when_the_proxy_drains() {
    let damoov = damoov().await;
    let (mut proxy, admin) = administered(&damoov).await;
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let ask = "GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    proxy.get(1, SCORES).await;
    let mut heard = String::new();
    let mut piece = [0; 4096];
    while !(heard.contains("\"target\":\"audit\"") && heard.contains("event: state")) {
        let read = stream.read(&mut piece).await.unwrap();
        assert!(read > 0, "{heard}");
        heard.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    assert!(!heard.contains(&user(1).to_string()), "{heard}");
    assert!(proxy.terminate().await.success());
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.contains("event: end"), "{rest}");
}

#[tokio::test]
async fn both_listeners_may_be_unix_sockets() {
    let damoov = damoov().await;
    let builder = proxy(&damoov);
    let socket = builder.folder().join("admin.sock");
    let place = format!(
        "[admin]\nlisten = {{ unix = \"{}\", mode = \"0600\" }}\n",
        socket.display()
    );
    let _proxy = builder.toml(&place).start().await;
    let mut stream = UnixStream::connect(&socket).await.unwrap();
    let ask = "GET /api/state HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("\"stage\":\"serving\""), "{answer}");
}

/// The time that all threads of the process have spent on a core.
fn on_a_core(proxy: &Proxy) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{}/task", proxy.pid())).unwrap();
    let nanoseconds = |task: std::io::Result<fs::DirEntry>| {
        let stat = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.filter_map(nanoseconds).sum())
}

#[tokio::test]
async fn one_open_dashboard_costs_at_most_half_a_percent_of_a_core() {
    let damoov = damoov().await;
    let (proxy, admin) = administered(&damoov).await;
    proxy.get(1, SCORES).await;
    let states = rounds(5, 60);
    let shares = async |stream: &mut TcpStream| {
        let mut read_states = async |count: usize| {
            let (mut heard, mut piece) = (0, [0; 65_536]);
            while heard < count {
                let read = stream.read(&mut piece).await.unwrap();
                assert!(read > 0, "the stream ended");
                let piece = String::from_utf8_lossy(&piece[..read]);
                heard += piece.matches("event: state").count();
            }
        };
        read_states(1).await;
        let (began, before) = (Instant::now(), on_a_core(&proxy));
        read_states(states).await;
        (on_a_core(&proxy) - before).as_secs_f64() / began.elapsed().as_secs_f64()
    };
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let ask = "GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let share = shares(&mut stream).await;
    eprintln!("one open dashboard: {:.3} % of a core", share * 100.0);
    // A build that is not optimised needs twice as much.
    let most = if cfg!(debug_assertions) { 0.01 } else { 0.005 };
    assert!(share <= most, "{share}");
    drop(stream);
    eventually("the stream is closed", async || {
        let state = get(admin, "/api/state").await;
        state["room"].as_array().unwrap().last().unwrap()["used"] == 0
    })
    .await;
}

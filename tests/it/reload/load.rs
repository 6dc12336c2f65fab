//! Reloads under load.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::*;
use crate::harness::{SCORES, damoov_with, heavy, rounds};
use crate::live::{LIVE, Session};

/// Callers at once, each with a connection of its own.
const CALLERS: usize = 8;
/// Reloads after which memory is measured first.
const WARM: usize = 5;
/// What memory may grow by over all further reloads.
const GROWTH: u64 = 2 << 20;

/// The near ends of the proxy's connections to this port.
fn connections_to(port: u16) -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let far = format!(":{port:04X}");
    let open = table.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (near, to, state) = (words.next()?, words.next()?, words.next()?);
        (to.ends_with(&far) && state == "01").then(|| near.to_owned())
    });
    open.collect()
}

#[tokio::test]
async fn reloads_under_load_fail_no_request_and_close_no_connection() {
    let _turn = heavy().await;
    let damoov = damoov_with(|settings| settings.login_limit = None).await;
    let proxy = proxy(&damoov)
        .set("upstream.idle_timeout", "10m")
        .set("workers.threads", "2")
        .start()
        .await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    let fields = [("DeviceToken", &*user(1).to_string())];
    let mut session = Session::open(&proxy, LIVE, &fields).await.unwrap();
    session.is_authenticated().await;

    let (ended, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (ended, answered) = (ended.clone(), answered.clone());
        let (client, url) = (crate::harness::Client::new(), proxy.url(SCORES));
        callers.spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                let request = Request::get(&url)
                    .header("DeviceToken", user(1).to_string())
                    .body(Default::default());
                let answer = client.send(request.unwrap()).await.expect("an answer");
                assert_eq!(answer.status, 200, "{}", answer.text());
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let text = fs::read_to_string(proxy.config()).unwrap();
    let port = damoov
        .base_url()
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let (mut connections, mut resident) = (BTreeSet::new(), 0);
    for round in 0..WARM + rounds(5, 500) {
        if round == WARM {
            connections = connections_to(port);
            resident = proxy.resident();
            assert!(!connections.is_empty());
        }
        // Other rules each time; the hosts stay.
        proxy.replace_config(&format!(
            "hosts = [\"{round}.example\"]\n{text}\n[[route]]\npath = \"/changing\"\n\
             host = \"{ECHO_HOST}\"\ncredential = \"user\"\n[renewal]\nwait = \"{}s\"\n",
            10 + round % 10
        ));
        let before = answered.load(Ordering::Relaxed);
        proxy.reload("applied").await;
        let host = format!("{round}.example");
        assert_eq!(get(&proxy, ECHO, &[("Host", &host)]).await.status, 200);
        eventually("there is load", async || {
            answered.load(Ordering::Relaxed) > before + CALLERS
        })
        .await;
        let said = serde_json::json!({"type": "echo", "x": round});
        session.say(said.clone()).await;
        // The API pings, and closes a session that does not answer.
        session.say(serde_json::json!({"type": "pong"})).await;
        while session.message().await.expect("it is open") != Message::text(said.to_string()) {}
    }
    let grown = proxy.resident().saturating_sub(resident);
    let still_open = connections_to(port);
    ended.store(true, Ordering::Relaxed);
    callers.join_all().await;
    let closed: Vec<_> = connections.difference(&still_open).collect();
    assert!(closed.is_empty(), "{closed:?} of {connections:?}");
    assert!(grown <= GROWTH, "{grown} bytes more");
    assert_eq!(proxy.reloads("refused").await, 0.0);
    let answered = answered.load(Ordering::Relaxed);
    eprintln!("{answered} requests, none failed; {grown} bytes more");
}

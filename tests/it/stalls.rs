//! Every wait has an end: an API that stops in the middle of an answer, a caller that does not read
//! it, and those that stand still while others wait for a connection.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

use crate::harness::{Builder, ECHO, PlayedScene, eventually};
use crate::wire::{LAST, Wire, get};

// Who gives way while others wait for a connection, and what those cost who stand still.
mod giving_way;
// How long an answer may stay out: beside an upload, and on routes of their own.
mod unanswered;

/// The `stall_timeout` of most tests.
const STALL: Duration = Duration::from_millis(600);
/// More than the system keeps of it for anybody.
const LARGE: usize = 48 << 20;

/// A proxy in front of an API that a test plays.
async fn scene() -> PlayedScene {
    scene_with(|proxy| proxy).await
}

async fn scene_with(change: impl FnOnce(Builder) -> Builder) -> PlayedScene {
    PlayedScene::with(|proxy| change(proxy.set("upstream.stall_timeout", "600ms"))).await
}

impl PlayedScene {
    /// A caller that never reads its large answer, and the API's end, where much of it was written.
    async fn unread(&self) -> (Wire, Wire) {
        let (caller, mut api) = self.asked(get(ECHO, "")).await;
        api.write(head_of(LARGE)).await;
        fill(&mut api).await;
        (caller, api)
    }

    /// An answer that stops after its first piece.
    async fn stopped(&self) -> (Wire, Wire) {
        let (mut caller, mut api) = self.asked(get(ECHO, "")).await;
        api.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst")
            .await;
        assert_eq!(caller.head().await.status(), 200);
        assert_eq!(caller.take(5).await, b"first");
        (caller, api)
    }

    async fn cut(&self, labels: &str) -> f64 {
        self.proxy.metric("answers_cut_total", labels).await
    }

    /// A new caller is served.
    async fn serves(&self) {
        let (mut caller, mut api) = self.asked(get(ECHO, "Connection: close\r\n")).await;
        api.write(LAST).await;
        assert_eq!(caller.message().await.content, b"good");
    }
}

fn head_of(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")
}

/// Writes until nothing more is taken for a while.
async fn fill(wire: &mut Wire) -> usize {
    let mut written = 0;
    let piece = vec![b'x'; 64 << 10];
    while written + piece.len() < LARGE {
        let writing = wire.write(&piece);
        if timeout(Duration::from_millis(100), writing).await.is_err() {
            break;
        }
        written += piece.len();
    }
    written
}

#[tokio::test]
async fn an_answer_that_stops_is_broken_off_however_it_is_framed() {
    let scene = scene().await;
    for (number, (answer, said)) in [
        ("Content-Length: 9\r\n\r\nabc", "abc"),
        (
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "3\r\nabc\r\n",
        ),
        ("Transfer-Encoding: chunked\r\n\r\n9\r\nabc", "3\r\nabc\r\n"),
        ("X-Until: close\r\n\r\nabc", "3\r\nabc\r\n"),
        ("Content-Length: 9\r\n\r\n", ""),
        ("Transfer-Encoding: chunked\r\n\r\n", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let (mut caller, mut api) = scene.asked(get(ECHO, "")).await;
        let asked = Instant::now();
        api.write(format!("HTTP/1.1 200 OK\r\n{answer}")).await;
        assert_eq!(caller.head().await.status(), 200);
        assert_eq!(String::from_utf8(caller.rest().await).unwrap(), said);
        assert!(asked.elapsed() >= STALL, "{answer:?}");
        assert!(api.rest().await.is_empty(), "its connection is closed");
        let cut = scene.cut("stalled=\"upstream\",reason=\"timeout\"").await;
        assert_eq!(cut, 1.0 + number as f64);
    }
    assert_eq!(scene.cut("").await, 6.0, "nothing else is counted");
    let log = scene.proxy.log();
    assert_eq!(log.matches("the answer stopped").count(), 1, "{log}");
    scene.serves().await;
}

#[tokio::test]
async fn an_answer_of_a_byte_now_and_then_comes_to_its_end() {
    let scene = scene().await;
    let (mut caller, mut api) = scene.asked(get(ECHO, "")).await;
    let began = Instant::now();
    api.write(head_of(8)).await;
    for _ in 0..8 {
        tokio::time::sleep(STALL / 3).await;
        api.write("x").await;
    }
    assert_eq!(caller.message().await.content, b"xxxxxxxx");
    assert!(began.elapsed() > 2 * STALL);
    assert_eq!(scene.cut("").await, 0.0);
}

#[tokio::test]
async fn a_caller_that_reads_nothing_is_reset_and_the_api_let_go() {
    let scene = scene().await;
    for version in ["1.1", "1.0"] {
        for framing in ["Content-Length: 999999999", "X-Until: close"] {
            let before = scene.cut("stalled=\"caller\",reason=\"timeout\"").await;
            let asking = get(ECHO, "").replace("HTTP/1.1", &format!("HTTP/{version}"));
            let (mut caller, mut api) = scene.asked(asking).await;
            api.write(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"))
                .await;
            fill(&mut api).await;
            eventually("it is counted", async || {
                scene.cut("stalled=\"caller\",reason=\"timeout\"").await == before + 1.0
            })
            .await;
            api.rest().await;
            assert!(!caller.ends_whole().await, "HTTP/{version}, {framing}");
        }
    }
    assert_eq!(scene.cut("stalled=\"upstream\"").await, 0.0);
    let log = scene.proxy.log();
    assert!(log.contains("callers do not read their answers"), "{log}");
    scene.serves().await;
}

#[tokio::test]
async fn a_caller_on_a_unix_socket_that_reads_nothing_is_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.sock");
    let listen = format!(r#"["127.0.0.1:0", {{ unix = "{}" }}]"#, path.display());
    let scene = scene_with(|proxy| proxy.set("listen", &listen)).await;
    let mut caller = UnixStream::connect(&path).await.unwrap();
    caller.write_all(get(ECHO, "").as_bytes()).await.unwrap();
    let mut api = scene.upstream.accept().await;
    api.head().await;
    api.write(head_of(LARGE)).await;
    fill(&mut api).await;
    api.rest().await;
    assert_eq!(scene.cut("stalled=\"caller\"").await, 1.0);
    let mut got = Vec::new();
    let _ = caller.read_to_end(&mut got).await;
    assert!(got.len() < LARGE);
}

#[tokio::test]
async fn a_caller_that_asks_on_and_on_and_reads_nothing_is_reset() {
    let scene = scene().await;
    let mut caller = Wire::to(&scene.proxy).await;
    let asking = get("/unknown", "").repeat(64);
    // Answered by the proxy itself: no connection to the API is held.
    let flood = async { while caller.try_write(&asking).await {} };
    timeout(Duration::from_secs(20), flood)
        .await
        .expect("it is reset");
    assert_eq!(
        scene.cut("stalled=\"caller\",reason=\"timeout\"").await,
        1.0
    );
}

#[tokio::test]
async fn a_caller_that_reads_slowly_is_not_charged_and_nor_is_the_api() {
    let scene = scene().await;
    let (mut caller, mut api) = scene.asked(get(ECHO, "")).await;
    let began = Instant::now();
    let length = 24 << 20;
    let writing = async {
        api.write(head_of(length)).await;
        api.write(vec![b'x'; length]).await;
    };
    let reading = async {
        caller.head().await;
        for _ in 0..6 {
            tokio::time::sleep(STALL / 2).await;
            caller.take(length / 6).await;
        }
    };
    tokio::join!(writing, reading);
    assert!(began.elapsed() > 2 * STALL);
    assert_eq!(scene.cut("").await, 0.0);
}

#[tokio::test]
async fn to_http_1_0_an_answer_that_was_broken_off_never_looks_whole() {
    let scene = scene().await;
    for stops in [false, true] {
        let asking = get(ECHO, "").replace("HTTP/1.1", "HTTP/1.0");
        let (mut caller, mut api) = scene.asked(asking).await;
        api.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            .await;
        if !stops {
            api.close().await;
        }
        caller.head().await;
        assert!(!caller.ends_whole().await, "stops: {stops}");
    }
}

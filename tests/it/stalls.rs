//! Every wait has an end: an API that stops in the middle of an answer, a caller that does not read
//! it, and those that stand still while others wait for a connection.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

use crate::harness::{
    Builder, ECHO, ECHO_HOST, PlayedScene, allow_many_descriptors, damoov, eventually, heavy,
    proxy, rounds,
};
use crate::wire::{GOOD, Upstream, Wire, get, request};

const PORTAL: &str = "portal-apis.telematicssdk.com";
const LIVE: &str = "/realtime/api/v1/ws/realtime";
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
        api.write(GOOD.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"))
            .await;
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

#[tokio::test]
async fn an_upload_that_the_api_does_not_take_has_an_end() {
    let scene = scene_with(|proxy| proxy.set("upstream.response_timeout", "600ms")).await;
    let length = format!("Content-Length: {LARGE}\r\n");
    let (mut caller, api) = scene.asked(request("POST", ECHO, &length)).await;
    fill(&mut caller).await;
    let answer = caller.message().await;
    assert_eq!(
        (answer.status(), &*answer.code()),
        (504, "upstream_timeout")
    );
    drop(api);

    // And one that it answers, and then leaves lying.
    let (mut caller, mut api) = scene.asked(request("POST", ECHO, &length)).await;
    api.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        .await;
    assert_eq!(caller.head().await.status(), 200);
    fill(&mut caller).await;
    assert_eq!(caller.rest().await, b"abc");
    assert_eq!(
        scene.cut("stalled=\"upstream\",reason=\"timeout\"").await,
        1.0
    );
}

#[tokio::test]
async fn an_api_that_takes_an_upload_is_not_still_whenever_it_answers() {
    let scene = scene().await;
    let length = "Content-Length: 12\r\n";
    let (mut caller, mut api) = scene.asked(request("POST", ECHO, length)).await;
    api.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        .await;
    assert_eq!(caller.head().await.status(), 200);
    for _ in 0..12 {
        tokio::time::sleep(STALL / 4).await;
        caller.write("x").await;
        assert_eq!(api.take(1).await, b"x");
    }
    api.write("good").await;
    assert_eq!(caller.take(4).await, b"good");
    assert_eq!(scene.cut("").await, 0.0);
}

#[tokio::test]
async fn a_route_may_wait_longer_for_an_answer_than_the_others() {
    let route = format!(
        "[[route]]\npath = \"/poll\"\nhost = \"{ECHO_HOST}\"\ncredential = \"user\"\nresponse_timeout = \"20s\"\n"
    );
    let scene =
        scene_with(|proxy| proxy.toml(&route).set("upstream.response_timeout", "300ms")).await;
    let (mut poll, mut polled) = scene.asked(get("/poll", "")).await;
    let (mut other, _api) = scene.asked(get(ECHO, "")).await;
    let answer = other.message().await;
    assert_eq!(
        (answer.status(), &*answer.code()),
        (504, "upstream_timeout")
    );
    polled.write(GOOD).await;
    assert_eq!(poll.message().await.content, b"good");
}

#[tokio::test]
async fn the_route_of_live_tracking_may_wait_as_long_as_it_says() {
    let route = format!(
        "[[route]]\npath = \"{LIVE}$\"\nhost = \"{PORTAL}\"\ncredential = \"user_or_admin\"\n\
         response_timeout = \"300ms\"\n"
    );
    let damoov = damoov().await;
    let upstream = Upstream::listen().await;
    let proxy = proxy(&damoov).redirect(PORTAL, &upstream.url());
    let proxy = proxy.toml(&route).start().await;
    let mut caller = Wire::to(&proxy).await;
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let answer = caller.ask(get(LIVE, handshake)).await;
    assert_eq!(
        (answer.status(), &*answer.code()),
        (504, "upstream_timeout")
    );
}

#[tokio::test]
async fn those_that_stand_still_give_way_to_those_who_wait_the_stillest_first() {
    let scene = scene_with(|proxy| {
        proxy
            .set("upstream.max_connections", "4")
            .set("upstream.stall_timeout", "60s")
            .set("upstream.connect_timeout", "20s")
    })
    .await;
    let (mut unread, mut unread_api) = scene.unread().await;
    let (mut stopped, mut stopped_api) = scene.stopped().await;
    let (mut waits_for_its_head, mut headless) = scene.asked(get(ECHO, "")).await;
    let (mut moving, mut moves) = scene.asked(get(ECHO, "")).await;
    moves.write(head_of(1 << 20)).await;
    moving.head().await;
    let dripping = async {
        loop {
            moves.write("x").await;
            moving.take(1).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let others = async {
        let began = Instant::now();
        scene.serves().await;
        assert!(began.elapsed() > Duration::from_secs(2), "5 s at least");
        assert_eq!(
            scene.cut("stalled=\"caller\",reason=\"gave_way\"").await,
            1.0
        );
        unread_api.rest().await;
        assert!(!unread.ends_whole().await);
        // Its place is held, so that the next one needs another.
        let (_held, _api) = scene.stopped().await;
        scene.serves().await;
        assert_eq!(
            scene.cut("stalled=\"upstream\",reason=\"gave_way\"").await,
            1.0
        );
        assert!(stopped.rest().await.is_empty() && stopped_api.rest().await.is_empty());
        headless.write(GOOD).await;
        assert_eq!(waits_for_its_head.message().await.content, b"good");
        assert_eq!(scene.cut("").await, 2.0, "one for each who waited");
    };
    tokio::select! {
        () = dripping => {}
        done = timeout(Duration::from_secs(30), others) => done.unwrap(),
    }
    let log = scene.proxy.log();
    assert!(
        log.contains("answers that have stalled are broken off"),
        "{log}"
    );
}

#[tokio::test]
async fn an_upload_behind_its_answer_gives_way_too() {
    let scene = scene_with(|proxy| {
        proxy
            .set("upstream.max_connections", "1")
            .set("upstream.connect_timeout", "20s")
    })
    .await;
    let length = "Content-Length: 1000\r\n";
    let (mut caller, mut api) = scene.asked(request("POST", ECHO, length)).await;
    api.write(GOOD).await;
    assert_eq!(caller.message().await.content, b"good");
    let dripping = async {
        for _ in 0..1000 {
            caller.write("x").await;
            tokio::time::sleep(Duration::from_secs(8)).await;
        }
    };
    tokio::select! {
        () = dripping => {}
        () = scene.serves() => {}
    }
    assert!(api.rest().await.len() < 10);
    assert_eq!(scene.cut("reason=\"gave_way\"").await, 1.0);
}

#[tokio::test]
async fn callers_that_read_nothing_cost_little_memory() {
    let _turn = heavy().await;
    allow_many_descriptors();
    let scene = scene_with(|proxy| {
        proxy
            .set("upstream.stall_timeout", "60s")
            .set("upstream.max_connections", "2000")
    })
    .await;
    let callers = rounds(100, 1_300);
    let mut held = Vec::new();
    // The first ones may read a lot at once.
    for _ in 0..20 {
        held.push(scene.unread().await);
    }
    let before = scene.proxy.resident();
    for _ in 0..callers {
        let (caller, mut api) = scene.asked(get(ECHO, "")).await;
        api.write(head_of(LARGE)).await;
        held.push((caller, api));
    }
    let filling = held[20..].iter_mut().map(|(_, api)| fill(api));
    futures_util::future::join_all(filling).await;
    let each = (scene.proxy.resident() - before) / callers as u64;
    assert!(each < 80 * 1024, "{each} bytes for each caller");
}

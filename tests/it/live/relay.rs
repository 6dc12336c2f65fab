//! What passes by: bytes, back pressure, the end.

use super::*;
use crate::wire::Wire;
use rustix::process::Signal;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

/// A session whose every byte the test writes, past the first message.
async fn bytes(damoov: &Simulator) -> (Proxy, Wire, Wire) {
    let (proxy, mut caller, mut api) = handshake::bytes(damoov).await;
    let first = b"\x81\x82\0\0\0\0[]";
    caller.write(first).await;
    assert_eq!(api.take(first.len()).await, first);
    (proxy, caller, api)
}

#[tokio::test]
async fn messages_of_every_kind_and_size_come_back_as_they_were() {
    let scene = scene().await;
    let mut session = scene.session().await;
    session.is_authenticated().await;
    for round in 0..200_usize {
        let size = [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20][round % 8];
        let content: Vec<u8> = (0..size).map(|at| (at * 31 + round) as u8).collect();
        let binary = Message::Binary(content.into());
        session.send(binary.clone()).await;
        session.send(Message::Ping(vec![round as u8].into())).await;
        let fragment = |text: &str, kind, last| {
            Message::Frame(Frame::message(text.to_owned(), OpCode::Data(kind), last))
        };
        session
            .send(fragment("{\"type\":\"echo\",", Data::Text, false))
            .await;
        session
            .send(fragment("\"x\":1}", Data::Continue, true))
            .await;
        assert_eq!(session.message().await, Some(binary));
        assert_eq!(
            session.message().await,
            Some(Message::Pong(vec![round as u8].into()))
        );
        let echo = Message::text("{\"type\":\"echo\",\"x\":1}");
        assert_eq!(session.message().await, Some(echo));
    }
}

#[tokio::test]
async fn not_a_byte_is_touched_not_even_of_what_is_no_frame() {
    let damoov = crate::harness::damoov().await;
    let (_proxy, mut caller, mut api) = bytes(&damoov).await;
    let noise: Vec<u8> = (0..3_000_000_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let (up, down) = (
        noise.clone(),
        noise.iter().rev().copied().collect::<Vec<_>>(),
    );
    let (mut heard_up, mut heard_down) = (Vec::new(), Vec::new());
    for piece in 0..30 {
        let piece = piece * 100_000..(piece + 1) * 100_000;
        tokio::join!(caller.write(&up[piece.clone()]), async {
            heard_up.extend(api.take(100_000 - 20).await);
        });
        tokio::join!(api.write(&down[piece]), async {
            heard_down.extend(caller.take(100_000 - 20).await);
        });
    }
    assert!(up.starts_with(&heard_up) && down.starts_with(&heard_down));
}

#[tokio::test]
async fn a_closed_half_is_closed_at_the_other_end_and_the_other_goes_on() {
    let damoov = crate::harness::damoov().await;
    let (_proxy, mut caller, mut api) = bytes(&damoov).await;
    caller.write(b"\x82\x81\0\0\0\0x").await;
    caller.close_half().await;
    assert_eq!(api.rest().await, b"\x82\x81\0\0\0\0x");
    api.write(b"\x82\x01y").await;
    assert_eq!(caller.take(3).await, b"\x82\x01y");
    api.close().await;
    assert_eq!(caller.rest().await, b"");
}

#[tokio::test]
async fn a_drain_closes_at_a_frame_boundary_in_both_directions() {
    let damoov = crate::harness::damoov().await;
    let (mut proxy, mut caller, mut api) = bytes(&damoov).await;
    api.write(b"\x82\x04ab").await;
    assert_eq!(caller.take(4).await, b"\x82\x04ab");
    proxy.signal(Signal::TERM);
    // Upstream's direction is between two frames and is told at once; then the frame ends.
    let goodbye = api.take(8).await;
    assert_eq!(goodbye[..2], *b"\x88\x82");
    let unmasked: Vec<_> = (0..2).map(|at| goodbye[6 + at] ^ goodbye[2 + at]).collect();
    assert_eq!(unmasked, 1001_u16.to_be_bytes());
    api.write(b"cd\x82\x01e").await;
    assert_eq!(caller.rest().await, b"cd\x88\x02\x03\xe9");
    drop((caller, api));
    assert!(proxy.ended().await.success());
}

#[tokio::test]
async fn a_drain_tells_every_caller_and_waits_for_no_frame_that_does_not_end() {
    let scene = scene().await;
    let mut proxy = scene.proxy;
    let device = user(1).to_string();
    let mut sessions = Vec::new();
    for authenticated in [false, true] {
        let fields = [("DeviceToken", &*device)];
        let mut session = Session::open(&proxy, LIVE, &fields).await.unwrap();
        if authenticated {
            session.is_authenticated().await;
        }
        sessions.push(session);
    }
    let started = tokio::time::Instant::now();
    proxy.signal(Signal::TERM);
    for mut session in sessions {
        assert_eq!(session.close_code().await, 1001);
    }
    assert!(proxy.ended().await.success());

    let (mut proxy, caller, mut api) = bytes(&scene.damoov).await;
    api.write(b"\x82\x04ab").await;
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().await.success());
    assert!(started.elapsed() < Duration::from_secs(15));
    drop((caller, api));
}

#[tokio::test]
async fn a_caller_that_does_not_read_holds_up_upstream_and_fills_no_memory() {
    const FLOOD: usize = 64 << 20;
    let scene = scene().await;
    let mut session = scene.session().await;
    session.is_authenticated().await;
    let before = scene.proxy.resident();
    let piece = 1 << 18;
    session
        .say(json!({"type": "flood", "count": FLOOD / piece, "size": piece}))
        .await;
    // Until what can flow has flown: the proxy's memory stands still.
    let mut most = before;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        most = most.max(scene.proxy.resident());
    }
    assert!(
        most - before < 8 << 20,
        "{} KiB more",
        (most - before) >> 10
    );
    let mut heard = 0;
    while heard < FLOOD {
        match session.message().await.unwrap() {
            Message::Binary(content) => heard += content.len(),
            other => panic!("{other:?}"),
        }
    }
    assert!(scene.proxy.resident().saturating_sub(before) < 8 << 20);
}

#[tokio::test]
async fn pings_of_the_api_reach_the_caller_and_pongs_come_back() {
    let scene = scene_with(|settings| settings.live.ping = Duration::from_millis(100)).await;
    let mut session = scene.session().await;
    session.authenticate().await;
    for _ in 0..5 {
        loop {
            let next = timeout(PATIENCE, session.socket.next()).await.unwrap();
            let message = next.unwrap().unwrap();
            if message.to_text().unwrap().contains("\"ping\"") {
                break;
            }
        }
        session.say(json!({"type": "pong", "timestamp": 1})).await;
    }
    // Without a pong the API closes, and the caller hears that.
    assert_eq!(
        loop {
            match session.message().await {
                Some(Message::Close(Some(close))) => break u16::from(close.code),
                Some(_) => {}
                None => panic!("no Close"),
            }
        },
        1008
    );
}

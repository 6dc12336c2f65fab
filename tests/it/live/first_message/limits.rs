//! What a first message may be: its frames, its size, how long it may take.

use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::*;
use crate::wire::Wire;

/// A frame as a caller sends it, masked by zeros; short.
fn frame(first: u8, content: &str) -> Vec<u8> {
    let length = content.len() as u16;
    let head = [&[first, 0xfe][..], &length.to_be_bytes(), &[0; 4]].concat();
    [&head[..], content.as_bytes()].concat()
}

#[tokio::test]
async fn of_a_first_message_without_an_end_nothing_passes() {
    let scene = scene().await;
    let ours = scene.handed_out(1).await;
    let damoov = crate::harness::damoov().await;
    let token = format!("{{\"type\":\"authenticate\",\"access_token\":\"{ours}\"");
    let cut = frame(0x81, &format!("{token}}}"));
    let close = b"\x88\x82\0\0\0\0\x03\xe8";
    for (said, heard) in [
        (frame(0x01, &token), &b""[..]),
        ([frame(0x01, &token), frame(0x00, ",")].concat(), b""),
        ([frame(0x01, &token), close.to_vec()].concat(), close),
        (cut[..cut.len() - 2].to_vec(), b""),
        (cut[..1].to_vec(), b""),
    ] {
        let (_proxy, mut caller, mut api) = handshake::bytes(&damoov).await;
        caller.write(&said).await;
        caller.close_half().await;
        assert_eq!(api.rest().await, heard, "{said:?}");
    }
}

#[tokio::test]
async fn a_first_message_that_is_no_text_is_refused() {
    let scene = scene().await;
    let ours = scene.handed_out(1).await;
    let token = json!({"type": "authenticate", "access_token": ours}).to_string();
    let damoov = crate::harness::damoov().await;
    for (said, code) in [
        (frame(0x82, &token), 1003_u16),
        (frame(0x02, "{"), 1003),
        // The end of a message that never began, and one within another.
        (frame(0x80, &token), 1002),
        ([frame(0x01, "{"), frame(0x82, &token)].concat(), 1002),
        ([frame(0x01, "{"), frame(0x81, &token)].concat(), 1002),
        // As if it were compressed.
        (frame(0xc1, &token), 1002),
    ] {
        let (_proxy, mut caller, mut api) = handshake::bytes(&damoov).await;
        caller.write(&said).await;
        let close = [&[0x88, 2][..], &code.to_be_bytes()].concat();
        assert_eq!(caller.take(4).await, close, "{said:?}");
        caller.close().await;
        let goodbye = api.rest().await;
        assert_eq!((goodbye.len(), goodbye[0]), (8, 0x88), "a Close, no more");
    }
    let mut session = scene.connect(LIVE, &[]).await;
    session.send(Message::Binary(token.into())).await;
    assert_eq!(session.close_code().await, 1003);
    scene.logs_none_of(&[&ours]);
}

#[tokio::test]
async fn fragments_are_joined_and_pings_between_them_are_answered() {
    let scene = scene().await;
    let mut session = scene.session().await;
    let text = json!({"type": "authenticate", "note": "in three pieces"}).to_string();
    let (first, rest) = text.split_at(9);
    let (second, third) = rest.split_at(20);
    let fragment = |text: &str, kind, last| {
        Message::Frame(Frame::message(text.to_owned(), OpCode::Data(kind), last))
    };
    session.send(fragment(first, Data::Text, false)).await;
    session.send(Message::Ping("a".into())).await;
    assert_eq!(session.message().await, Some(Message::Pong("a".into())));
    session.send(fragment(second, Data::Continue, false)).await;
    session.send(Message::Ping("b".into())).await;
    assert_eq!(session.message().await, Some(Message::Pong("b".into())));
    session.send(fragment(third, Data::Continue, true)).await;
    session.hears(&["authenticated"]).await;
    assert_eq!(scene.authenticates()[0].0["note"], "in three pieces");
}

#[tokio::test]
async fn a_first_message_of_64_kib_is_taken_and_a_longer_one_is_not() {
    let scene = scene().await;
    let message = |length: usize| {
        let shell = json!({"type": "authenticate", "x": ""}).to_string().len();
        json!({"type": "authenticate", "x": "x".repeat(length - shell)}).to_string()
    };
    let mut session = scene.session().await;
    session.send(Message::text(message(64 * 1024))).await;
    session.hears(&["authenticated"]).await;
    let mut session = scene.session().await;
    session.send(Message::text(message(64 * 1024 + 1))).await;
    assert_eq!(session.close_code().await, 1009);
    assert_eq!(scene.authenticates().len(), 1);
}

#[tokio::test]
async fn a_long_first_message_leaves_no_room_with_its_session() {
    const SESSIONS: u64 = 200;
    let scene = scene().await;
    let message = json!({"type": "authenticate", "x": "x".repeat(60_000)});
    let before = scene.proxy.resident();
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        let mut session = scene.session().await;
        session.say(message.clone()).await;
        session.hears(&["authenticated"]).await;
        sessions.push(session);
    }
    let each = scene.proxy.resident().saturating_sub(before) / SESSIONS;
    assert!(each < 120_000, "{each} bytes each");
}

#[tokio::test]
async fn a_caller_that_is_not_named_has_10_seconds_and_a_named_one_any_time() {
    let scene = scene().await;
    let mut named = scene.session().await;
    let started = tokio::time::Instant::now();
    let mut nobodys = scene.connect(LIVE, &[]).await;
    assert_eq!(nobodys.close_code().await, 1008);
    assert!(started.elapsed() >= Duration::from_secs(10));
    named.authenticate().await;
    named.hears(&["authenticated"]).await;
}

#[tokio::test]
async fn frames_that_no_client_may_send_end_the_session() {
    let scene = scene().await;
    for frame in [
        // Not masked; a reserved bit; a reserved opcode; a ping in fragments; a ping too long.
        &b"\x81\x02{}"[..],
        b"\xc1\x82\0\0\0\0{}",
        b"\x83\x82\0\0\0\0{}",
        b"\x09\x80\0\0\0\0",
        b"\x89\xfe\0\x7e\0\0\0\0",
    ] {
        let mut wire = Wire::to(&scene.proxy).await;
        wire.write(handshake::request(LIVE, "")).await;
        assert_eq!(wire.head().await.status(), 101);
        wire.write(frame).await;
        assert_eq!(
            wire.rest().await,
            b"\x88\x02\x03\xea",
            "{frame:?}: a Close, 1002"
        );
    }
}

//! The first message: tokens put in, renewed, refused; its limits.

use super::*;
use crate::harness::eventually;
use crate::wire::{Upstream, Wire};
use damoov_proxy::simulator::{ACCOUNT_EMAIL, Delay, INSTANCE_ID};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

/// Sooner than the proxy stops waiting for an answer to `authenticate`.
const SOON: Duration = Duration::from_secs(5);
/// An `authenticate` message, masked by zeros.
const FIRST: &[u8] = b"\x81\x97\0\0\0\0{\"type\":\"authenticate\"}";

/// A text frame as upstream sends it; short.
fn said(text: &str) -> Vec<u8> {
    [&[0x81, text.len() as u8], text.as_bytes()].concat()
}

/// Takes what the proxy makes of [`FIRST`].
async fn take_authenticate(api: &mut Wire) {
    let head = api.take(8).await;
    assert_eq!(head[..2], *b"\x81\xfe", "a text with a token");
    let length = u16::from_be_bytes([head[2], head[3]]);
    api.take(length.into()).await;
}

#[tokio::test]
async fn a_401_that_is_passed_on_stands_before_what_follows_it() {
    let damoov = crate::harness::damoov().await;
    let upstream = Upstream::listen().await;
    let proxy = handshake::in_front_of(&upstream, &damoov).await;
    let error = said("{\"type\":\"error\",\"code\":401}");
    // The second 401 settles it, the later ones are passed on.
    for authenticates in [2, 1, 1, 1, 1, 1, 1, 1] {
        let (mut caller, mut api) = handshake::more_bytes(&proxy, &upstream).await;
        caller.write(FIRST).await;
        for _ in 1..authenticates {
            take_authenticate(&mut api).await;
            api.write(&error).await;
        }
        take_authenticate(&mut api).await;
        let all = [&error[..], b"\x02\x04ab"].concat();
        api.write(&all).await;
        assert_eq!(caller.take(all.len()).await, all);
        api.write(b"cd").await;
        assert_eq!(caller.take(2).await, b"cd");
    }
}

#[tokio::test]
async fn after_any_other_error_or_a_close_the_caller_is_heard_at_once() {
    let damoov = crate::harness::damoov().await;
    for answer in [
        said("{\"type\":\"error\",\"code\":403}"),
        b"\x88\x02\x0f\xa3".to_vec(),
    ] {
        let (_proxy, mut caller, mut api) = handshake::bytes(&damoov).await;
        caller.write(FIRST).await;
        take_authenticate(&mut api).await;
        api.write(&answer).await;
        assert_eq!(caller.take(answer.len()).await, answer);
        let closes = b"\x88\x82\0\0\0\0\x03\xe8";
        caller.write(closes).await;
        let heard = timeout(SOON, api.take(closes.len())).await;
        assert_eq!(heard.expect("nothing is passed on"), closes);
    }
}

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
async fn a_token_of_ours_anywhere_else_ends_the_session_before_the_api_has_it() {
    let scene = scene().await;
    let ours = scene.handed_out(1).await;
    let escaped = ours.replacen('e', "\\u0065", 1);
    let authenticate = json!({"type": "authenticate", "token": ours}).to_string();
    for first in [
        authenticate.as_str(),
        &json!({"type": "subscribe", "token": format!("Bearer {ours}")}).to_string(),
        &format!("{{\"type\":\"subscribe\",\"a\":[\"{escaped}\"]}}"),
        &ours,
    ] {
        let mut session = scene.session().await;
        session.send(Message::text(first)).await;
        let error = session.json().await;
        assert_eq!(error["code"], 400, "{error}");
        assert!(!error.to_string().contains(&ours));
        assert_eq!(session.close_code().await, 1008);
    }
    assert!(scene.heard_at("/live").is_empty());

    // Later messages pass unread, but for that.
    let again = json!({"type": "authenticate", "access_token": ours}).to_string();
    let (start, end) = again.split_at(60);
    for frames in [
        vec![(again.as_str(), OpCode::Data(Data::Text), true)],
        vec![(again.as_str(), OpCode::Data(Data::Binary), true)],
        vec![
            (start, OpCode::Data(Data::Text), false),
            (end, OpCode::Data(Data::Continue), true),
        ],
    ] {
        let mut session = scene.session().await;
        session.authenticate().await;
        session
            .hears(&["authenticated", "welcome", "subscribed"])
            .await;
        session.say(json!({"type": "echo"})).await;
        session.hears(&["echo"]).await;
        for (text, opcode, last) in frames {
            let frame = Frame::message(text.to_owned(), opcode, last);
            session.send(Message::Frame(frame)).await;
        }
        assert_eq!(session.json().await["code"], 400);
        assert_eq!(session.close_code().await, 1008);
    }
    let heard = scene.authenticates();
    assert_eq!(heard.len(), 3, "one a session");
    assert!(!format!("{heard:?}").contains(&ours[..80]));
    scene.logs_none_of(&[&ours]);
}

#[tokio::test]
async fn every_spelling_of_a_tokens_name_is_replaced() {
    let scene = scene().await;
    let ours = scene.handed_out(1).await;
    for message in [
        format!(
            "{{\"type\":\"authenticate\",\"access_token\":\"a.b\",\"access_token\":\"{ours}\"}}"
        ),
        format!(
            "{{\"Type\":\"authenticate\",\"Access_Token\":\"{ours}\",\"ACCESS_TOKEN\":\"{ours}\"}}"
        ),
        format!("\u{feff}{{\"type\":\"authenticate\",\"\\u0061ccess_token\":\"{ours}\"}}"),
    ] {
        let mut session = scene.connect(LIVE, &[]).await;
        session.send(Message::text(message)).await;
        session.hears(&["authenticated"]).await;
    }
    let heard = scene.authenticates();
    assert_eq!(heard.len(), 3);
    assert!(!format!("{heard:?}").contains(&ours));
}

#[tokio::test]
async fn a_token_and_the_instance_are_put_in_where_there_are_none() {
    let scene = scene_with(|settings| settings.live.update = Duration::from_millis(20)).await;
    let mut session = scene.session().await;
    session
        .say(json!({"type": "authenticate", "client_id": "c", "units": ["km", 1.10]}))
        .await;
    session
        .hears(&["authenticated", "welcome", "subscribed"])
        .await;
    for _ in 0..3 {
        let update = timeout(PATIENCE, session.socket.next()).await.unwrap();
        let update = update.unwrap().unwrap();
        assert!(update.to_text().unwrap().contains("device_update"));
    }
    let [(heard, 200)] = &scene.authenticates()[..] else {
        panic!("{:?}", scene.authenticates());
    };
    assert_eq!(heard["instance_id"], INSTANCE_ID);
    assert_eq!(heard["client_id"], "c");
    assert_eq!(heard["units"].to_string(), "[\"km\",1.1]");
    assert_eq!(scene.count(1).authenticated, 1);
    assert_eq!(scene.proxy.metric("live_connections", "").await, 1.0);
    drop(session);
    eventually("the session ends", async || {
        scene.proxy.metric("live_connections", "").await == 0.0
    })
    .await;
    scene.logs_none_of(&[heard["access_token"].as_str().unwrap()]);
}

#[tokio::test]
async fn a_token_that_the_proxy_handed_out_names_its_user_and_is_swapped() {
    let scene = scene().await;
    let ours = scene.handed_out(1).await;
    let mut session = scene.connect(LIVE, &[]).await;
    let instance = INSTANCE_ID.replace('-', "");
    session
        .say(json!({"type": "authenticate", "access_token": ours, "instance_id": instance}))
        .await;
    session.hears(&["authenticated"]).await;
    let (heard, _) = &scene.authenticates()[0];
    assert_ne!(heard["access_token"], *ours);
    assert_eq!(heard["instance_id"], *instance, "what is there stays");
    assert_eq!(scene.count(1).authenticated, 1);
    assert!(!scene.handshakes()[0].headers.contains_key("authorization"));
    scene.logs_none_of(&[&ours, heard["access_token"].as_str().unwrap()]);
}

#[tokio::test]
async fn an_account_is_named_by_its_prefix() {
    let scene = scene().await;
    let target = format!("/~account:reporting{LIVE}");
    let mut session = scene.connect(&target, &[]).await;
    session.authenticate().await;
    session.hears(&["authenticated"]).await;
    let (heard, _) = &scene.authenticates()[0];
    assert_eq!(heard.get("instance_id"), None);
    let recorded = scene.heard_at("/live").remove(0);
    assert_eq!(recorded.principal, Some(format!("account:{ACCOUNT_EMAIL}")));
}

#[tokio::test]
async fn a_strangers_token_is_replaced_if_somebody_is_named_else_refused() {
    let scene = scene().await;
    let foreign = json!({"type": "authenticate", "access_token": "a.b.c"});
    let mut named = scene.session().await;
    named.say(foreign.clone()).await;
    named.hears(&["authenticated"]).await;

    for (message, status, code) in [
        (foreign, 401, "token_invalid"),
        (json!({"type": "authenticate"}), 400, "device_token_missing"),
    ] {
        let mut nobodys = scene.connect(LIVE, &[]).await;
        nobodys.say(message).await;
        let error = nobodys.json().await;
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("error"), &json!(status))
        );
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .starts_with(&format!("{code}: "))
        );
        assert_eq!(nobodys.close_code().await, 1008);
    }
    assert_eq!(scene.authenticates().len(), 1);
}

#[tokio::test]
async fn a_forged_token_is_refused_and_one_that_names_somebody_else_conflicts() {
    let scene = scene().await;
    let ours = scene.handed_out(2).await;
    let forged = format!("{}AAAA", &ours[..ours.len() - 4]);
    for (token, code) in [(&ours, "principal_conflict"), (&forged, "token_invalid")] {
        let mut session = scene.session().await;
        session
            .say(json!({"type": "authenticate", "access_token": token}))
            .await;
        let error = session.json().await;
        assert!(
            error["message"].as_str().unwrap().starts_with(code),
            "{error}"
        );
        assert_eq!(session.close_code().await, 1008);
    }
    assert!(scene.authenticates().is_empty());
    scene.logs_none_of(&[&ours, &forged]);
}

#[tokio::test]
async fn a_401_renews_once_and_the_caller_sees_none_of_it() {
    let scene = scene().await;
    let mut session = scene.session().await;
    scene.damoov.handle().expire(None);
    session.authenticate().await;
    session
        .hears(&["authenticated", "welcome", "subscribed"])
        .await;
    let statuses: Vec<_> = scene
        .authenticates()
        .iter()
        .map(|(_, status)| *status)
        .collect();
    assert_eq!(statuses, [401, 200]);
    let count = scene.count(1);
    assert_eq!((count.refreshes.ok, count.logins.all()), (1, 0));
    assert_eq!(
        scene.proxy.metric("replays_total", "result=\"ok\"").await,
        1.0
    );
}

#[tokio::test]
async fn a_revoked_pair_costs_one_login_and_the_caller_sees_none_of_it() {
    let scene = scene().await;
    let mut session = scene.session().await;
    scene.damoov.handle().revoke(None);
    session.authenticate().await;
    session.hears(&["authenticated"]).await;
    let count = scene.count(1);
    assert_eq!((count.refreshes.rejected, count.logins.ok), (1, 1));
}

#[tokio::test]
async fn an_api_that_always_says_401_is_asked_twice_and_heard_once() {
    let scene = scene().await;
    let always = Fault::new(On::Path(AUTHENTICATE.into()), Action::status(401));
    scene.damoov.handle().add_fault(always);
    let mut session = scene.session().await;
    session.authenticate().await;
    let error = session.json().await;
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("error"), &json!(401))
    );
    session.say(json!({"type": "echo"})).await;
    session.hears(&["echo"]).await;
    assert_eq!(scene.authenticates().len(), 2);

    // A minute's peace: the next 401 is the answer.
    let mut next = scene.session().await;
    next.authenticate().await;
    assert_eq!(next.json().await["code"], 401);
    assert_eq!(scene.authenticates().len(), 3);
    let count = scene.count(1);
    assert_eq!((count.refreshes.all(), count.logins.all()), (1, 0));
}

#[tokio::test]
async fn a_failed_renewal_is_an_error_of_the_proxy_and_not_a_401() {
    let scene = scene().await;
    let mut session = scene.session().await;
    scene.damoov.handle().expire(None);
    let down = Fault::new(On::Auth, Action::status(503));
    scene.damoov.handle().add_fault(down);
    session.authenticate().await;
    let error = session.json().await;
    assert_eq!(error["code"], 502, "{error}");
    assert_eq!(session.close_code().await, 1011);
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
async fn what_is_no_authenticate_passes_untouched_with_all_that_follows() {
    let scene = scene().await;
    for odd in [
        "{\"type\":\"echo\" , \"n\": 1.10}",
        "{\"type\":\"echo\",\"x\":\"\\u00e9\"}",
    ] {
        let mut session = scene.connect(LIVE, &[]).await;
        session.send(Message::text(odd)).await;
        assert_eq!(session.message().await, Some(Message::text(odd)));
        let binary = Message::Binary(vec![7; 100_000].into());
        session.send(binary.clone()).await;
        assert_eq!(session.message().await, Some(binary));
        session
            .say(json!({"type": "authenticate", "access_token": "a.b.c"}))
            .await;
        assert_eq!(session.json().await["code"], 401, "it is too late for ours");
    }
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
async fn whoever_is_not_named_has_10_seconds_and_whoever_is_has_any_time() {
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

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_cancel_the_renewal() {
    let scene = scene().await;
    let mut session = scene.session().await;
    scene.damoov.handle().expire(None);
    let slow = Fault::new(On::Refresh, Action::Delay(Delay::Millis(400)));
    scene.damoov.handle().add_fault(slow.times(1));
    session.authenticate().await;
    eventually("a refresh is under way", async || {
        scene.count(1).refreshes_at_once == 1
    })
    .await;
    drop(session);
    eventually("the refresh ends", async || {
        scene
            .proxy
            .metric("renewals_total", "grant=\"refresh\"")
            .await
            == 1.0
    })
    .await;
    assert_eq!(scene.proxy.get(1, SCORES).await.status, 200);
    assert_eq!(scene.count(1).refreshes.all(), 1);
}

#[tokio::test]
async fn fifty_sessions_of_one_user_share_one_refresh() {
    let scene = scene().await;
    let opening = (0..50).map(|_| scene.session());
    let sessions = futures_util::future::join_all(opening).await;
    scene.damoov.handle().expire(None);
    let authenticating = sessions.into_iter().map(async |mut session| {
        session.authenticate().await;
        session.hears(&["authenticated"]).await;
    });
    futures_util::future::join_all(authenticating).await;
    let count = scene.count(1);
    assert_eq!((count.refreshes.all(), count.logins.all()), (1, 0));
}

#[tokio::test]
async fn no_login_waits_for_a_session_whose_caller_has_left() {
    let damoov = crate::harness::damoov().await;
    let proxy = crate::harness::proxy(&damoov)
        .set("renewal.wait", "1h")
        .start()
        .await;
    let scene = Scene { damoov, proxy };
    for number in 1..=3 {
        assert_eq!(scene.proxy.get(number, SCORES).await.status, 200);
    }
    let ours = scene.handed_out(1).await;
    // The fourth slot of the minute is for users seen before.
    scene.damoov.handle().revoke(Some(&principal(2)));
    assert_eq!(scene.proxy.get(2, SCORES).await.status, 200);
    scene.damoov.handle().revoke(Some(&principal(1)));
    let as_many_wait = async |count: f64| {
        eventually("as many wait for a slot", async || {
            scene.proxy.metric("logins_waiting", "").await == count
        })
        .await;
    };
    // The first one's token is found out to be dead, the second one's is known to be.
    for _ in 0..2 {
        let mut session = scene.connect(LIVE, &[]).await;
        session
            .say(json!({"type": "authenticate", "access_token": ours}))
            .await;
        as_many_wait(1.0).await;
        drop(session);
        as_many_wait(0.0).await;
    }
    assert_eq!(scene.count(1).logins.all(), 0);
}

//! The first message: tokens put in, refused, replaced, renewed; its limits.

use damoov_proxy::simulator::{ACCOUNT_EMAIL, INSTANCE_ID};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::*;
use crate::harness::eventually;

// A first message that the API answers with a 401.
mod renewals;
// What it may be: its frames, its size, how long it may take.
mod limits;

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
        session.is_authenticated().await;
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

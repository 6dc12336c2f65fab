//! The handshake: names, refusals, renewals, odd upstreams.

use super::*;
use crate::harness::{ECHO, eventually, proxy, trusting, with_tls};
use crate::wire::{Upstream, Wire};

/// A handshake, written by hand; names user 1.
pub(super) fn request(target: &str, fields: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\nDeviceToken: {}\r\n{fields}\r\n",
        user(1)
    )
}

/// A proxy whose live host is this.
pub(super) async fn in_front_of(upstream: &Upstream, damoov: &Simulator) -> Proxy {
    proxy(damoov)
        .redirect("portal-apis.telematicssdk.com", &upstream.url())
        .start()
        .await
}

/// A session of user 1 whose every byte the test writes, at both of its ends.
pub(super) async fn bytes(damoov: &Simulator) -> (Proxy, Wire, Wire) {
    let upstream = Upstream::listen().await;
    let proxy = in_front_of(&upstream, damoov).await;
    let (caller, api) = more_bytes(&proxy, &upstream).await;
    (proxy, caller, api)
}

/// The same of a proxy that runs already.
pub(super) async fn more_bytes(proxy: &Proxy, upstream: &Upstream) -> (Wire, Wire) {
    let mut caller = Wire::to(proxy).await;
    caller.write(request(LIVE, "")).await;
    let switching = "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    let api = upstream.answer_once(switching).await;
    assert_eq!(caller.head().await.status(), 101);
    (caller, api)
}

#[tokio::test]
async fn the_handshake_is_rebuilt_in_both_directions() {
    let damoov = crate::harness::damoov().await;
    let upstream = Upstream::listen().await;
    let proxy = in_front_of(&upstream, &damoov).await;
    let mut caller = Wire::to(&proxy).await;
    let fields = "Sec-WebSocket-Extensions: permessage-deflate\r\n\
                  Sec-WebSocket-Protocol: a, b\r\nCookie: x\r\nX-Forwarded-For: 1.2.3.4\r\n\
                  X-Own: 1\r\n";
    caller
        .write(request(&format!("{LIVE}?x=%20y"), fields))
        .await;
    let mut api = upstream.accept().await;
    let heard = api.head().await;
    let first = heard.head.lines().next().unwrap();
    assert_eq!(first, format!("GET {LIVE}?x=%20y HTTP/1.1"));
    for (name, value) in [
        ("host", Some(upstream.url().replace("http://", ""))),
        ("connection", Some("Upgrade".to_owned())),
        ("upgrade", Some("websocket".to_owned())),
        (
            "sec-websocket-key",
            Some("dGhlIHNhbXBsZSBub25jZQ==".to_owned()),
        ),
        ("sec-websocket-version", Some("13".to_owned())),
        ("sec-websocket-protocol", Some("a, b".to_owned())),
        ("x-own", Some("1".to_owned())),
        ("devicetoken", Some(user(1).to_string())),
        ("sec-websocket-extensions", None),
        ("cookie", None),
        ("x-forwarded-for", None),
    ] {
        assert_eq!(heard.field(name), value.as_deref(), "{name}");
    }
    let bearer = heard.field("authorization").unwrap();
    assert!(bearer.starts_with("Bearer ey"), "{bearer}");

    api.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n\
         Sec-WebSocket-Accept: abc=\r\nSec-WebSocket-Protocol: a\r\nSet-Cookie: x\r\n\
         Sec-WebSocket-Extensions: permessage-deflate\r\nServer: x\r\n\r\n\x09behind it",
    )
    .await;
    let answer = caller.head().await;
    assert_eq!(answer.status(), 101);
    for (name, value) in [
        ("connection", Some("Upgrade")),
        ("upgrade", Some("websocket")),
        ("sec-websocket-accept", Some("abc=")),
        ("sec-websocket-protocol", Some("a")),
        ("proxy-status", Some("damoov-proxy; details=\"renewed\"")),
        ("set-cookie", None),
        ("sec-websocket-extensions", None),
        ("server", None),
    ] {
        assert_eq!(answer.field(name), value, "{name}");
    }
    assert_eq!(caller.take(10).await, b"\x09behind it");
}

#[tokio::test]
async fn a_token_in_the_query_names_its_user_and_is_swapped() {
    let scene = scene().await;
    let ours = scene.handed_out(1).await;
    let target = format!("{LIVE}?a=%zz&token={ours}&b");
    let mut session = scene.connect(&target, &[]).await;
    session.hears(&["welcome", "subscribed"]).await;
    let heard = &scene.handshakes()[0];
    assert_eq!(heard.principal, Some(principal(1).to_string()));
    assert!(heard.target.starts_with(&format!("{LIVE}?a=%zz&token=ey")));
    assert!(heard.target.ends_with("&b") && !heard.target.contains(&ours));
    assert_eq!(session.headers["proxy-status"], "damoov-proxy");
    // And it may authenticate all the same.
    session
        .say(json!({"type": "authenticate", "access_token": ours}))
        .await;
    session.hears(&["authenticated"]).await;
    let real = heard.target.split(['=', '&']).nth(3).unwrap().to_owned();
    scene.logs_none_of(&[&ours, &real]);
}

#[tokio::test]
async fn a_401_to_the_handshake_renews_and_shakes_hands_once_more() {
    let scene = scene().await;
    let ours = scene.handed_out(1).await;
    scene.damoov.handle().expire(None);
    let target = format!("{LIVE}?token={ours}");
    let mut session = scene.connect(&target, &[]).await;
    session.hears(&["welcome", "subscribed"]).await;
    let statuses: Vec<_> = scene
        .handshakes()
        .iter()
        .map(|heard| heard.status)
        .collect();
    assert_eq!(statuses, [401, 101]);
    assert_eq!(
        session.headers["proxy-status"],
        "damoov-proxy; details=\"replayed\""
    );
    let count = scene.count(1);
    assert_eq!((count.refreshes.ok, count.logins.all()), (1, 0));
}

#[tokio::test]
async fn a_second_401_to_the_handshake_is_the_answer() {
    let scene = scene().await;
    let always = Fault::new(On::Path(LIVE.into()), Action::status(401));
    scene.damoov.handle().add_fault(always);
    let device = user(1).to_string();
    for handshakes in [2, 3] {
        let (status, code) = scene.refused(LIVE, &[("DeviceToken", &device)]).await;
        assert_eq!((status, &*code), (401, "Simulated"));
        assert_eq!(scene.handshakes().len(), handshakes);
    }
    assert_eq!(scene.count(1).refreshes.all(), 1);
}

#[tokio::test]
async fn a_strangers_query_token_is_replaced_for_a_named_user_else_refused() {
    let scene = scene().await;
    let target = format!("{LIVE}?token=a.b.c&token");
    let (status, code) = scene.refused(&target, &[]).await;
    assert_eq!((status, &*code), (401, "token_invalid"));
    assert!(scene.handshakes().is_empty());
    let device = user(1).to_string();
    scene.connect(&target, &[("DeviceToken", &device)]).await;
    let heard = scene.handshakes().remove(0).target;
    assert_eq!(heard.matches("token=ey").count(), 2, "{heard}");
    assert!(!heard.contains("a.b.c"));
}

#[tokio::test]
async fn every_way_to_name_two_users_is_a_conflict() {
    let scene = scene().await;
    let (one, two) = (scene.handed_out(1).await, scene.handed_out(2).await);
    let device = user(1).to_string();
    let bearer = format!("Bearer {two}");
    let prefixed = format!("/~{device}{LIVE}");
    for (target, fields) in [
        (
            format!("{LIVE}?token={two}"),
            vec![("DeviceToken", &*device)],
        ),
        (format!("{LIVE}?token={one}&token={two}"), vec![]),
        (
            format!("{LIVE}?token={one}"),
            vec![("Authorization", &*bearer)],
        ),
        (prefixed.clone(), vec![("Authorization", &*bearer)]),
        (format!("{prefixed}?token={two}"), vec![]),
    ] {
        let (status, code) = scene.refused(&target, &fields).await;
        assert_eq!((status, &*code), (400, "principal_conflict"), "{fields:?}");
    }
    assert!(scene.handshakes().is_empty());
    scene.connect(LIVE, &[("Authorization", &bearer)]).await;
    assert_eq!(scene.handshakes().len(), 1);
}

#[tokio::test]
async fn websocket_is_served_on_one_route_alone() {
    let scene = scene().await;
    let device = user(1).to_string();
    let named = [("DeviceToken", &*device)];
    for (target, expected) in [
        (ECHO, (501, "upgrade_unknown")),
        ("/realtime/api/v1/devices", (501, "upgrade_unknown")),
        ("/v1/Auth/Login", (501, "upgrade_unknown")),
        ("/nowhere", (404, "route_unknown")),
    ] {
        let (status, code) = scene.refused(target, &named).await;
        assert_eq!((status, &*code), expected, "{target}");
    }
    let mut wire = Wire::to(&scene.proxy).await;
    let old = request(LIVE, "").replace("Version: 13", "Version: 8");
    let answer = wire.ask(old).await;
    assert_eq!((answer.status(), &*answer.code()), (400, "bad_request"));
    // Without an upgrade it is a request like any other.
    assert_eq!(scene.proxy.get(1, LIVE).await.status, 200);
    assert!(scene.handshakes().is_empty());
}

#[tokio::test]
async fn an_upstream_that_fails_or_does_not_switch_gives_an_ordinary_answer() {
    let damoov = crate::harness::damoov().await;
    let upstream = Upstream::listen().await;
    let proxy = in_front_of(&upstream, &damoov).await;
    for (answer, status, code) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Own: 1\r\n\r\nok",
            200,
            "",
        ),
        (
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
            403,
            "",
        ),
        (
            "HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
            502,
            "upstream_bad_response",
        ),
        (
            "HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n",
            502,
            "upstream_bad_response",
        ),
        ("HTTP/1.1 2", 502, "upstream_bad_response"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            502,
            "upstream_bad_response",
        ),
    ] {
        let asking = async {
            let mut caller = Wire::to(&proxy).await;
            let answer = caller.ask(request(LIVE, "")).await;
            // The connection still speaks HTTP.
            assert_eq!(caller.ask(request("/nowhere", "")).await.status(), 404);
            answer
        };
        let (heard, ()) = tokio::join!(asking, async {
            upstream.answer_once(answer).await.close().await;
        });
        assert_eq!((heard.status(), &*heard.code()), (status, code), "{answer}");
        assert_eq!(
            heard.field("x-own"),
            answer.contains("X-Own").then_some("1")
        );
    }
    drop(upstream);
    let answer = Wire::to(&proxy).await.ask(request(LIVE, "")).await;
    assert_eq!(
        (answer.status(), &*answer.code()),
        (502, "upstream_unreachable")
    );
}

#[tokio::test]
async fn a_session_is_opened_behind_a_certificate_that_is_trusted_alone() {
    let (damoov, folder) = with_tls("127.0.0.1").await;
    let device = user(1).to_string();
    let named = [("DeviceToken", &*device)];
    let trusted = trusting(proxy(&damoov), &folder).start().await;
    let mut session = Session::open(&trusted, LIVE, &named).await.unwrap();
    session.authenticate().await;
    session.hears(&["authenticated"]).await;

    let (elsewhere, folder) = with_tls("damoov.example").await;
    let other_name = trusting(proxy(&damoov), &folder)
        .redirect("portal-apis.telematicssdk.com", &elsewhere.base_url())
        .start()
        .await;
    let answer = Session::open(&other_name, LIVE, &[]).await.err().unwrap();
    assert_eq!(answer.status(), 502);
}

#[tokio::test]
async fn a_target_that_its_tokens_make_too_long_is_a_414() {
    let scene = scene().await;
    let target = format!("{LIVE}?{}", "token&".repeat(1000));
    let device = user(1).to_string();
    let (status, code) = scene.refused(&target, &[("DeviceToken", &device)]).await;
    assert_eq!((status, &*code), (414, "target_too_long"));
}

#[tokio::test]
async fn sessions_have_their_share_of_the_connections_to_a_host() {
    let scene = scene().await;
    let limited = proxy(&scene.damoov)
        .set("upstream.max_connections", "2")
        .start()
        .await;
    let device = user(1).to_string();
    let named = [("DeviceToken", &*device)];
    let first = Session::open(&limited, LIVE, &named).await.unwrap();
    let _second = Session::open(&limited, LIVE, &named).await.unwrap();
    let refused = Session::open(&limited, LIVE, &named).await.err().unwrap();
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(limited.get(1, SCORES).await.status, 200);
    drop(first);
    eventually("its connection is free", async || {
        Session::open(&limited, LIVE, &named).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_token_of_ours_in_an_odd_place_of_a_handshake_is_refused() {
    let scene = scene().await;
    let ours = scene.handed_out(1).await;
    let device = user(1).to_string();
    let named = ("DeviceToken", &*device);
    let protocols = format!("bearer, {ours}");
    for (target, field) in [
        (LIVE, ("Sec-WebSocket-Protocol", &*protocols)),
        (LIVE, ("X-Access-Token", &*ours)),
        (&format!("{LIVE}?access_token={ours}"), ("X-Own", "1")),
        (&format!("{LIVE}?a=%65{}", &ours[1..]), ("X-Own", "1")),
    ] {
        let refused = scene.refused(target, &[named, field]).await;
        assert_eq!(refused, (400, "bad_request".to_owned()));
    }
    assert!(scene.handshakes().is_empty());
    scene.logs_none_of(&[&ours]);
}

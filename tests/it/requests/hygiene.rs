//! What the API gets to see of a request, and the caller of an answer (I9).

use crate::harness::{ECHO, PlayedScene, Scene, user};
use crate::wire::{get, request};

#[tokio::test]
async fn neither_hop_by_hop_fields_nor_the_callers_credentials_reach_the_api() {
    let scene = Scene::new().await;
    let fields = "Connection: keep-alive, x-hop\r\n\
                  Connection: X-Other-Hop\r\n\
                  X-Hop: 1\r\n\
                  X-Other-Hop: 1\r\n\
                  Keep-Alive: timeout=5\r\n\
                  Proxy-Connection: keep-alive\r\n\
                  Proxy-Authenticate: Basic\r\n\
                  Proxy-Authorization: Bearer theirs\r\n\
                  TE: trailers\r\n\
                  Trailer: X-Trailer\r\n\
                  Upgrade: h2c\r\n\
                  HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\
                  Authorization: Bearer theirs\r\n\
                  Cookie: theirs=1\r\n\
                  X-Damoov-Proxy-Key: theirs\r\n\
                  Forwarded: for=10.0.0.1\r\n\
                  X-Forwarded-For: 10.0.0.1\r\n\
                  X-Forwarded-Proto: https\r\n\
                  X-Real-IP: 10.0.0.1\r\n\
                  InstanceKey: theirs\r\n\
                  Accept: */*\r\n\
                  X-Own: a\r\n\
                  X-Own: b\r\n";
    assert_eq!(scene.ask(get(ECHO, fields)).await.status(), 200);
    let heard = scene.heard().headers;
    let mut names: Vec<_> = heard.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "authorization",
            "devicetoken",
            "host",
            "via",
            "x-own"
        ]
    );
    let own: Vec<_> = heard.get_all("x-own").iter().collect();
    assert_eq!(own, ["a", "b"]);
    assert_eq!(heard["via"], "1.1 damoov-proxy");
    assert!(!format!("{heard:?}").contains("theirs"));
}

#[tokio::test]
async fn a_caller_cannot_nominate_our_fields_away() {
    let scene = Scene::new().await;
    let fields = "Connection: authorization, DeviceToken, host, via\r\n\
                  Connection: x-foo ,,content-length\r\n\
                  X-Foo: 1\r\nContent-Length: 3\r\n";
    let answer = scene.ask(request("POST", ECHO, fields) + "abc").await;
    assert_eq!(answer.status(), 200);
    let heard = scene.heard();
    assert_eq!(heard.content.unwrap(), "abc");
    assert_eq!(heard.principal.unwrap(), format!("user:{}", user(1)));
    for absent in ["connection", "x-foo", "devicetoken"] {
        assert!(!heard.headers.contains_key(absent), "{absent}");
    }
    for present in ["authorization", "via", "host"] {
        assert!(heard.headers.contains_key(present), "{present}");
    }
}

#[tokio::test]
async fn trailers_are_dropped() {
    let scene = Scene::new().await;
    let chunks = "3\r\nabc\r\n0\r\nAuthorization: Bearer theirs\r\nX-Trailer: 1\r\n\r\n";
    let head = request("POST", ECHO, "Transfer-Encoding: chunked\r\n");
    assert_eq!(scene.ask(head + chunks).await.status(), 200);
    let heard = scene.heard();
    assert_eq!(heard.content.unwrap(), "abc");
    assert!(!heard.headers.contains_key("x-trailer"));
}

#[tokio::test]
async fn on_passthrough_routes_the_callers_authorization_passes_alone() {
    let scene = Scene::with(|proxy| {
        proxy.toml(
            "[[route]]\npath = \"/pass\"\nhost = \"api.telematicssdk.com\"\n\
             credential = \"passthrough\"\n",
        )
    })
    .await;
    let fields = "Authorization: Bearer theirs\r\nCookie: a=b\r\nX-Test-Id: 1\r\n";
    scene.ask(get("/pass/x", fields)).await;
    let heard = scene.heard();
    assert_eq!(heard.headers["authorization"], "Bearer theirs");
    assert!(!heard.headers.contains_key("cookie"));
    assert_eq!(scene.damoov.handle().counts().total.logins.all(), 0);
}

#[tokio::test]
async fn a_registration_gets_our_instance_and_no_token() {
    let scene = Scene::new().await;
    let fields = "InstanceKey: theirs\r\nX-Test-Id: 1\r\nAuthorization: Bearer theirs\r\n\
                  Content-Type: application/json\r\nContent-Length: 2\r\n";
    let create = request("POST", "/v1/Registration/create", fields) + "{}";
    assert_eq!(scene.ask(create).await.status(), 200);
    let counts = scene.damoov.handle().counts().total;
    assert_eq!((counts.registrations.ok, counts.logins.all()), (1, 0));
}

#[tokio::test]
async fn an_answer_loses_its_cookies_and_its_hop() {
    let scene = PlayedScene::new().await;
    let (answer, _api) = scene
        .answered(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, x-hop\r\n\
             Keep-Alive: timeout=5\r\nX-Hop: 1\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\
             Proxy-Authenticate: Basic\r\nProxy-Status: forged\r\nX-Own: 1\r\n\r\nok",
        )
        .await;
    assert_eq!((answer.status(), &*answer.content), (200, &b"ok"[..]));
    for absent in ["set-cookie", "keep-alive", "x-hop", "proxy-authenticate"] {
        assert_eq!(answer.field(absent), None, "{absent}");
    }
    assert_eq!(answer.field("x-own"), Some("1"));
    let status = answer.field("proxy-status").unwrap();
    assert_eq!(
        status, "damoov-proxy; details=\"renewed\"",
        "the first call logged in"
    );
    assert_eq!(answer.field("via"), Some("1.1 damoov-proxy"));
}

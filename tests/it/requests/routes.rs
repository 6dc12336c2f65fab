//! Methods, protocols and expectations.

use crate::harness::{ECHO, Scene};
use crate::wire::{Wire, get, request};

#[tokio::test]
async fn a_method_that_is_none_of_the_apis_is_refused() {
    let scene = Scene::new().await;
    for method in ["TRACE", "BREW", "get", "PROPFIND"] {
        let head = request(method, ECHO, "");
        let answer = scene.ask(&head).await;
        assert_eq!(
            answer.field("allow"),
            Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
        );
        scene.refuses(head, 405, "method_unknown").await;
    }
}

#[tokio::test]
async fn an_upgrade_to_websocket_is_refused_and_another_is_ignored() {
    let scene = Scene::new().await;
    for fields in [
        "Connection: upgrade\r\nUpgrade: websocket\r\n",
        "Connection: upgrade\r\nUpgrade: h2c, WebSocket/13\r\n",
    ] {
        let request = get(ECHO, fields);
        scene.refuses(request, 501, "upgrade_unknown").await;
        // No Sec-WebSocket-Key: not a handshake, on the route that has them.
        let request = get("/realtime/api/v1/ws/realtime", fields);
        scene.refuses(request, 400, "bad_request").await;
        let request = get("/nowhere", fields);
        scene.refuses(request, 404, "route_unknown").await;
    }
    let h2c = "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n";
    assert_eq!(scene.ask(get(ECHO, h2c)).await.status(), 200);
    let heard = scene.heard().headers;
    assert!(!heard.contains_key("upgrade") && !heard.contains_key("http2-settings"));
}

#[tokio::test]
async fn a_caller_that_waits_for_100_gets_it_after_the_heads_checks() {
    let scene = Scene::new().await;
    let expecting = "Expect: 100-continue\r\nContent-Length: 3\r\n";
    let mut wire = Wire::to(&scene.proxy).await;
    assert_eq!(
        wire.ask(request("POST", ECHO, expecting)).await.status(),
        100
    );
    assert_eq!(wire.ask("abc").await.status(), 200);
    let heard = scene.heard();
    assert_eq!(heard.content.unwrap(), "abc");
    assert!(!heard.headers.contains_key("expect"), "answered by us");
}

#[tokio::test]
async fn a_caller_that_waits_for_100_is_refused_without_it() {
    let scene = Scene::new().await;
    let expecting = "Expect: 100-continue\r\nContent-Length: 3\r\n";
    let mut wire = Wire::to(&scene.proxy).await;
    let answer = wire.ask(request("POST", "/nowhere", expecting)).await;
    assert_eq!((answer.status(), answer.closes()), (404, true));
    assert!(wire.rest().await.is_empty());
    for value in ["", "200-ok", "100-continue, x", "100-continue=1"] {
        let fields = format!("Expect: {value}\r\nContent-Length: 3\r\n");
        let head = request("POST", ECHO, &fields);
        scene.refuses(head, 417, "expectation_unknown").await;
    }
}

#[tokio::test]
async fn a_request_for_an_unknown_path_is_told_the_route_to_add() {
    let scene = Scene::new().await;
    for (path, lines) in [
        (
            "/custom/data?StartDate=secret",
            [
                "path = \"/custom/data\"",
                "host = \"api.telematicssdk.com\"",
                "credential = \"user\"",
            ],
        ),
        (
            "/~00000001-0000-4000-8000-000000000000/mobilesdk/other/%3Cscript%3E/",
            [
                "path = \"/mobilesdk/other/*\"",
                "host = \"mobilesdk.telematicssdk.com\"",
                "credential = \"user\"",
            ],
        ),
        (
            "/v1/Auth/Logout",
            [
                "path = \"/v1/Auth/Logout\"",
                "host = \"user.telematicssdk.com\"",
                "credential = \"passthrough\"",
            ],
        ),
    ] {
        scene.refuses(get(path, ""), 404, "route_unknown").await;
        let answer = scene.ask(get(path, "")).await;
        let answer: serde_json::Value = serde_json::from_slice(&answer.content).unwrap();
        let message = answer["Errors"][0]["Message"].as_str().unwrap();
        let (_, route) = message.split_once(":\n").unwrap();
        assert_eq!(
            route.lines().collect::<Vec<_>>(),
            [&["[[route]]"], &lines[..]].concat()
        );
        assert!(
            !message.contains("secret") && !message.contains("script"),
            "{message}"
        );

        // Pasted as it stands, it serves the path.
        let added = Scene::with(|proxy| proxy.toml(&format!("{route}\n"))).await;
        let answer = added.ask(get(path, "X-Test-Id: 1\r\n")).await;
        assert_ne!(answer.code(), "route_unknown");
        added.heard();
    }
}

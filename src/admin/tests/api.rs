//! What the API of `[admin]` answers, and what it refuses before anything is told or done.

use super::*;

const OWN: &str = "127.0.0.1:9090";

/// A request of this listener's own page, or of no page.
fn own(method: Method, path: &str) -> http::request::Builder {
    let request = Request::builder().method(method).uri(path);
    request.header(header::HOST, OWN)
}

/// One that changes something.
fn write(path: &str) -> http::request::Builder {
    own(Method::POST, path).header("X-Damoov-Proxy", "1")
}

async fn answer(scene: &Scene, request: http::request::Builder) -> (u16, Value) {
    let answer = asked(scene, Serves::Everything, request).await;
    let told = serde_json::from_slice(answer.body()).unwrap_or_default();
    (answer.status().as_u16(), told)
}

fn done(scene: &Scene) -> usize {
    let engine = scene.engine.get().unwrap();
    engine.done.load(Ordering::Relaxed)
}

const WRITES: [&str; 3] = [
    "/api/principals/account:known/renew",
    "/api/principals/account:known/forget",
    "/api/reload",
];

#[tokio::test]
async fn a_write_needs_its_header_and_comes_from_no_other_page() {
    let scene = scene(well());
    for path in WRITES {
        for (request, code) in [
            (own(Method::POST, path), "caller_forbidden"),
            (
                own(Method::POST, path).header("X-Damoov-Proxy", "0"),
                "caller_forbidden",
            ),
            (
                write(path).header("Origin", "http://evil.example"),
                "origin_forbidden",
            ),
            (
                write(path).header("Origin", "http://127.0.0.1:8080"),
                "origin_forbidden",
            ),
            (write(path).header("Origin", "null"), "origin_forbidden"),
            (
                write(path).header("Sec-Fetch-Site", "cross-site"),
                "origin_forbidden",
            ),
            (
                write(path).header("Sec-Fetch-Site", "same-site"),
                "origin_forbidden",
            ),
        ] {
            let (status, told) = answer(&scene, request).await;
            let said = (status, told["Errors"][0]["Key"].as_str());
            assert_eq!(said, (403, Some(code)), "{path}");
        }
    }
    assert_eq!(done(&scene), 0, "nothing was done");
    for path in &WRITES[..2] {
        let origin = format!("http://{OWN}");
        let request = write(path)
            .header("Origin", origin)
            .header("Sec-Fetch-Site", "same-origin");
        assert_eq!(answer(&scene, request).await.0, 200, "{path}");
    }
    assert_eq!(done(&scene), 2);
}

#[tokio::test]
async fn what_is_not_for_probes_is_told_to_no_other_host_or_page() {
    let scene = scene(well());
    for path in [
        "/dashboard",
        "/metrics",
        "/api/state",
        "/api/events",
        "/api/config",
    ] {
        let get = || Request::builder().uri(path);
        let (status, told) = answer(&scene, get().header("Host", "evil.example")).await;
        let said = (status, told["Errors"][0]["Key"].as_str());
        assert_eq!(said, (421, Some("misdirected")), "{path}");
        let foreign = own(Method::GET, path).header("Sec-Fetch-Site", "cross-site");
        assert_eq!(answer(&scene, foreign).await.0, 403, "{path}");
    }
    for path in ["/livez", "/readyz", "/startupz"] {
        let request = Request::builder().uri(path).header("Host", "pod-7");
        assert_eq!(answer(&scene, request).await.0, 200, "{path}");
    }
    // A link in an alert or a wiki opens the page, and nothing else.
    let followed = |path| {
        own(Method::GET, path)
            .header("Sec-Fetch-Site", "cross-site")
            .header("Sec-Fetch-Mode", "navigate")
            .header("Sec-Fetch-Dest", "document")
    };
    assert_eq!(answer(&scene, followed("/dashboard")).await.0, 200);
    assert_eq!(answer(&scene, followed("/api/state")).await.0, 403);
}

#[tokio::test]
async fn a_wrong_method_is_405_an_unknown_who_404_long_content_413() {
    let scene = scene(well());
    for path in WRITES {
        let refused = asked(&scene, Serves::Everything, own(Method::GET, path)).await;
        assert_eq!(refused.status(), 405, "{path}");
        assert_eq!(refused.headers()[header::ALLOW], "POST", "{path}");
    }
    let refused = asked(&scene, Serves::Everything, write("/api/state")).await;
    assert_eq!(refused.status(), 405);
    assert_eq!(refused.headers()[header::ALLOW], "GET, HEAD");
    for request in [
        own(Method::GET, "/api/principals/account:nobody"),
        write("/api/principals/account:nobody/renew"),
        write("/api/principals/account:nobody/forget"),
    ] {
        let (status, told) = answer(&scene, request).await;
        let said = (status, told["Errors"][0]["Key"].as_str());
        assert_eq!(said, (404, Some("principal_unknown")));
    }
    let before = done(&scene);
    let long = Bytes::from(vec![b'x'; 64 * 1024 + 1]);
    let refused = asked_with(&scene, Serves::Everything, write(WRITES[1]), long.clone()).await;
    assert_eq!(refused.status(), 413);
    assert_eq!(done(&scene), before, "nothing was done");
    let most = long.slice(1..);
    let taken = asked_with(&scene, Serves::Everything, write(WRITES[1]), most).await;
    assert_eq!(taken.status(), 200);
}

#[tokio::test]
async fn each_path_of_the_api_tells_what_the_engine_says() {
    let scene = scene(well());
    for (path, field, told) in [
        ("/api/budget", "/remaining", "4"),
        ("/api/config", "/settings/listen", "\"127.0.0.1:8080\""),
        ("/api/config", "/restart_needed", "[]"),
        (
            "/api/principals?limit=7&after=x",
            "/principals/0/limit",
            "7",
        ),
        (
            "/api/principals?limit=7&after=x",
            "/principals/0/after",
            "\"x\"",
        ),
        (
            "/api/principals/account%3Aknown",
            "/principal",
            "\"account:known\"",
        ),
    ] {
        let (status, said) = answer(&scene, own(Method::GET, path)).await;
        assert_eq!(status, 200, "{path}");
        let found = said.pointer(field).map(Value::to_string);
        assert_eq!(found.as_deref(), Some(told), "{path}");
    }
    let (_, renewed) = answer(&scene, write(WRITES[0])).await;
    assert_eq!(renewed["outcome"], "refreshed");
    let bad = own(Method::GET, "/api/principals?limit=0");
    assert_eq!(answer(&scene, bad).await.0, 400);
}

#[tokio::test]
async fn the_state_says_first_what_is_wrong_and_holds_an_hour() {
    let scene = scene(Some(Still {
        conditions: vec![(Code::LoginBlocked, "for 60 s".to_owned())],
        logins: Logins {
            limit: Some(4),
            blocked: Duration::from_secs(60),
            ..Logins::default()
        },
        ..Still::default()
    }));
    let (status, state) = answer(&scene, own(Method::GET, "/api/state")).await;
    assert_eq!((status, &state["stage"]), (200, &"serving".into()));
    assert_eq!(state["sentence"]["level"], "bad");
    let what = "Damoov blocks logins from this address.";
    assert_eq!(state["sentence"]["what"], what);
    assert_eq!(state["logins"]["blocked_seconds"], 60.0);
    assert_eq!(state["logins"]["block_ends"], state["sentence"]["until"]);
    assert_eq!(state["ready"]["degraded"][0]["code"], "login_blocked");
    assert_eq!(state["history"]["requests"].as_array().unwrap().len(), 360);
    let room = state["room"].as_array().unwrap();
    assert_eq!(room[0]["what"], "event streams");
}

#[tokio::test]
async fn before_the_store_is_open_the_state_says_so_and_the_rest_waits() {
    let scene = scene(None);
    let (status, state) = answer(&scene, own(Method::GET, "/api/state")).await;
    assert_eq!((status, &state["stage"]), (200, &"starting".into()));
    assert_eq!(state["sentence"]["what"], "The store is being opened.");
    let early = asked(&scene, Serves::Everything, own(Method::GET, "/api/budget")).await;
    assert_eq!(early.status(), 503);
    assert_eq!(early.headers()[header::RETRY_AFTER], "1");
}

//! Web pages: preflights, and what their browsers are told of answers.

use damoov_proxy::simulator::{Action, Fault, On};

use crate::harness::{ECHO, PlayedScene, Scene, eventually};
use crate::wire::{Message, Wire, get, request};

const PAGE: &str = "https://app.example";
const EVERY_METHOD: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// A proxy that pages of [`PAGE`] may call.
async fn scene() -> Scene {
    Scene::with(|proxy| {
        proxy.set(
            "allowed_origins",
            &format!("[\"{PAGE}\", \"http://localhost:3000\"]"),
        )
    })
    .await
}

/// A preflight; it names nobody, as browsers send them.
fn preflight(path: &str, method: &str, fields: &str) -> String {
    format!(
        "OPTIONS {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: {PAGE}\r\n\
         Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\n\
         Access-Control-Request-Method: {method}\r\n{fields}\r\n"
    )
}

/// The names of the fields that are about other origins.
fn cors_fields(answer: &Message) -> Vec<String> {
    let lines = answer.head.lines().skip(1);
    let mut names: Vec<_> = lines
        .filter_map(|line| Some(line.split_once(':')?.0.to_ascii_lowercase()))
        .filter(|name| name.starts_with("access-control-"))
        .collect();
    names.sort_unstable();
    names
}

/// The page may read the answer, and nobody else's page.
#[track_caller]
fn is_readable(answer: &Message, page: &str) {
    assert_eq!(answer.field("access-control-allow-origin"), Some(page));
    let exposed = answer.field("access-control-expose-headers");
    assert_eq!(exposed, Some("Proxy-Status, Retry-After"));
    assert_eq!(answer.field("access-control-allow-credentials"), None);
    let varies = answer.field("vary").unwrap_or_default();
    assert!(varies.contains("Origin"), "{}", answer.head);
}

#[tokio::test]
async fn a_preflight_is_answered_by_the_proxy_before_anybody_is_named() {
    let scene = scene().await;
    let fields = "Access-Control-Request-Headers: authorization,content-type,devicetoken\r\n";
    let mut wire = Wire::to(&scene.proxy).await;
    for path in [ECHO, "/v1/companies/current", "/v1/Management/users/find"] {
        let answer = wire.ask(preflight(path, "PUT", fields)).await;
        assert_eq!(answer.status(), 204, "{path}: {}", answer.head);
        is_readable(&answer, PAGE);
        for (name, value) in [
            ("access-control-allow-methods", Some(EVERY_METHOD)),
            (
                "access-control-allow-headers",
                Some("authorization, content-type, devicetoken"),
            ),
            ("access-control-max-age", Some("600")),
            ("access-control-allow-private-network", None),
            ("content-length", None),
            ("proxy-status", Some("damoov-proxy")),
        ] {
            assert_eq!(answer.field(name), value, "{path}: {name}");
        }
        let varies = answer.field("vary").unwrap();
        for name in ["Origin", "Request-Method", "Request-Headers"] {
            assert!(varies.contains(name), "{varies}");
        }
    }
    let asking = "Access-Control-Request-Private-Network: true\r\n";
    let answer = wire.ask(preflight(ECHO, "GET", asking)).await;
    let allowed = answer.field("access-control-allow-private-network");
    assert_eq!(allowed, Some("true"));
    assert_eq!(answer.field("access-control-allow-headers"), None);
    scene.heard_nothing("preflights");
}

#[tokio::test]
async fn a_preflight_says_the_methods_of_all_routes_of_its_path() {
    let scene = Scene::with(|proxy| {
        proxy.set("allowed_origins", &format!("[\"{PAGE}\"]")).toml(
            "[[route]]\npath = \"/mine\"\nhost = \"api.telematicssdk.com\"\n\
                 credential = \"user\"\nmethods = [\"GET\", \"PATCH\"]\n",
        )
    })
    .await;
    for (path, method, methods) in [
        ("/mine/x?secret=1", "GET", "GET, PATCH"),
        ("/mine", "DELETE", "GET, PATCH"),
        ("/v1/Check/UserExists", "GET", "GET"),
        ("/V1/auth/LOGIN", "POST", "POST"),
        ("/v1/Management/users", "PUT", EVERY_METHOD),
        (ECHO, "no method", EVERY_METHOD),
    ] {
        let answer = scene.ask(preflight(path, method, "")).await;
        assert_eq!(answer.status(), 204, "{path}");
        let said = answer.field("access-control-allow-methods");
        assert_eq!(said, Some(methods), "{path}");
    }
    for path in ["/nowhere", "/v1/Auth/Logout"] {
        let answer = scene.ask(preflight(path, "GET", "")).await;
        assert_eq!((answer.status(), &*answer.code()), (404, "route_unknown"));
        is_readable(&answer, PAGE);
    }
    scene.heard_nothing("preflights");
}

#[tokio::test]
async fn a_preflight_promises_no_field_that_the_proxy_drops_or_refuses() {
    let scene = scene().await;
    for (asked, allowed) in [
        (
            "x-own,instanceid,instancekey,x-damoov-proxy-key,userdevicetoken",
            Some("x-own, instanceid, instancekey, x-damoov-proxy-key, userdevicetoken"),
        ),
        ("cookie,x-forwarded-for,x-own,connection,te", Some("x-own")),
        ("*,device_token,x_real_ip,host,expect", None),
    ] {
        let fields = format!("Access-Control-Request-Headers: {asked}\r\n");
        let answer = scene.ask(preflight(ECHO, "GET", &fields)).await;
        assert_eq!(answer.status(), 204);
        assert_eq!(
            answer.field("access-control-allow-headers"),
            allowed,
            "{asked}"
        );
    }
}

#[tokio::test]
async fn pages_of_other_origins_are_told_nothing() {
    let scene = scene().await;
    for origin in [
        "https://evil.example",
        "https://app.example.evil",
        "https://app.example:8443",
        "http://app.example",
        "null",
        "*",
        "",
    ] {
        for line in ["Access-Control-Request-Method: GET\r\n", ""] {
            for method in ["OPTIONS", "GET"] {
                let head = request(method, ECHO, &format!("Origin: {origin}\r\n{line}"));
                let answer = scene.ask(&head).await;
                assert_eq!(
                    (answer.status(), &*answer.code()),
                    (403, "origin_forbidden")
                );
                assert_eq!(cors_fields(&answer), [""; 0], "{origin}");
                assert_eq!(answer.field("vary"), None, "{origin}");
            }
        }
        // Refused for something else first.
        let head = format!("GET {ECHO} HTTP/1.1\r\nHost: evil.example\r\nOrigin: {origin}\r\n\r\n");
        let answer = scene.ask(head).await;
        assert_eq!(answer.status(), 421);
        assert_eq!(cors_fields(&answer), [""; 0], "{origin}");
    }
    let twice = format!("Origin: {PAGE}\r\nOrigin: {PAGE}\r\n");
    scene
        .refuses(get(ECHO, &twice), 403, "origin_forbidden")
        .await;
    scene.heard_nothing("other origins");

    let closed = Scene::new().await;
    let answer = closed.ask(preflight(ECHO, "GET", "")).await;
    assert_eq!(
        (answer.status(), &*answer.code()),
        (403, "origin_forbidden")
    );
    assert_eq!(cors_fields(&answer), [""; 0]);
    let answer = closed.ask(get(ECHO, "")).await;
    assert_eq!((answer.status(), answer.field("vary")), (200, None));
}

#[tokio::test]
async fn an_origin_is_the_same_in_any_case_and_with_the_port_of_its_scheme() {
    let scene = scene().await;
    for origin in [
        PAGE,
        "HTTPS://App.Example",
        "https://app.example:443",
        "http://localhost:3000",
    ] {
        let answer = scene.ask(get(ECHO, &format!("Origin: {origin}\r\n"))).await;
        assert_eq!(answer.status(), 200, "{origin}");
        is_readable(&answer, origin);
    }
}

#[tokio::test]
async fn answers_and_refusals_are_readable_for_an_allowed_page() {
    let scene = scene().await;
    let origin = format!("Origin: {PAGE}\r\nSec-Fetch-Site: cross-site\r\n");
    let bare = |path: &str, fields: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{origin}{fields}\r\n")
    };
    let long = format!("/{}", "x".repeat(9000));
    let elsewhere = format!("GET {ECHO} HTTP/1.1\r\nHost: evil.example\r\n{origin}\r\n");
    let large = format!("{origin}Content-Length: 70000\r\n");
    for (head, status, code) in [
        (get(ECHO, &origin), 200, ""),
        (request("HEAD", ECHO, &origin), 200, ""),
        (bare(ECHO, ""), 400, "device_token_missing"),
        (bare("/a/../b", ""), 400, "path_invalid"),
        (
            bare(ECHO, "Authorization: Bearer x\r\n"),
            401,
            "token_invalid",
        ),
        (bare("/nowhere", ""), 404, "route_unknown"),
        (request("BREW", ECHO, &origin), 405, "method_unknown"),
        (bare(&long, ""), 414, "target_too_long"),
        (elsewhere, 421, "misdirected"),
        (
            request("POST", "/v1/Auth/Login", &large) + &" ".repeat(70_000),
            413,
            "content_too_large",
        ),
    ] {
        let mut wire = Wire::to(&scene.proxy).await;
        wire.write(&head).await;
        let answer = match head.starts_with("HEAD") {
            true => wire.head().await,
            false => wire.message().await,
        };
        assert_eq!((answer.status(), &*answer.code()), (status, code));
        is_readable(&answer, PAGE);
    }
    scene
        .damoov
        .handle()
        .add_fault(Fault::new(On::Login, Action::status(429)));
    let stranger = "DeviceToken: 00000000-5a0e-4c1e-9f53-0d3c2f8a7b11\r\n";
    let answer = scene.ask(bare(ECHO, stranger)).await;
    assert_eq!((answer.status(), &*answer.code()), (503, "login_blocked"));
    assert!(answer.field("retry-after").is_some());
    is_readable(&answer, PAGE);

    // What a browser keeps of a request without an Origin must not be taken for a page's.
    let answer = scene.ask(get(ECHO, "")).await;
    assert_eq!(answer.field("vary"), Some("Origin"));
    assert_eq!(cors_fields(&answer), [""; 0]);
}

#[tokio::test]
async fn the_apis_own_fields_for_pages_are_removed_for_everybody() {
    let allowed = format!("[\"{PAGE}\"]");
    let scene = PlayedScene::with(|proxy| proxy.set("allowed_origins", &allowed)).await;
    let origin = format!("Origin: {PAGE}\r\n");
    for fields in ["", &origin] {
        let mut wire = Wire::to(&scene.proxy).await;
        wire.write(get(ECHO, fields)).await;
        let _api = scene
            .upstream
            .answer_once(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\
                 Vary: Accept-Encoding\r\nVary: X-Own\r\nAccess-Control-Allow-Origin: *\r\n\
                 Access-Control-Allow-Credentials: true\r\nAccess-Control-Expose-Headers: X-Own\r\n\
                 Access-Control-Whatever: 1\r\n\r\nok",
            )
            .await;
        let answer = wire.message().await;
        assert_eq!(answer.status(), 200);
        let varies = answer.field("vary");
        assert_eq!(varies, Some("Accept-Encoding, X-Own, Origin"));
        match fields {
            "" => assert_eq!(cors_fields(&answer), [""; 0]),
            _ => {
                is_readable(&answer, PAGE);
                assert_eq!(cors_fields(&answer).len(), 2, "{}", answer.head);
            }
        }
    }
}

#[tokio::test]
async fn an_options_request_that_is_no_preflight_goes_on() {
    let scene = scene().await;
    let origin = format!("Origin: {PAGE}\r\n");
    for fields in [&*origin, "Access-Control-Request-Method: GET\r\n", ""] {
        let answer = scene.ask(request("OPTIONS", ECHO, fields)).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.field("x-sim-method"), Some("OPTIONS"), "{fields}");
    }
}

#[tokio::test]
async fn a_websocket_of_an_allowed_page_opens_as_ever() {
    let scene = scene().await;
    let handshake = |origin: &str| {
        let fields = format!(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nOrigin: {origin}\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        );
        get("/realtime/api/v1/ws/realtime", &fields)
    };
    let answer = scene.ask(handshake(PAGE)).await;
    assert_eq!(answer.status(), 101);
    assert_eq!(cors_fields(&answer), [""; 0]);
    let answer = scene.ask(handshake("https://evil.example")).await;
    assert_eq!(
        (answer.status(), &*answer.code()),
        (403, "origin_forbidden")
    );
}

#[tokio::test]
async fn preflights_have_an_outcome_of_their_own_in_log_and_metrics() {
    let scene = scene().await;
    for origin in [PAGE, "https://evil.example"] {
        let head = preflight("/indicators/v3/x?secret=1", "GET", "").replace(PAGE, origin);
        scene.ask(head).await;
    }
    let labels = "route=\"/indicators/v3\",method=\"OPTIONS\",status_class=\"2xx\",\
                  outcome=\"preflight\"";
    assert_eq!(scene.proxy.metric("requests_total", labels).await, 1.0);
    let refused = "status_class=\"4xx\",outcome=\"caller_error\"";
    assert_eq!(scene.proxy.metric("requests_total", refused).await, 1.0);
    eventually("the access log has both", async || {
        let log = scene.proxy.log();
        let has = |words: &[&str]| {
            log.lines()
                .any(|line| words.iter().all(|word| line.contains(word)))
        };
        assert!(!log.contains("secret"));
        has(&[
            "\"outcome\":\"preflight\"",
            "\"status\":204",
            "\"source\":\"proxy\"",
        ]) && has(&["origin_forbidden", "\"status\":403"])
    })
    .await;
}

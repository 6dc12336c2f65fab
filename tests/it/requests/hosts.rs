//! Which Host is served, and who may ask: a web page must not reach a proxy on the loopback.

use crate::harness::{ECHO, Scene, user};
use crate::wire::{Wire, get};

/// `GET target` with these Host lines.
fn with_hosts(target: &str, hosts: &[&str]) -> String {
    let hosts: String = hosts
        .iter()
        .map(|host| format!("Host: {host}\r\n"))
        .collect();
    format!(
        "GET {target} HTTP/1.1\r\n{hosts}DeviceToken: {}\r\n\r\n",
        user(1)
    )
}

#[tokio::test]
async fn none_two_or_a_malformed_host_is_refused() {
    let scene = Scene::new().await;
    for hosts in [
        &[][..],
        &["localhost", "localhost"],
        &["localhost", "evil.example"],
        &[""],
        &[":80"],
        &["localhost:"],
        &["localhost:x"],
        &["localhost:65536"],
        &["user@localhost"],
        &["localhost/x"],
        &["local host"],
        &["localhost, evil.example"],
        &["[::1"],
        &["[::x]"],
    ] {
        let request = with_hosts(ECHO, hosts);
        scene.refuses(request, 400, "bad_request").await;
    }
}

#[tokio::test]
async fn a_host_that_is_not_served_is_misdirected() {
    let scene = Scene::new().await;
    for host in [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "telematicssdk.com.evil.example",
        "eviltelematicssdk.com",
        "telematicssdk.com",
    ] {
        let request = with_hosts(ECHO, &[host]);
        scene.refuses(request, 421, "misdirected").await;
        let absolute = with_hosts(&format!("http://{host}{ECHO}"), &["localhost"]);
        scene.refuses(absolute, 421, "misdirected").await;
    }
}

#[tokio::test]
async fn the_upstream_comes_from_the_route_table_whatever_the_host_says() {
    let scene = Scene::with(|proxy| proxy.set("hosts", r#"["proxy.internal"]"#)).await;
    for (target, host) in [
        (ECHO, "localhost"),
        (ECHO, "127.0.0.1:1"),
        (ECHO, "[::1]:8080"),
        (ECHO, "10.1.2.3"),
        (ECHO, "Proxy.Internal"),
        (ECHO, "user.telematicssdk.com"),
        (
            "http://user.telematicssdk.com/mobilesdk/stage/echo",
            "user.telematicssdk.com",
        ),
        (
            "http://localhost/mobilesdk/stage/echo",
            "api.telematicssdk.com",
        ),
    ] {
        let answer = scene.ask(with_hosts(target, &[host])).await;
        assert_eq!(answer.status(), 200, "{target} at {host}");
        let heard = scene.heard();
        assert_eq!(heard.target, ECHO);
        assert_eq!(
            heard.headers["host"],
            scene.damoov.addr().to_string().as_str()
        );
    }
}

#[tokio::test]
async fn the_authority_form_is_for_connect_alone_and_that_is_no_method_of_ours() {
    let scene = Scene::new().await;
    for target in ["api.telematicssdk.com:443", "localhost:80"] {
        let request = with_hosts(target, &["localhost"]).replace("GET ", "CONNECT ");
        assert!(scene.ask(&request).await.field("allow").is_some());
        scene.refuses(request, 405, "method_unknown").await;
    }
    let answer = scene.ask(with_hosts("localhost:80", &["localhost"])).await;
    assert_eq!(answer.status(), 400);
    scene.heard_nothing("authority-form");
}

#[tokio::test]
async fn a_page_of_a_foreign_origin_is_refused_on_both_listeners() {
    let scene =
        Scene::with(|proxy| proxy.set("allowed_origins", r#"["https://app.example"]"#)).await;
    for fields in [
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: https://app.example.evil\r\n",
        "Origin: https://app.example\r\nOrigin: https://evil.example\r\n",
        "Origin: null\r\nSec-Fetch-Site: none\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Sec-Fetch-Site: same-origin\r\n",
    ] {
        scene
            .refuses(get(ECHO, fields), 403, "origin_forbidden")
            .await;
        let mut status = Wire::connect(scene.proxy.status_address()).await;
        let answer = status.ask(get("/metrics", fields)).await;
        assert_eq!(answer.code(), "origin_forbidden", "{fields}");
    }
    for fields in [
        "Origin: https://app.example\r\n",
        "Origin: https://app.example\r\nSec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: none\r\n",
    ] {
        assert_eq!(scene.ask(get(ECHO, fields)).await.status(), 200, "{fields}");
    }
}

#[tokio::test]
async fn the_status_listener_serves_no_foreign_host_either() {
    let scene = Scene::new().await;
    let mut status = Wire::connect(scene.proxy.status_address()).await;
    let answer = status.ask(with_hosts("/metrics", &["evil.example"])).await;
    assert_eq!((answer.status(), &*answer.code()), (421, "misdirected"));
    let post = with_hosts("/livez", &["localhost"]).replace("GET", "POST");
    assert_eq!(status.ask(post).await.status(), 405);
}

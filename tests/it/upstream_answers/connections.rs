//! Connections to the API that are reused, refused, waited for, silent.

use crate::harness::{ECHO, ECHO_HOST, PlayedScene, SCORES, damoov, eventually, proxy};
use crate::wire::{GOOD, Upstream, Wire, get, request};

#[tokio::test]
async fn a_dead_reused_connection_is_replaced_once_if_nothing_happens_twice() {
    let scene = PlayedScene::new().await;
    let mut idle = scene.still_works().await;
    let mut caller = scene.calling("GET").await;
    idle.head().await;
    idle.close().await;
    let mut second = scene.upstream.answer_once(GOOD).await;
    assert_eq!(caller.message().await.content, b"good");

    // And only once: the second connection is a new one.
    let mut caller = scene.calling("GET").await;
    second.head().await;
    second.close().await;
    scene.upstream.answer_once("").await.close().await;
    assert_eq!(caller.message().await.status(), 502);

    // Content, or a method that changes something, may have been acted upon.
    for (method, fields, content) in [
        ("POST", "Content-Length: 0\r\n", ""),
        ("DELETE", "", ""),
        ("GET", "Content-Length: 1\r\n", "a"),
    ] {
        let mut idle = scene.still_works().await;
        let mut caller = Wire::to(&scene.proxy).await;
        caller.write(request(method, ECHO, fields) + content).await;
        idle.message().await;
        idle.close().await;
        assert_eq!(caller.message().await.status(), 502, "{method}");
    }
    scene.still_works().await;
}

#[tokio::test]
async fn an_answer_begun_is_never_asked_for_again() {
    let scene = PlayedScene::new().await;
    let mut idle = scene.still_works().await;
    let mut caller = scene.calling("GET").await;
    idle.head().await;
    idle.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")
        .await;
    assert_eq!(caller.head().await.status(), 200);
    idle.close().await;
    assert_eq!(caller.rest().await, b"short");
    scene.still_works().await;
}

#[tokio::test]
async fn an_answer_that_stays_out_is_a_504() {
    let scene = PlayedScene::with(|proxy| proxy.set("upstream.response_timeout", "200ms")).await;
    for method in ["GET", "POST"] {
        let mut caller = scene.calling(method).await;
        let mut api = scene.upstream.accept().await;
        api.head().await;
        let answer = caller.message().await;
        assert_eq!(
            (answer.status(), &*answer.code()),
            (504, "upstream_timeout")
        );
        assert!(api.rest().await.is_empty(), "not used again");
    }
    scene.still_works().await;
}

#[tokio::test]
async fn a_host_that_refuses_connections_is_a_502() {
    let closed = Upstream::listen().await.url();
    let damoov = damoov().await;
    let proxy = proxy(&damoov).redirect(ECHO_HOST, &closed).start().await;
    let answer = Wire::to(&proxy).await.ask(get(ECHO, "")).await;
    assert_eq!(
        (answer.status(), &*answer.code()),
        (502, "upstream_unreachable")
    );
    assert_eq!(proxy.get(1, SCORES).await.status, 200, "other hosts go on");
}

#[tokio::test]
async fn beyond_max_connections_requests_wait_for_a_free_connection() {
    let scene = PlayedScene::with(|proxy| proxy.set("upstream.max_connections", "1")).await;
    let mut first = scene.calling("GET").await;
    let mut api = scene.upstream.accept().await;
    api.head().await;
    let mut second = scene.calling("GET").await;
    eventually("both requests are in flight", async || {
        scene.proxy.metric("requests_in_flight", "").await == 2.0
    })
    .await;
    api.write(GOOD).await;
    assert_eq!(first.message().await.content, b"good");
    // On the same connection.
    api.head().await;
    api.write(GOOD).await;
    assert_eq!(second.message().await.content, b"good");
}

#[tokio::test]
async fn a_request_that_waits_too_long_for_a_connection_is_told_to_return() {
    let scene = PlayedScene::with(|proxy| {
        proxy
            .set("upstream.max_connections", "1")
            .set("upstream.connect_timeout", "200ms")
    })
    .await;
    let mut first = scene.calling("GET").await;
    let mut api = scene.upstream.accept().await;
    api.head().await;
    let answer = scene.calling("GET").await.message().await;
    assert_eq!((answer.status(), &*answer.code()), (503, "overloaded"));
    assert!(answer.field("retry-after").is_some());
    api.write(GOOD).await;
    assert_eq!(first.message().await.status(), 200);
    let logins = scene.damoov.handle().counts().total.logins;
    assert_eq!(logins.all(), 1, "renewals have connections of their own");
}

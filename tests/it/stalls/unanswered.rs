//! How long an answer may stay out: beside an upload, and on routes of their own.

use super::{LARGE, STALL, fill, scene, scene_with};
use crate::harness::{ECHO, ECHO_HOST, damoov, proxy};
use crate::wire::{GOOD, Upstream, Wire, get, request};

const PORTAL: &str = "portal-apis.telematicssdk.com";
const LIVE: &str = "/realtime/api/v1/ws/realtime";

#[tokio::test]
async fn an_upload_that_the_api_does_not_take_has_an_end() {
    let scene = scene_with(|proxy| proxy.set("upstream.response_timeout", "600ms")).await;
    let length = format!("Content-Length: {LARGE}\r\n");
    let (mut caller, api) = scene.asked(request("POST", ECHO, &length)).await;
    fill(&mut caller).await;
    let answer = caller.message().await;
    assert_eq!(
        (answer.status(), &*answer.code()),
        (504, "upstream_timeout")
    );
    drop(api);

    // And one that it answers, and then leaves lying.
    let (mut caller, mut api) = scene.asked(request("POST", ECHO, &length)).await;
    api.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        .await;
    assert_eq!(caller.head().await.status(), 200);
    fill(&mut caller).await;
    assert_eq!(caller.rest().await, b"abc");
    assert_eq!(
        scene.cut("stalled=\"upstream\",reason=\"timeout\"").await,
        1.0
    );
}

#[tokio::test]
async fn an_api_that_takes_an_upload_is_not_still_whenever_it_answers() {
    let scene = scene().await;
    let length = "Content-Length: 12\r\n";
    let (mut caller, mut api) = scene.asked(request("POST", ECHO, length)).await;
    api.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        .await;
    assert_eq!(caller.head().await.status(), 200);
    for _ in 0..12 {
        tokio::time::sleep(STALL / 4).await;
        caller.write("x").await;
        assert_eq!(api.take(1).await, b"x");
    }
    api.write("good").await;
    assert_eq!(caller.take(4).await, b"good");
    assert_eq!(scene.cut("").await, 0.0);
}

#[tokio::test]
async fn a_route_may_wait_longer_for_an_answer_than_the_others() {
    let route = format!(
        "[[route]]\npath = \"/poll\"\nhost = \"{ECHO_HOST}\"\ncredential = \"user\"\nresponse_timeout = \"20s\"\n"
    );
    let scene =
        scene_with(|proxy| proxy.toml(&route).set("upstream.response_timeout", "300ms")).await;
    let (mut poll, mut polled) = scene.asked(get("/poll", "")).await;
    let (mut other, _api) = scene.asked(get(ECHO, "")).await;
    let answer = other.message().await;
    assert_eq!(
        (answer.status(), &*answer.code()),
        (504, "upstream_timeout")
    );
    polled.write(GOOD).await;
    assert_eq!(poll.message().await.content, b"good");
}

#[tokio::test]
async fn the_route_of_live_tracking_may_wait_as_long_as_it_says() {
    let route = format!(
        "[[route]]\npath = \"{LIVE}$\"\nhost = \"{PORTAL}\"\ncredential = \"user_or_admin\"\n\
         response_timeout = \"300ms\"\n"
    );
    let damoov = damoov().await;
    let upstream = Upstream::listen().await;
    let proxy = proxy(&damoov).redirect(PORTAL, &upstream.url());
    let proxy = proxy.toml(&route).start().await;
    let mut caller = Wire::to(&proxy).await;
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let answer = caller.ask(get(LIVE, handshake)).await;
    assert_eq!(
        (answer.status(), &*answer.code()),
        (504, "upstream_timeout")
    );
}

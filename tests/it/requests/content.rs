//! Content that nobody has read when the answer is given.

use crate::harness::{ECHO, Scene};
use crate::wire::{Wire, get, request};

/// Content that looks like requests.
fn requests(length: usize) -> String {
    get(ECHO, "").repeat(length.div_ceil(get(ECHO, "").len()))[..length].to_owned()
}

#[tokio::test]
async fn content_behind_an_early_answer_is_swallowed_up_to_64_kib() {
    let scene = Scene::new().await;
    for length in [0, 1, 1000, 64 * 1024] {
        let mut wire = Wire::to(&scene.proxy).await;
        let head = request("POST", "/nowhere", &format!("Content-Length: {length}\r\n"));
        let answer = wire.ask(head + &requests(length)).await;
        assert_eq!((answer.status(), answer.closes()), (404, false), "{length}");
        scene.heard_nothing("content is no request");
        let next = wire.ask(get("/nowhere", "")).await;
        assert_eq!(next.code(), "route_unknown");
    }
}

#[tokio::test]
async fn behind_more_content_the_connection_ends_and_no_request_is_read() {
    let scene = Scene::new().await;
    for length in [200_000, 5_000_000] {
        let mut wire = Wire::to(&scene.proxy).await;
        let head = request("POST", "/nowhere", &format!("Content-Length: {length}\r\n"));
        let answer = wire.ask(head + &requests(length)).await;
        assert_eq!((answer.status(), answer.closes()), (404, true), "{length}");
        assert!(wire.rest().await.is_empty(), "{length}");
        scene.heard_nothing("content is no request");
    }
}

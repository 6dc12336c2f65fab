//! Limits of size, time and number.

use crate::harness::{ECHO, Scene};
use crate::wire::{Wire, get, request};

#[tokio::test]
async fn a_head_over_16_kib_or_64_fields_ends_the_connection() {
    let scene = Scene::new().await;
    let long = format!("X-Long: {}\r\n", "x".repeat(16 * 1024));
    scene.is_the_end(get(ECHO, &long), &[431]).await;
    let many = "X-Many: 1\r\n".repeat(63);
    scene.is_the_end(get(ECHO, &many), &[431]).await;
    let long = format!("X-Long: {}\r\n", "x".repeat(15 * 1024));
    assert_eq!(scene.ask(get(ECHO, &long)).await.status(), 200);
    let many = "X-Many: 1\r\n".repeat(62);
    assert_eq!(scene.ask(get(ECHO, &many)).await.status(), 200);
}

#[tokio::test]
async fn a_target_over_8_kib_is_refused() {
    let scene = Scene::new().await;
    let target = |length: usize| format!("{ECHO}?{}", "x".repeat(length - ECHO.len() - 1));
    scene
        .refuses(get(&target(8 * 1024 + 1), ""), 414, "target_too_long")
        .await;
    let longest = target(8 * 1024);
    assert_eq!(scene.ask(get(&longest, "")).await.status(), 200);
    assert_eq!(scene.heard().target, longest);
}

#[tokio::test]
async fn a_head_that_does_not_come_within_10_s_ends_the_connection() {
    let scene = Scene::new().await;
    let (mut silent, mut slow) = (Wire::to(&scene.proxy).await, Wire::to(&scene.proxy).await);
    let mut second = Wire::to(&scene.proxy).await;
    assert_eq!(second.ask(get(ECHO, "")).await.status(), 200);
    slow.write("GET /mobilesdk/stage/echo HTTP/1.1\r\nHost: loc")
        .await;
    second.write("GET /mobilesdk").await;
    let (silent, slow, second) = tokio::join!(silent.rest(), slow.rest(), second.rest());
    for said in [silent, slow, second] {
        let said = String::from_utf8(said).unwrap();
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 408"),
            "{said}"
        );
    }
    assert_eq!(scene.damoov.handle().counts().total.data_calls, 1);
}

#[tokio::test]
async fn content_that_stays_out_for_10_s_is_a_408_and_ends_the_connection() {
    let scene = Scene::new().await;
    let mut sized = Wire::to(&scene.proxy).await;
    let mut chunked = Wire::to(&scene.proxy).await;
    sized
        .write(request("POST", ECHO, "Content-Length: 3\r\n") + "a")
        .await;
    chunked
        .write(request("POST", ECHO, "Transfer-Encoding: chunked\r\n") + "1\r\na\r\n")
        .await;
    let (one, other) = tokio::join!(sized.message(), chunked.message());
    for answer in [one, other] {
        assert_eq!((answer.status(), &*answer.code()), (408, "content_timeout"));
        assert!(answer.closes());
    }
    assert!(sized.rest().await.is_empty() && chunked.rest().await.is_empty());
    assert_eq!(scene.damoov.handle().counts().total.data_calls, 0);
}

#[tokio::test]
async fn beyond_max_connections_the_next_caller_waits() {
    let scene = Scene::with(|proxy| proxy.set("max_connections", "1")).await;
    let mut first = Wire::to(&scene.proxy).await;
    first.ask(get(ECHO, "")).await;
    let mut second = Wire::to(&scene.proxy).await;
    second.write(get("/mobilesdk/stage/echo?second", "")).await;
    for _ in 0..5 {
        assert_eq!(first.ask(get(ECHO, "")).await.status(), 200);
    }
    assert_eq!(scene.heard().target, ECHO, "the second one waits");
    first.close().await;
    assert_eq!(second.message().await.status(), 200);
}

//! Who gives way while others wait for a connection, and what those cost who stand still.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{LARGE, fill, head_of, scene_with};
use crate::harness::{ECHO, allow_many_descriptors, heavy, rounds};
use crate::wire::{GOOD, get, request};

#[tokio::test]
async fn those_that_stand_still_give_way_to_those_who_wait_the_stillest_first() {
    let scene = scene_with(|proxy| {
        proxy
            .set("upstream.max_connections", "4")
            .set("upstream.stall_timeout", "60s")
            .set("upstream.connect_timeout", "20s")
    })
    .await;
    let (mut unread, mut unread_api) = scene.unread().await;
    let (mut stopped, mut stopped_api) = scene.stopped().await;
    let (mut waits_for_its_head, mut headless) = scene.asked(get(ECHO, "")).await;
    let (mut moving, mut moves) = scene.asked(get(ECHO, "")).await;
    moves.write(head_of(1 << 20)).await;
    moving.head().await;
    let dripping = async {
        loop {
            moves.write("x").await;
            moving.take(1).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let others = async {
        let began = Instant::now();
        scene.serves().await;
        assert!(began.elapsed() > Duration::from_secs(2), "5 s at least");
        assert_eq!(
            scene.cut("stalled=\"caller\",reason=\"gave_way\"").await,
            1.0
        );
        unread_api.rest().await;
        assert!(!unread.ends_whole().await);
        // Its place is held, so that the next one needs another.
        let (_held, _api) = scene.stopped().await;
        scene.serves().await;
        assert_eq!(
            scene.cut("stalled=\"upstream\",reason=\"gave_way\"").await,
            1.0
        );
        assert!(stopped.rest().await.is_empty() && stopped_api.rest().await.is_empty());
        headless.write(GOOD).await;
        assert_eq!(waits_for_its_head.message().await.content, b"good");
        assert_eq!(scene.cut("").await, 2.0, "one for each who waited");
    };
    tokio::select! {
        () = dripping => {}
        done = timeout(Duration::from_secs(30), others) => done.unwrap(),
    }
    let log = scene.proxy.log();
    assert!(
        log.contains("answers that have stalled are broken off"),
        "{log}"
    );
}

#[tokio::test]
async fn an_upload_behind_its_answer_gives_way_too() {
    let scene = scene_with(|proxy| {
        proxy
            .set("upstream.max_connections", "1")
            .set("upstream.connect_timeout", "20s")
    })
    .await;
    let length = "Content-Length: 1000\r\n";
    let (mut caller, mut api) = scene.asked(request("POST", ECHO, length)).await;
    api.write(GOOD).await;
    assert_eq!(caller.message().await.content, b"good");
    let dripping = async {
        for _ in 0..1000 {
            caller.write("x").await;
            tokio::time::sleep(Duration::from_secs(8)).await;
        }
    };
    tokio::select! {
        () = dripping => {}
        () = scene.serves() => {}
    }
    assert!(api.rest().await.len() < 10);
    assert_eq!(scene.cut("reason=\"gave_way\"").await, 1.0);
}

#[tokio::test]
async fn callers_that_read_nothing_cost_little_memory() {
    let _turn = heavy().await;
    allow_many_descriptors();
    let scene = scene_with(|proxy| {
        proxy
            .set("upstream.stall_timeout", "60s")
            .set("upstream.max_connections", "2000")
    })
    .await;
    let callers = rounds(100, 1_300);
    let mut held = Vec::new();
    // The first ones may read a lot at once.
    for _ in 0..20 {
        held.push(scene.unread().await);
    }
    let before = scene.proxy.resident();
    for _ in 0..callers {
        let (caller, mut api) = scene.asked(get(ECHO, "")).await;
        api.write(head_of(LARGE)).await;
        held.push((caller, api));
    }
    let filling = held[20..].iter_mut().map(|(_, api)| fill(api));
    futures_util::future::join_all(filling).await;
    let each = (scene.proxy.resident() - before) / callers as u64;
    assert!(each < 80 * 1024, "{each} bytes for each caller");
}

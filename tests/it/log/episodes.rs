//! What lasts is told when it begins and when it is over, not once a request.

use damoov_proxy::simulator::{Action, Fault, On};

use super::*;
use crate::harness::{ECHO, damoov, proxy};
use crate::wire::{Wire, get};

#[tokio::test]
async fn a_budget_that_is_used_up_is_told_once_however_many_are_refused() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov)
        .set("login_budget.logins", "1")
        .set("login_budget.per", "1h")
        .set("login_budget.reserve", "0")
        .set("renewal.wait", "100ms")
        .start()
        .await;
    assert_eq!(proxy.get(0, ECHO).await.status, 200);
    for number in 1..20 {
        assert_eq!(
            proxy.get(number, ECHO).await.code(),
            "login_budget_exhausted"
        );
    }
    let message =
        "the login budget is used up: requests that cannot wait for the next slot are refused";
    assert_eq!(told_once(&proxy, message).await["level"], "WARN");
}

#[tokio::test]
async fn a_block_that_an_earlier_run_met_is_told_again_once() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).set("renewal.wait", "100ms").start().await;
    damoov
        .handle()
        .add_fault(Fault::new(On::Login, Action::status(429)));
    assert_eq!(proxy.get(0, ECHO).await.code(), "login_blocked");
    assert_eq!(proxy.get(1, ECHO).await.code(), "login_blocked");
    let blocked = "logins are blocked: requests that need one are refused";
    assert!(
        saying(&proxy, blocked).is_empty(),
        "the 429 itself was told"
    );
    proxy.crash().await;
    for number in 0..5 {
        assert_eq!(proxy.get(number, ECHO).await.code(), "login_blocked");
    }
    told_once(&proxy, blocked).await;
}

#[tokio::test]
async fn callers_that_find_no_room_are_told_and_so_is_the_end_of_it() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).set("max_connections", "2").start().await;
    let full = "`max_connections` are open: no more are accepted until one closes";
    assert!(saying(&proxy, full).is_empty());
    let mut first = Wire::to(&proxy).await;
    assert_eq!(first.ask(get(ECHO, "")).await.status(), 200);
    let mut second = Wire::to(&proxy).await;
    assert_eq!(second.ask(get(ECHO, "")).await.status(), 200);
    told_once(&proxy, full).await;
    let mut third = Wire::to(&proxy).await;
    third.write(get(ECHO, "")).await;
    first.close().await;
    assert_eq!(third.message().await.status(), 200);
    told_once(&proxy, "there is room for connections again").await;
}

#[tokio::test]
async fn a_lack_of_memory_for_replays_is_told() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov)
        .set("renewal.replay_memory", "1KiB")
        .start()
        .await;
    for _ in 0..3 {
        let request =
            Request::post(ECHO).header("DeviceToken", crate::harness::user(1).to_string());
        let answer = proxy.send_with(request, vec![b'x'; 8192]).await;
        assert_eq!(answer.status, 200);
    }
    let message = "`replay_memory` is used up: further content is passed on without being kept, \
                   and cannot be sent again after a 401";
    told_once(&proxy, message).await;
}

#[tokio::test]
async fn a_store_that_takes_no_writes_is_told_once_and_so_is_its_recovery() {
    let Some(disk) = crate::tokens::Disk::new() else {
        return;
    };
    let damoov = damoov().await;
    let proxy = proxy(&damoov)
        .set("login_budget.logins", "1000")
        .start_on(&disk.store())
        .await;
    for number in 0..5 {
        assert_eq!(proxy.get(number, ECHO).await.status, 200);
    }
    damoov.handle().expire(None);
    disk.fill(1024 * 1024);
    eventually("not ready", async || {
        proxy.status("/readyz").await.status == 503
    })
    .await;
    for number in 0..5 {
        assert_eq!(proxy.get(number, ECHO).await.code(), "store_unavailable");
    }
    let begins = told_once(&proxy, "the store cannot be written: no renewal is started").await;
    assert!(
        begins["why"].as_str().unwrap().contains("MB are free"),
        "{begins}"
    );
    disk.empty();
    eventually("ready", async || {
        proxy.status("/readyz").await.status == 200
    })
    .await;
    let over = told_once(&proxy, "the store can be written again").await;
    assert!(over["hurt"].as_u64().unwrap() >= 5, "{over}");
}

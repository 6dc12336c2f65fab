//! Who gets the next login slot: of those that wait the one that asked first, also if it was refused
//! before; nobody whose caller hung up.

use std::time::Duration;

use damoov_proxy::clock::Clock;
use damoov_proxy::simulator::{Counts, Simulator};
use futures_util::future::join_all;
use http::Request;
use http_body_util::Full;
use tokio::time::{Instant, sleep, sleep_until};

use super::{calls, fast_damoov, refused, retry_after, served};
use crate::harness::{
    Builder, Proxy, SCORES, damoov, damoov_with, eventually, heavy, principal, proxy, rounds, user,
};
use crate::wire::Wire;

/// Users from here on are made up.
const MADE_UP: usize = 0xf000_0000;

/// Of a minute's four slots one is reserved; for which a request waits an hour.
fn waits(damoov: &Simulator, scale: u32) -> Builder {
    proxy(damoov).scaled(scale).set("renewal.wait", "1h")
}

async fn takes_all_slots(proxy: &Proxy) {
    for number in 1..=3 {
        served(&proxy.get(number, SCORES).await, number);
    }
}

async fn as_many_wait(proxy: &Proxy, count: usize) {
    eventually("as many wait for a slot", async || {
        proxy.metric("logins_waiting", "").await == count as f64
    })
    .await;
}

/// Those who logged in, in order.
fn logged_in(counts: &Counts) -> Vec<String> {
    let calls = counts.login_calls.iter();
    let users = calls.map(|call| call.principal.as_ref().unwrap().to_string());
    users.collect()
}

#[tokio::test]
async fn callers_that_hung_up_take_no_slot_and_hold_nobody_up() {
    let damoov = fast_damoov(12).await;
    let proxy = waits(&damoov, 12).start().await;
    takes_all_slots(&proxy).await;
    let mut gone = Vec::new();
    for number in 11..=16 {
        gone.push(proxy.calling(number, SCORES));
        as_many_wait(&proxy, gone.len()).await;
    }
    // Of user 13 another caller waits, which stays.
    let stays = proxy.calling(13, SCORES);
    eventually("another caller joins", async || {
        proxy.metric("renewals_joined_total", "").await == 1.0
    })
    .await;
    let last = proxy.calling(17, SCORES);
    as_many_wait(&proxy, 7).await;
    gone.iter().for_each(tokio::task::JoinHandle::abort);
    as_many_wait(&proxy, 2).await;

    served(&last.await.unwrap(), 17);
    served(&stays.await.unwrap(), 13);
    let users = [1, 2, 3, 13, 17].map(|number| principal(number).to_string());
    assert_eq!(logged_in(&damoov.handle().counts()), users);
}

#[tokio::test]
async fn a_user_back_before_its_login_left_the_line_keeps_its_place() {
    let damoov = fast_damoov(12).await;
    let proxy = waits(&damoov, 12)
        .set("login_budget.logins", "1")
        .start()
        .await;
    served(&proxy.get(1, SCORES).await, 1);
    let hangs_up = proxy.calling(11, SCORES);
    as_many_wait(&proxy, 1).await;
    let second = proxy.calling(12, SCORES);
    as_many_wait(&proxy, 2).await;
    hangs_up.abort();
    as_many_wait(&proxy, 1).await;
    let first = proxy.calling(11, SCORES);
    served(&first.await.unwrap(), 11);
    served(&second.await.unwrap(), 12);
    let users = [1, 11, 12].map(|number| principal(number).to_string());
    assert_eq!(logged_in(&damoov.handle().counts()), users);
}

#[tokio::test]
async fn it_is_noticed_that_a_caller_is_gone_however_it_left() {
    let damoov = damoov().await;
    let proxy = waits(&damoov, 1).start().await;
    takes_all_slots(&proxy).await;
    let device = format!("DeviceToken: {}\r\n", user(11));
    let get = format!("GET {SCORES} HTTP/1.1\r\nHost: localhost\r\n{device}\r\n");
    let post = format!(
        "POST /trips/get/v1 HTTP/1.1\r\nHost: localhost\r\n{device}Content-Length: 2\r\n\r\n{{}}"
    );
    for request in [get, post] {
        for how in ["close", "reset", "half"] {
            let mut caller = Wire::to(&proxy).await;
            caller.write(&request).await;
            as_many_wait(&proxy, 1).await;
            match how {
                "close" => caller.close().await,
                "reset" => caller.reset(),
                _ => caller.close_half().await,
            }
            as_many_wait(&proxy, 0).await;
        }
    }
    assert_eq!(calls(&damoov, 11), (0, 0));
}

/// Comes back exactly when it is told, until it is served; whether it was, before `end`.
async fn honest(proxy: &Proxy, number: usize, end: Instant) -> bool {
    while Instant::now() < end {
        let answer = proxy.get(number, SCORES).await;
        if answer.status == 200 {
            return true;
        }
        refused(&answer, 503, "login_budget_exhausted");
        sleep(Duration::from_secs(retry_after(&answer))).await;
    }
    false
}

/// `count` users who come back when they are told, beside made-up ones that ask once. How many get
/// in within 20 minutes, and how many times users seen before were asked for meanwhile.
#[tokio::test]
async fn new_users_that_come_back_when_told_get_in_beside_made_up_ones() {
    let _turn = heavy().await;
    let scale = rounds(60, 30) as u32;
    let (count, made_up_a_second) = (rounds(6, 20), rounds(2, 10));
    let damoov = damoov_with(|settings| {
        settings.clock = Clock::scaled(scale);
        settings.rejected_users = vec!["f".to_owned()];
    })
    .await;
    let proxy = proxy(&damoov)
        .scaled(scale)
        .set("renewal.contested_backoff", "0s")
        .start()
        .await;
    served(&proxy.get(1, SCORES).await, 1);
    let (start, every) = (
        Instant::now(),
        Duration::from_secs(1) / scale / made_up_a_second as u32,
    );
    let end = start + Duration::from_secs(20 * 60) / scale;
    let strangers = async {
        let mut next = start;
        for number in MADE_UP.. {
            next += every;
            sleep_until(next).await;
            // It is gone whatever it is told.
            let request = Request::get(proxy.url(SCORES))
                .header("DeviceToken", user(number).to_string())
                .body(Full::default())
                .unwrap();
            let client = proxy.client();
            tokio::spawn(async move { client.send(request).await });
        }
    };
    let known = async {
        loop {
            sleep(Duration::from_secs(60) / scale).await;
            damoov.handle().revoke(Some(&principal(1)));
            served(&proxy.get(1, SCORES).await, 1);
        }
    };
    let honest = async {
        // The made-up ones are here first.
        sleep(Duration::from_secs(60) / scale).await;
        join_all((100..100 + count).map(|number| honest(&proxy, number, end))).await
    };
    let served = tokio::select! {
        served = honest => served,
        () = strangers => unreachable!("they go on for ever"),
        () = known => unreachable!("it goes on for ever"),
    };
    let served = served.into_iter().filter(|served| *served).count();
    assert_eq!(served, count, "of {count} new users");
    assert_eq!(damoov.handle().counts().blocks_tripped, 0);
}

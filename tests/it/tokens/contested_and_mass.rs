//! Rejections that somebody else causes: a phone app that logs the same user in, a broken deploy
//! of the API, rotated keys.

use std::time::Duration;

use damoov_proxy::simulator::{Action, Lost, On, Simulator};
use tokio::time::Instant;

use super::{
    calls, fast, fast_damoov, fault, fault_once, log_in, refused, retry_after, roomy, served,
};
use crate::harness::{
    SCORES, allow_many_descriptors, damoov, eventually, heavy, principal, rounds,
};

/// A phone app logs the user in.
fn phone_logs_in(damoov: &Simulator, number: usize) {
    damoov.handle().issue(&principal(number));
}

#[tokio::test]
async fn a_user_whom_somebody_else_keeps_logging_in_costs_one_login() {
    let damoov = damoov().await;
    let mut proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1]).await;
    phone_logs_in(&damoov, 1);
    served(&proxy.get(1, SCORES).await, 1);
    phone_logs_in(&damoov, 1);
    for _ in 0..5 {
        let answer = proxy.get(1, SCORES).await;
        refused(&answer, 503, "login_contested");
        assert!((21_500..=21_600).contains(&retry_after(&answer)));
    }
    assert_eq!(proxy.metric("principals_contested", "").await, 1.0);
    proxy.crash().await;
    refused(&proxy.get(1, SCORES).await, 503, "login_contested");
    let count = damoov.handle().counts_of(&principal(1));
    assert_eq!((count.logins.all(), count.refreshes.rejected), (1, 2));
}

#[tokio::test]
async fn a_contested_user_is_logged_in_again_after_the_backoff() {
    let damoov = fast_damoov(600).await;
    let proxy = fast(&damoov, 600)
        .set("renewal.contested_backoff", "10m")
        .start()
        .await;
    log_in(&damoov, &proxy, [1]).await;
    phone_logs_in(&damoov, 1);
    served(&proxy.get(1, SCORES).await, 1);
    phone_logs_in(&damoov, 1);
    refused(&proxy.get(1, SCORES).await, 503, "login_contested");
    eventually("the back-off ends", async || {
        proxy.get(1, SCORES).await.status == 200
    })
    .await;
    assert_eq!(calls(&damoov, 1).0, 2);
}

#[tokio::test]
async fn with_the_guard_off_nobody_is_contested() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov)
        .set("renewal.contested_backoff", "0s")
        .start()
        .await;
    log_in(&damoov, &proxy, [1]).await;
    for _ in 0..4 {
        phone_logs_in(&damoov, 1);
        served(&proxy.get(1, SCORES).await, 1);
    }
    assert_eq!(calls(&damoov, 1).0, 4);
}

#[tokio::test]
async fn a_deploy_that_rejects_every_refresh_costs_four_logins_at_most() {
    let users = rounds(12, 200);
    let damoov = fast_damoov(60).await;
    let proxy = fast(&damoov, 60).start().await;
    log_in(&damoov, &proxy, 0..users).await;
    damoov.handle().expire(None);
    fault(&damoov, On::Refresh, Action::status(400));
    let mut suspended = 0;
    for number in 0..users {
        let answer = proxy.get(number, SCORES).await;
        if answer.status != 200 {
            refused(&answer, 503, "login_suspended");
            assert!((1..=60).contains(&retry_after(&answer)));
            suspended += 1;
        }
    }
    assert_eq!(suspended, users - 4);
    assert_eq!(proxy.metric("logins_suspended", "").await, 1.0);
    // Who holds no pair logs in all the same.
    served(&proxy.get(users, SCORES).await, users);

    damoov.handle().clear_faults();
    eventually("the probe's refresh ends it", async || {
        proxy.metric("logins_suspended", "").await == 0.0
    })
    .await;
    for number in 0..users {
        served(&proxy.get(number, SCORES).await, number);
    }
    assert_eq!(damoov.handle().counts().total.logins.all(), 4 + 1);
}

#[tokio::test]
async fn everybody_at_once_rejected_costs_four_logins_at_most() {
    let users = rounds(40, 500);
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, 0..users).await;
    damoov.handle().expire(None);
    fault(&damoov, On::Refresh, Action::status(400));
    let callers: Vec<_> = (0..users)
        .map(|number| proxy.calling(number, SCORES))
        .collect();
    for caller in callers {
        let answer = caller.await.unwrap();
        if answer.status != 200 {
            refused(&answer, 503, "login_suspended");
        }
    }
    assert!(damoov.handle().counts().total.logins.all() <= 4);
}

#[tokio::test]
async fn where_pairs_really_are_dead_a_new_pair_proves_it_and_all_log_in() {
    let users = 40;
    let damoov = fast_damoov(60).await;
    let proxy = fast(&damoov, 60).start().await;
    log_in(&damoov, &proxy, 0..users).await;
    damoov.handle().revoke(None);
    eventually("everybody is served", async || {
        let callers: Vec<_> = (0..users)
            .map(|number| proxy.calling(number, SCORES))
            .collect();
        let mut served = 0;
        for caller in callers {
            served += usize::from(caller.await.unwrap().status == 200);
        }
        served == users
    })
    .await;
    assert_eq!(damoov.handle().counts().total.logins.all(), users as u64);
    // The alarm was raised, and stays visible.
    assert!(proxy.metric("old_pairs_rejected_total", "").await >= 1.0);
    let log = proxy.log();
    assert!(log.contains("logins of principals that hold one are suspended"));
    assert!(log.contains("as after a backup was restored"));
}

#[tokio::test]
async fn a_probe_asks_damoov_even_while_the_token_would_still_do() {
    let damoov = fast_damoov(240).await;
    let proxy = fast(&damoov, 240)
        .set("renewal.ahead", "0.01")
        .start()
        .await;
    log_in(&damoov, &proxy, 0..6).await;
    // Only tokens that are used are renewed ahead.
    log_in(&damoov, &proxy, 0..6).await;
    fault(&damoov, On::Refresh, Action::status(400));
    eventually("a probe logs in", async || {
        damoov.handle().counts().total.logins.all() >= 1
    })
    .await;
    assert_eq!(proxy.metric("logins_suspended", "").await, 1.0);
}

#[tokio::test]
async fn a_successful_refresh_ends_the_suspension_at_once() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, 0..8).await;
    for number in 0..5 {
        damoov.handle().revoke(Some(&principal(number)));
        proxy.get(number, SCORES).await;
    }
    refused(&proxy.get(4, SCORES).await, 503, "login_suspended");
    damoov.handle().expire(Some(&principal(7)));
    served(&proxy.get(7, SCORES).await, 7);
    served(&proxy.get(4, SCORES).await, 4);
    assert_eq!(damoov.handle().counts().total.logins.all(), 5);
}

#[tokio::test]
async fn rejections_after_lost_answers_make_no_mass_rejection() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, 0..7).await;
    damoov.handle().expire(None);
    for number in 0..7 {
        fault_once(&damoov, On::Refresh, Action::Lose(Lost::Reset));
        served(&proxy.get(number, SCORES).await, number);
    }
    assert_eq!(proxy.metric("logins_suspended", "").await, 0.0);
}

/// Damoov rotated its keys: every token it issued is 401.
#[tokio::test]
async fn four_thousand_users_401_at_once_are_all_served_within_the_wait() {
    let _turn = heavy().await;
    allow_many_descriptors();
    let users = 4_000;
    let damoov = damoov().await;
    // `renewals_per_second` is for what no request waits for.
    let mut proxy = roomy(&damoov)
        .set("renewal.renewals_per_second", "1")
        .stopped_here();
    proxy.import(&damoov, 0..users);
    proxy.start().await;
    damoov.handle().expire(None);
    damoov.handle().reset();

    let started = Instant::now();
    let callers: Vec<_> = (0..users)
        .map(|number| proxy.calling(number, SCORES))
        .collect();
    for (number, caller) in callers.into_iter().enumerate() {
        served(&caller.await.unwrap(), number);
    }
    assert!(started.elapsed() < Duration::from_secs(20));
    let total = damoov.handle().counts().total;
    assert_eq!((total.refreshes.ok, total.logins.all()), (users as u64, 0));
}

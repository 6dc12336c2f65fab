//! What keeps logins in bounds: the budget, the block after a 429, the negative cache, the breaker
//! of an instance.

use std::time::Duration;

use damoov_proxy::clock::Clock;
use damoov_proxy::simulator::{Action, INSTANCE_KEY, On, Status};

use super::{
    calls, fast, fast_damoov, fault, fault_once, log_in, refused, retry_after, roomy, served,
};
use crate::harness::{
    Proxy, SCORES, damoov, damoov_with, eventually, most_within, principal, proxy, rounds, user,
};

fn too_many(retry_after: Option<u64>) -> Action {
    Action::Status(Status {
        code: 429,
        retry_after,
        content: None,
    })
}

#[tokio::test]
async fn the_first_429_blocks_logins_but_not_refreshes_also_after_a_restart() {
    for (told, between) in [(Some(90), 80..=90), (None, 3590..=3600)] {
        let damoov = damoov().await;
        let mut proxy = roomy(&damoov).start().await;
        log_in(&damoov, &proxy, [1]).await;
        fault_once(&damoov, On::Login, too_many(told));
        let blocked = async |proxy: &Proxy, number| {
            let answer = proxy.get(number, SCORES).await;
            refused(&answer, 503, "login_blocked");
            let seconds = retry_after(&answer);
            assert!(between.contains(&seconds), "{seconds}");
        };
        blocked(&proxy, 2).await;
        blocked(&proxy, 3).await;
        assert!(proxy.metric("login_blocked_seconds", "").await > 70.0);
        proxy.crash().await;
        blocked(&proxy, 2).await;
        assert_eq!(damoov.handle().counts().total.logins.all(), 1);

        damoov.handle().expire(None);
        served(&proxy.get(1, SCORES).await, 1);
        assert_eq!(calls(&damoov, 1), (0, 1));
    }
}

#[tokio::test]
async fn logins_go_on_when_the_block_ends() {
    let damoov = fast_damoov(60).await;
    let proxy = fast(&damoov, 60).set("renewal.wait", "30s").start().await;
    fault_once(&damoov, On::Login, too_many(Some(90)));
    refused(&proxy.get(1, SCORES).await, 503, "login_blocked");
    eventually("the block ends", async || {
        proxy.get(1, SCORES).await.status == 200
    })
    .await;
    assert_eq!(calls(&damoov, 1), (2, 0));
}

#[tokio::test]
async fn logins_stay_within_the_budget_and_say_when_the_next_one_is_free() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    for number in 0..3 {
        served(&proxy.get(number, SCORES).await, number);
    }
    // The fourth of a minute is reserved for users seen before.
    let answer = proxy.get(3, SCORES).await;
    refused(&answer, 503, "login_budget_exhausted");
    assert!((30..=60).contains(&retry_after(&answer)));
    let ready = proxy.status("/readyz").await;
    assert_eq!(ready.status, 200);
    assert!(
        ready.text().contains("login_budget_exhausted"),
        "{}",
        ready.text()
    );
    damoov.handle().revoke(Some(&principal(0)));
    served(&proxy.get(0, SCORES).await, 0);
    assert_eq!(damoov.handle().counts().total.logins.all(), 4);
}

#[tokio::test]
async fn a_rejected_user_is_remembered_also_after_a_restart() {
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.rejected_users = vec![user(1).to_string()];
    })
    .await;
    let mut proxy = roomy(&damoov).start().await;
    for _ in 0..3 {
        refused(&proxy.get(1, SCORES).await, 403, "login_rejected");
    }
    proxy.crash().await;
    refused(&proxy.get(1, SCORES).await, 403, "login_rejected");
    assert_eq!(calls(&damoov, 1), (1, 0));
}

#[tokio::test]
async fn a_rejected_user_is_tried_again_after_a_while() {
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.clock = Clock::scaled(600);
        settings.rejected_users = vec![user(1).to_string()];
    })
    .await;
    let proxy = fast(&damoov, 600).start().await;
    eventually("another login", async || {
        refused(&proxy.get(1, SCORES).await, 403, "login_rejected");
        calls(&damoov, 1) == (2, 0)
    })
    .await;
}

#[tokio::test]
async fn a_changed_instance_key_is_tried_at_once() {
    let damoov = damoov().await;
    let mut proxy = roomy(&damoov).set("instance.0.key", "wrong").start().await;
    refused(&proxy.get(1, SCORES).await, 403, "login_rejected");
    proxy.kill();
    proxy.reconfigure("instance.0.key", INSTANCE_KEY);
    proxy.start().await;
    served(&proxy.get(1, SCORES).await, 1);
    assert_eq!(calls(&damoov, 1), (2, 0));
}

#[tokio::test]
async fn users_never_seen_that_are_rejected_hold_up_nobody_else() {
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.rejected_users = (0..6).map(|number| user(number).to_string()).collect();
    })
    .await;
    let proxy = roomy(&damoov).start().await;
    for number in 0..6 {
        refused(&proxy.get(number, SCORES).await, 403, "login_rejected");
    }
    served(&proxy.get(6, SCORES).await, 6);
}

#[tokio::test]
async fn three_rejected_logins_of_known_users_hold_back_only_logins() {
    let damoov = damoov().await;
    let mut proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, 1..=5).await;
    proxy.kill();
    proxy.reconfigure("instance.0.key", "wrong");
    proxy.start().await;
    for number in 1..=4 {
        damoov.handle().revoke(Some(&principal(number)));
        refused(&proxy.get(number, SCORES).await, 403, "login_rejected");
        // What was learnt outlives the process.
        proxy.crash().await;
    }
    refused(&proxy.get(6, SCORES).await, 403, "login_rejected");
    let total = damoov.handle().counts().total;
    assert_eq!((total.logins.rejected, total.refreshes.rejected), (3, 4));
    damoov.handle().expire(Some(&principal(5)));
    served(&proxy.get(5, SCORES).await, 5);
    assert_eq!(calls(&damoov, 5), (0, 1));

    proxy.kill();
    proxy.reconfigure("instance.0.key", INSTANCE_KEY);
    proxy.start().await;
    for number in 1..=6 {
        served(&proxy.get(number, SCORES).await, number);
    }
}

#[tokio::test]
async fn one_login_now_and_then_finds_out_that_the_instance_key_is_good_again() {
    let damoov = fast_damoov(600).await;
    let proxy = fast(&damoov, 600).start().await;
    log_in(&damoov, &proxy, 1..=3).await;
    fault(&damoov, On::Login, Action::status(401));
    for number in 1..=3 {
        damoov.handle().revoke(Some(&principal(number)));
        refused(&proxy.get(number, SCORES).await, 403, "login_rejected");
    }
    damoov.handle().clear_faults();
    refused(&proxy.get(4, SCORES).await, 403, "login_rejected");
    eventually("a probe closes the breaker", async || {
        proxy.get(4, SCORES).await.status == 200
    })
    .await;
    served(&proxy.get(5, SCORES).await, 5);
}

/// I7, I10.
#[tokio::test]
async fn made_up_users_stay_within_the_budget_and_starve_nobody() {
    let damoov = damoov_with(|settings| settings.rejected_users = vec!["f".to_owned()]).await;
    let proxy = proxy(&damoov).set("renewal.wait", "1s").start().await;
    served(&proxy.get(1, SCORES).await, 1);
    damoov.handle().expire(None);
    let strangers: Vec<_> = (0..rounds(200, 5_000))
        .map(|number| proxy.calling(0xf000_0000 + number, SCORES))
        .collect();
    served(&proxy.get(1, SCORES).await, 1);
    let mut held_back = 0;
    for stranger in strangers {
        let answer = stranger.await.unwrap();
        if answer.code() == "login_rejected" {
            continue;
        }
        refused(&answer, 503, "login_budget_exhausted");
        assert!(retry_after(&answer) >= 1);
        held_back += 1;
    }
    // Of a minute's four slots one is for users seen before; user 1 has taken another.
    let counts = damoov.handle().counts();
    assert_eq!(
        held_back,
        rounds(200, 5_000) - (counts.total.logins.all() as usize - 1)
    );
    assert!((1..=3).contains(&most_within(&counts.login_calls, Duration::from_secs(59))));
    damoov.handle().revoke(Some(&principal(1)));
    served(&proxy.get(1, SCORES).await, 1);
    assert_eq!(damoov.handle().counts().blocks_tripped, 0);
}

#[tokio::test]
async fn rejected_strangers_leave_nothing_in_the_store_after_a_while() {
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.clock = Clock::scaled(600);
        settings.rejected_users = (1..=5).map(|number| user(number).to_string()).collect();
    })
    .await;
    let proxy = fast(&damoov, 600).start().await;
    for number in 1..=5 {
        refused(&proxy.get(number, SCORES).await, 403, "login_rejected");
    }
    served(&proxy.get(6, SCORES).await, 6);
    let store = rusqlite::Connection::open(proxy.store().join("tokens.db")).unwrap();
    let stored = || -> Vec<String> {
        let mut rows = store.prepare("SELECT principal FROM entries").unwrap();
        let rows = rows.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    eventually("only the user that got in is left", async || {
        stored() == [principal(6).to_string()]
    })
    .await;
}

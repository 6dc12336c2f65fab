//! Time that jumps, and time that is bought with an old token.

use damoov_proxy::clock::Clock;
use damoov_proxy::simulator::{Action, Fault, On, Status};

use super::shim::Shim;
use super::{calls, fast, fault, log_in, refused, retry_after, roomy, served};
use crate::harness::{Proxy, SCORES, damoov, damoov_with, eventually, proxy, user};

/// In seconds.
const DAY: i64 = 86_400;

/// A stale token is good until it expires: nobody notices that it cannot be renewed.
#[tokio::test]
async fn a_stale_token_is_served_while_renewals_fail() {
    let scale = 60;
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.clock = Clock::scaled(scale);
        settings.lifetimes.after_login = std::time::Duration::from_secs(3600);
    })
    .await;
    let proxy = fast(&damoov, scale)
        .set("renewal.ahead", "0.02")
        .start()
        .await;
    log_in(&damoov, &proxy, [1]).await;
    fault(&damoov, On::Refresh, Action::status(503));
    eventually("three renewals ahead of time failed", async || {
        served(&proxy.get(1, SCORES).await, 1);
        let failed = "grant=\"refresh\",trigger=\"ahead\",result=\"failed\"";
        proxy.metric("renewals_total", failed).await >= 3.0
    })
    .await;
    let stale = proxy.metric("token_lookups_total", "stale").await;
    assert!(stale >= 3.0, "{stale}");

    damoov.handle().clear_faults();
    eventually("a renewal ahead of time", async || {
        served(&proxy.get(1, SCORES).await, 1);
        damoov.handle().counts().total.refreshes.ok >= 1
    })
    .await;
    let total = damoov.handle().counts().total;
    assert_eq!((total.logins.all(), total.unauthorized), (0, 0));
}

#[tokio::test]
async fn a_wall_clock_that_jumps_renews_nobody() {
    let shim = Shim::new();
    let damoov = damoov().await;
    let proxy = roomy(&damoov)
        .set("login_budget.per", "1h")
        .set("renewal.keep_refresh_tokens", "1h");
    let proxy = shim.apply(proxy.scaled(60)).start().await;
    log_in(&damoov, &proxy, 0..10).await;
    for days in [100, -100, 0] {
        shim.set("clock", days * DAY);
        let scans = || async { proxy.metric("store_operations_total", "scan").await };
        let before = scans().await;
        eventually("the keeper went two rounds", async || {
            scans().await >= before + 2.0
        })
        .await;
        for number in 0..10 {
            served(&proxy.get(number, SCORES).await, number);
            assert_eq!(calls(&damoov, number), (0, 0), "{days} days");
        }
    }
}

#[tokio::test]
async fn a_wall_clock_that_jumps_frees_no_login_also_after_a_restart() {
    let shim = Shim::new();
    let damoov = damoov().await;
    let budget = proxy(&damoov)
        .set("login_budget.logins", "1")
        .set("login_budget.reserve", "0")
        .set("login_budget.per", "1h");
    let mut proxy: Proxy = shim.apply(budget).start().await;
    served(&proxy.get(1, SCORES).await, 1);
    for days in [0, -1, 1, -400, 400] {
        shim.set("clock", days * DAY);
        for _restarted in 0..2 {
            let answer = proxy.get(2, SCORES).await;
            refused(&answer, 503, "login_budget_exhausted");
            let seconds = retry_after(&answer);
            assert!((3_500..=3_600).contains(&seconds), "{days} days: {seconds}");
            proxy.crash().await;
        }
    }
    assert_eq!(damoov.handle().counts().total.logins.all(), 1);
}

#[tokio::test]
async fn a_block_from_while_the_wall_clock_was_wrong_lasts_as_long_as_any() {
    for days in [-30, 30] {
        let shim = Shim::new();
        let damoov = damoov().await;
        let mut proxy: Proxy = shim.apply(roomy(&damoov)).start().await;
        shim.set("clock", days * DAY);
        let limited = Action::Status(Status {
            code: 429,
            retry_after: None,
            content: None,
        });
        damoov
            .handle()
            .add_fault(Fault::new(On::Login, limited).times(1));
        refused(&proxy.get(1, SCORES).await, 503, "login_blocked");
        shim.set("clock", 0);
        for _restarted in 0..2 {
            let answer = proxy.get(2, SCORES).await;
            refused(&answer, 503, "login_blocked");
            let seconds = retry_after(&answer);
            assert!((3_500..=3_600).contains(&seconds), "{days} days: {seconds}");
            proxy.crash().await;
        }
    }
}

#[tokio::test]
async fn a_rejection_while_the_wall_clock_was_ahead_does_not_last_for_years() {
    let shim = Shim::new();
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.rejected_users = vec![user(1).to_string()];
    })
    .await;
    let proxy = shim.apply(roomy(&damoov)).start().await;
    shim.set("clock", 365 * DAY);
    refused(&proxy.get(1, SCORES).await, 403, "login_rejected");
    shim.set("clock", 0);
    for _ in 0..2 {
        refused(&proxy.get(1, SCORES).await, 403, "login_rejected");
    }
    assert_eq!(calls(&damoov, 1), (2, 0));
}

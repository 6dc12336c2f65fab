//! What the guard against mass rejections remembers, and for whom: over restarts, among processes on
//! one store, through deploys that come and go, and after a restored backup.

use std::fs;
use std::time::Duration;

use damoov_proxy::simulator::{Action, Fault, On, Simulator};
use tokio::time::Instant;

use super::{fast, fast_damoov, fault, log_in, refused, served};
use crate::harness::{Proxy, SCORES, captured, eventually, heavy, principal, proxy, rounds, user};

fn logins(damoov: &Simulator) -> u64 {
    damoov.handle().counts().total.logins.all()
}

/// From now on every refresh is rejected, and every token has expired.
fn break_refreshes(damoov: &Simulator) {
    damoov.handle().expire(None);
    fault(damoov, On::Refresh, Action::status(400));
}

async fn asked(proxy: &Proxy, users: impl IntoIterator<Item = usize>) {
    for number in users {
        proxy.get(number, SCORES).await;
    }
}

async fn suspended(proxy: &Proxy, wanted: f64) {
    eventually("the suspension is what it should be", async || {
        proxy.metric("logins_suspended", "").await == wanted
    })
    .await;
}

#[tokio::test]
async fn restarts_neither_reset_the_count_nor_end_a_suspension() {
    let damoov = fast_damoov(60).await;
    let mut proxy = fast(&damoov, 60).start().await;
    log_in(&damoov, &proxy, 0..12).await;
    break_refreshes(&damoov);
    for number in 0..12 {
        let answer = proxy.get(number, SCORES).await;
        if number >= 4 {
            refused(&answer, 503, "login_suspended");
        }
        proxy.crash().await;
    }
    suspended(&proxy, 1.0).await;
    assert_eq!(logins(&damoov), 4);
    damoov.handle().clear_faults();
    suspended(&proxy, 0.0).await;
    for number in 0..12 {
        served(&proxy.get(number, SCORES).await, number);
    }
    assert_eq!(logins(&damoov), 4);
}

#[tokio::test]
async fn processes_on_one_store_lose_four_logins_and_probe_together() {
    let damoov = fast_damoov(60).await;
    let one = fast(&damoov, 60).start().await;
    let other = fast(&damoov, 60).start_on(one.store()).await;
    log_in(&damoov, &one, 0..12).await;
    break_refreshes(&damoov);
    for number in 0..12 {
        let proxy = [&one, &other][number % 2];
        let answer = proxy.get(number, SCORES).await;
        if number >= 4 {
            refused(&answer, 503, "login_suspended");
        }
    }
    suspended(&one, 1.0).await;
    suspended(&other, 1.0).await;

    let refreshes = || damoov.handle().counts().total.refreshes.all();
    let (before, started) = (refreshes(), Instant::now());
    eventually("many probes", async || refreshes() >= before + 20).await;
    let seconds = started.elapsed().as_secs_f64() * 60.0;
    assert!(seconds >= 18.0 * 5.0, "20 probes in {seconds} s");
    assert_eq!(logins(&damoov), 4);

    damoov.handle().clear_faults();
    suspended(&one, 0.0).await;
    suspended(&other, 0.0).await;
    for number in 0..12 {
        served(
            &[&other, &one][number % 2].get(number, SCORES).await,
            number,
        );
    }
    assert_eq!(logins(&damoov), 4);
}

#[tokio::test]
async fn a_suspension_ends_with_the_next_probe_after_a_long_failure() {
    let damoov = fast_damoov(5).await;
    let one = fast(&damoov, 5).start().await;
    let other = fast(&damoov, 5).start_on(one.store()).await;
    log_in(&damoov, &one, 0..12).await;
    break_refreshes(&damoov);
    asked(&one, 0..6).await;
    asked(&other, 6..12).await;
    suspended(&one, 1.0).await;
    suspended(&other, 1.0).await;
    // The deploy is taken back, which takes its time.
    damoov.handle().clear_faults();
    fault(&damoov, On::Auth, Action::status(502));
    let refreshes = || damoov.handle().counts().total.refreshes.all();
    let before = refreshes();
    eventually("many probes", async || refreshes() >= before + 4).await;

    damoov.handle().clear_faults();
    let well = Instant::now();
    for proxy in [&one, &other] {
        suspended(proxy, 0.0).await;
    }
    let seconds = well.elapsed().as_secs_f64() * 5.0;
    // Five are meant; the rest is for a machine that is busy with other tests.
    assert!(seconds < 15.0, "after {seconds} s");
    assert_eq!(logins(&damoov), 4);
}

#[tokio::test]
async fn a_probe_asks_again_for_pairs_that_were_believed_dead() {
    let damoov = fast_damoov(60).await;
    let proxy = fast(&damoov, 60).start().await;
    log_in(&damoov, &proxy, 0..9).await;
    damoov.handle().expire(None);
    fault(&damoov, On::Login, Action::status(500));
    for number in 0..3 {
        let rejects = Fault::new(On::Refresh, Action::status(400)).of(principal(number));
        damoov.handle().add_fault(rejects);
        refused(&proxy.get(number, SCORES).await, 502, "auth_unreachable");
    }
    served(&proxy.get(8, SCORES).await, 8);
    fault(&damoov, On::Refresh, Action::status(400));
    asked(&proxy, 3..8).await;
    suspended(&proxy, 1.0).await;
    asked(&proxy, 0..3).await;
    // Logins do not work, and of those that wait only they have a pair that does.
    for number in 3..8 {
        damoov.handle().revoke(Some(&principal(number)));
    }
    damoov.handle().clear_faults();
    fault(&damoov, On::Login, Action::status(500));
    suspended(&proxy, 0.0).await;
}

#[tokio::test]
async fn each_deploy_that_comes_and_goes_costs_four_logins_at_most() {
    let users = 12;
    let damoov = fast_damoov(60).await;
    let proxy = fast(&damoov, 60).start().await;
    log_in(&damoov, &proxy, 0..users).await;
    for _ in 0..rounds(3, 20) {
        let before = logins(&damoov);
        break_refreshes(&damoov);
        asked(&proxy, 0..users).await;
        suspended(&proxy, 1.0).await;
        assert!(logins(&damoov) <= before + 4);
        damoov.handle().clear_faults();
        // The next one comes at once, while most hold pairs from before this one.
        suspended(&proxy, 0.0).await;
    }
    let before = logins(&damoov);
    for number in 0..users {
        served(&proxy.get(number, SCORES).await, number);
    }
    assert_eq!(logins(&damoov), before, "every pair was kept");
}

#[tokio::test]
async fn after_a_restored_backup_the_budget_alone_paces_logins() {
    let _turn = heavy().await;
    let users = rounds(16, 40);
    let damoov = fast_damoov(60).await;
    let mut proxy = proxy(&damoov).scaled(60).stopped_here();
    proxy.reconfigure("login_budget.logins", "1000");
    proxy.start().await;
    log_in(&damoov, &proxy, 0..users).await;
    assert!(proxy.terminate().await.success());
    let tokens = proxy.store().join("tokens.db");
    let backup = fs::read(&tokens).unwrap();
    proxy.start().await;
    damoov.handle().expire(None);
    asked(&proxy, 0..users).await;
    assert!(proxy.terminate().await.success());
    fs::write(&tokens, backup).unwrap();
    for beside in ["tokens.db-wal", "tokens.db-shm"] {
        assert!(!proxy.store().join(beside).exists(), "{beside}");
    }

    proxy.reconfigure("login_budget.logins", "4");
    damoov.handle().expire(None);
    damoov.handle().reset();
    proxy.start().await;
    let started = Instant::now();
    let proxy = &proxy;
    let everybody = (0..users)
        .map(|number| async move { while proxy.get(number, SCORES).await.status != 200 {} });
    let everybody = futures_util::future::join_all(everybody);
    let ended = tokio::time::timeout(Duration::from_secs(60), everybody).await;
    assert!(ended.is_ok(), "never: everybody is served");
    let minutes = started.elapsed().as_secs_f64();
    assert!(minutes <= users as f64 / 4.0 + 2.0, "{minutes} minutes");
    assert_eq!(logins(&damoov), users as u64);
}

#[tokio::test]
async fn a_user_forgotten_during_a_suspension_logs_in_at_once() {
    let damoov = fast_damoov(60).await;
    let one = fast(&damoov, 60).start().await;
    let other = fast(&damoov, 60).start_on(one.store()).await;
    log_in(&damoov, &one, 0..8).await;
    break_refreshes(&damoov);
    asked(&one, 0..8).await;
    suspended(&other, 1.0).await;
    for (number, proxy) in [(5, &one), (6, &other)] {
        for proxy in [&one, &other] {
            refused(&proxy.get(number, SCORES).await, 503, "login_suspended");
        }
        let show = || captured(one.command(&format!("tokens show {}", user(number))));
        let shown = String::from_utf8(show().await.stdout).unwrap();
        assert!(shown.contains("login_suspended"), "{shown}");
        let forget = one.command(&format!("tokens forget {}", user(number)));
        assert!(captured(forget).await.status.success());
        let shown = String::from_utf8(show().await.stdout).unwrap();
        assert!(!shown.contains("login_suspended"), "{shown}");
        served(&proxy.get(number, SCORES).await, number);
    }
    refused(&one.get(7, SCORES).await, 503, "login_suspended");
    assert_eq!(logins(&damoov), 4 + 2);
}

#[tokio::test]
async fn a_store_that_cannot_be_read_admits_no_login_of_who_holds_a_pair() {
    let damoov = fast_damoov(60).await;
    let proxy = fast(&damoov, 60).start().await;
    log_in(&damoov, &proxy, 0..2).await;
    damoov.handle().revoke(None);
    let db = rusqlite::Connection::open(proxy.store().join("tokens.db")).unwrap();
    db.execute_batch("ALTER TABLE guards RENAME TO elsewhere")
        .unwrap();
    refused(&proxy.get(0, SCORES).await, 503, "store_unavailable");
    assert_eq!(logins(&damoov), 0);
    db.execute_batch("ALTER TABLE elsewhere RENAME TO guards")
        .unwrap();
    tokio::time::timeout(Duration::from_secs(10), async {
        while proxy.get(0, SCORES).await.status != 200 {}
    })
    .await
    .unwrap();
    assert_eq!(logins(&damoov), 1);
}

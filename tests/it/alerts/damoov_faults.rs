//! Alerts that faults of Damoov make fire.

use damoov_proxy::simulator::{Action, Fault, On, Simulator, Status};
use futures_util::future::{LocalBoxFuture, join_all};

use super::server::watch;
use crate::harness::{
    Builder, ECHO, PlayedScene, Proxy, SCORES, damoov, eventually, principal, proxy,
};
use crate::wire::{GOOD, get};

#[tokio::test]
async fn alerts_fire_by_faults_of_damoov_and_end_with_them() {
    // Most of them wait most of the time.
    let scenes: Vec<LocalBoxFuture<'_, ()>> = vec![
        Box::pin(an_api_that_cannot_be_reached_fires_until_it_can()),
        Box::pin(errors_of_the_api_fire_until_there_are_none()),
        Box::pin(an_api_that_always_says_401_fires_until_it_does_not()),
        Box::pin(connections_that_are_used_up_fire_until_there_are_some()),
        Box::pin(a_login_that_is_answered_with_429_fires_until_the_block_ends()),
        Box::pin(five_dead_pairs_fire_until_a_refresh_works()),
        Box::pin(pairs_older_than_one_that_works_fire_until_all_are_replaced()),
        Box::pin(a_budget_that_is_used_up_fires_until_nobody_is_refused()),
        Box::pin(logins_that_are_all_rejected_fire_until_one_is_accepted()),
        Box::pin(a_user_that_another_program_logs_in_fires_until_the_backoff_ends()),
        Box::pin(refreshes_that_fail_fire_until_they_work()),
        Box::pin(an_answer_that_cannot_be_read_fires_and_ends()),
    ];
    join_all(scenes).await;
}

fn fault(damoov: &Simulator, on: On, action: Action) {
    damoov.handle().add_fault(Fault::new(on, action));
}

/// A proxy whose budget allows every login.
fn roomy(damoov: &Simulator) -> Builder {
    proxy(damoov).set("login_budget.logins", "100000")
}

async fn ask(proxy: &Proxy, users: impl IntoIterator<Item = usize>) {
    for number in users {
        proxy.get(number, SCORES).await;
    }
}

async fn an_api_that_cannot_be_reached_fires_until_it_can() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    let watched = watch("resets", &proxy).await;
    fault(&damoov, On::Data, Action::Reset);
    ask(&proxy, [1; 5]).await;
    watched.fires("DamoovProxyUpstreamFailing").await;
    damoov.handle().clear_faults();
    ask(&proxy, [1; 5]).await;
    watched.ends("DamoovProxyUpstreamFailing").await;
}

async fn errors_of_the_api_fire_until_there_are_none() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    let watched = watch("errors", &proxy).await;
    fault(&damoov, On::Data, Action::status(500));
    ask(&proxy, [1; 5]).await;
    watched.fires("DamoovProxyApiErrors").await;
    damoov.handle().clear_faults();
    ask(&proxy, [1; 5]).await;
    watched.ends("DamoovProxyApiErrors").await;
}

async fn an_api_that_always_says_401_fires_until_it_does_not() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    let watched = watch("always-401", &proxy).await;
    fault(&damoov, On::Data, Action::status(401));
    ask(&proxy, 1..4).await;
    watched.fires("DamoovProxyReplaysRejected").await;
    damoov.handle().clear_faults();
    ask(&proxy, 1..4).await;
    watched.ends("DamoovProxyReplaysRejected").await;
}

async fn connections_that_are_used_up_fire_until_there_are_some() {
    let scene = PlayedScene::with(|proxy| proxy.set("upstream.max_connections", "4")).await;
    let watched = watch("used-up", &scene.proxy).await;
    let mut still = Vec::new();
    for _ in 0..4 {
        let (mut caller, mut api) = scene.asked(get(ECHO, "")).await;
        api.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
            .await;
        caller.head().await;
        still.push((caller, api));
    }
    let mut waits = scene.calling("GET").await;
    let mut api = scene.upstream.next().await.unwrap();
    api.message().await;
    api.write(GOOD).await;
    assert_eq!(waits.message().await.status(), 200);
    watched.fires("DamoovProxyConnectionsUsedUp").await;
    watched.ends("DamoovProxyConnectionsUsedUp").await;
}

async fn a_login_that_is_answered_with_429_fires_until_the_block_ends() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    let watched = watch("blocked", &proxy).await;
    let limited = Status {
        code: 429,
        retry_after: Some(10),
        content: None,
    };
    fault(&damoov, On::Login, Action::Status(limited));
    ask(&proxy, [1]).await;
    watched.fires("DamoovProxyLoginsBlocked").await;
    damoov.handle().clear_faults();
    watched.ends("DamoovProxyLoginsBlocked").await;
}

async fn five_dead_pairs_fire_until_a_refresh_works() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    ask(&proxy, 0..8).await;
    let watched = watch("suspended", &proxy).await;
    for number in 0..5 {
        damoov.handle().revoke(Some(&principal(number)));
        ask(&proxy, [number]).await;
    }
    watched.fires("DamoovProxyLoginsSuspended").await;
    watched.fires("DamoovProxyKnownUsersLogIn").await;
    damoov.handle().expire(Some(&principal(7)));
    ask(&proxy, [7, 4]).await;
    watched.ends("DamoovProxyLoginsSuspended").await;
    watched.ends("DamoovProxyKnownUsersLogIn").await;
}

async fn pairs_older_than_one_that_works_fire_until_all_are_replaced() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    ask(&proxy, 0..8).await;
    let watched = watch("old-pairs", &proxy).await;
    for number in 0..5 {
        damoov.handle().revoke(Some(&principal(number)));
        ask(&proxy, [number]).await;
    }
    // The pair of this one is newer than the rejected ones, and works.
    ask(&proxy, [9]).await;
    damoov.handle().expire(Some(&principal(9)));
    ask(&proxy, [9]).await;
    damoov.handle().revoke(Some(&principal(5)));
    ask(&proxy, [4, 5]).await;
    watched.fires("DamoovProxyOldPairsRejected").await;
    watched.ends("DamoovProxyOldPairsRejected").await;
}

async fn a_budget_that_is_used_up_fires_until_nobody_is_refused() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov)
        .set("login_budget.logins", "1")
        .set("login_budget.reserve", "0")
        .set("login_budget.per", "1h")
        .start()
        .await;
    let watched = watch("used-up-budget", &proxy).await;
    ask(&proxy, 1..5).await;
    watched.fires("DamoovProxyLoginsRefused").await;
    watched.ends("DamoovProxyLoginsRefused").await;
}

async fn logins_that_are_all_rejected_fire_until_one_is_accepted() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    let watched = watch("wrong-key", &proxy).await;
    fault(&damoov, On::Login, Action::status(400));
    ask(&proxy, 1..6).await;
    watched.fires("DamoovProxyLoginsRejected").await;
    damoov.handle().clear_faults();
    ask(&proxy, [7]).await;
    watched.ends("DamoovProxyLoginsRejected").await;
}

async fn a_user_that_another_program_logs_in_fires_until_the_backoff_ends() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov)
        .set("renewal.contested_backoff", "8s")
        .start()
        .await;
    let watched = watch("contested", &proxy).await;
    ask(&proxy, [1]).await;
    for _ in 0..2 {
        damoov.handle().issue(&principal(1));
        ask(&proxy, [1]).await;
    }
    watched.fires("DamoovProxyPrincipalsContested").await;
    eventually("it is logged in again", async || {
        proxy.get(1, SCORES).await.status == 200
    })
    .await;
    watched.ends("DamoovProxyPrincipalsContested").await;
}

async fn refreshes_that_fail_fire_until_they_work() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    ask(&proxy, [1]).await;
    let watched = watch("failing", &proxy).await;
    damoov.handle().expire(None);
    fault(&damoov, On::Refresh, Action::status(503));
    ask(&proxy, [1]).await;
    watched.fires("DamoovProxyRenewalsFailing").await;
    damoov.handle().clear_faults();
    watched.ends("DamoovProxyRenewalsFailing").await;
}

async fn an_answer_that_cannot_be_read_fires_and_ends() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    let watched = watch("unreadable", &proxy).await;
    let page = Status {
        code: 200,
        retry_after: None,
        content: Some("<html>".to_owned()),
    };
    fault(&damoov, On::Login, Action::Status(page));
    ask(&proxy, [1]).await;
    watched.fires("DamoovProxyAuthAnswersUnreadable").await;
    damoov.handle().clear_faults();
    watched.ends("DamoovProxyAuthAnswersUnreadable").await;
}

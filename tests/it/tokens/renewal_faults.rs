//! Callers, processes and answers that vanish in the middle of a renewal.

use std::time::Duration;

use damoov_proxy::simulator::{Action, Delay, Fault, Lost, On, Simulator};
use rusqlite::Connection;
use tokio::time::Instant;

use super::{calls, fault, fault_once, forgiving, log_in, refused, retry_after, roomy, served};
use crate::harness::{Proxy, SCORES, damoov, eventually, principal, proxy, rounds};

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_cancel_the_refresh() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1]).await;
    damoov.handle().expire(None);
    fault_once(&damoov, On::Refresh, Action::Delay(Delay::Millis(400)));

    let caller = proxy.calling(1, SCORES);
    let count = || damoov.handle().counts_of(&principal(1));
    eventually("a refresh is under way", async || {
        count().refreshes_at_once == 1
    })
    .await;
    assert_eq!(count().refreshes.all(), 0);
    caller.abort();
    eventually("the refresh ends", async || {
        proxy.metric("renewals_total", "grant=\"refresh\"").await == 1.0
    })
    .await;

    served(&proxy.get(1, SCORES).await, 1);
    assert_eq!(calls(&damoov, 1), (0, 1));
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_cancel_the_login() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    fault_once(&damoov, On::Login, Action::Delay(Delay::Millis(400)));
    let caller = proxy.calling(1, SCORES);
    eventually("a login was answered", async || calls(&damoov, 1) == (1, 0)).await;
    caller.abort();
    eventually("the pair is stored", async || {
        proxy.metric("tokens_stored", "").await == 1.0
    })
    .await;
    served(&proxy.get(1, SCORES).await, 1);
    assert_eq!(calls(&damoov, 1), (1, 0));
}

#[tokio::test]
async fn a_kill_before_the_refresh_is_sent_costs_nothing() {
    let damoov = damoov().await;
    let mut proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1]).await;
    damoov.handle().expire(None);
    // After this the renewal rests for a second, with the pair in hand, before its next call.
    fault_once(&damoov, On::Refresh, Action::status(503));
    let caller = proxy.calling(1, SCORES);
    eventually("a refresh was refused", async || {
        calls(&damoov, 1) == (0, 1)
    })
    .await;
    proxy.crash().await;
    caller.abort();

    served(&proxy.get(1, SCORES).await, 1);
    let count = damoov.handle().counts_of(&principal(1));
    assert_eq!((count.logins.all(), count.refreshes.ok), (0, 1));
}

#[tokio::test]
async fn a_kill_after_the_refresh_was_processed_costs_one_login() {
    let damoov = damoov().await;
    let mut proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1]).await;
    kill_while_a_refresh_hangs(&damoov, &mut proxy).await;
    served(&proxy.get(1, SCORES).await, 1);
    let count = damoov.handle().counts_of(&principal(1));
    assert_eq!((count.logins.ok, count.refreshes.rejected), (1, 1));
}

#[tokio::test]
async fn a_kill_after_the_refresh_costs_no_login_if_it_may_be_sent_again() {
    let damoov = forgiving().await;
    let mut proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1]).await;
    kill_while_a_refresh_hangs(&damoov, &mut proxy).await;
    served(&proxy.get(1, SCORES).await, 1);
    assert_eq!(calls(&damoov, 1), (0, 2));
}

/// SIGKILL after Damoov rotated the pair and before the answer is there.
async fn kill_while_a_refresh_hangs(damoov: &Simulator, proxy: &mut Proxy) {
    damoov.handle().expire(None);
    fault_once(damoov, On::Refresh, Action::Lose(Lost::Hang));
    let caller = proxy.calling(1, SCORES);
    eventually("Damoov rotated the pair", async || {
        calls(damoov, 1) == (0, 1)
    })
    .await;
    proxy.crash().await;
    caller.abort();
}

#[tokio::test]
async fn a_kill_before_the_commit_costs_one_login() {
    let damoov = damoov().await;
    let mut proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1]).await;
    kill_before_the_commit(&damoov, &mut proxy).await;
    served(&proxy.get(1, SCORES).await, 1);
    let count = damoov.handle().counts_of(&principal(1));
    assert_eq!((count.logins.ok, count.refreshes.rejected), (1, 1));
}

#[tokio::test]
async fn a_kill_before_the_commit_costs_no_login_if_refreshes_may_repeat() {
    let damoov = forgiving().await;
    let mut proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1]).await;
    kill_before_the_commit(&damoov, &mut proxy).await;
    served(&proxy.get(1, SCORES).await, 1);
    assert_eq!(calls(&damoov, 1), (0, 2));
}

/// SIGKILL with the new pair in the proxy's hands and not in the store.
async fn kill_before_the_commit(damoov: &Simulator, proxy: &mut Proxy) {
    damoov.handle().expire(None);
    let store = writers_blocked(proxy);
    let caller = proxy.calling(1, SCORES);
    answer_arrived(proxy).await;
    proxy.kill();
    drop(store);
    proxy.start().await;
    caller.abort();
}

/// As long as this lives, nothing can be committed to the proxy's store.
fn writers_blocked(proxy: &Proxy) -> Connection {
    let db = Connection::open(proxy.store().join("tokens.db")).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    db
}

/// The new pair has come and its commit has begun.
async fn answer_arrived(proxy: &Proxy) {
    eventually("the new pair has come", async || {
        let refreshed = "grant=\"refresh\",trigger=\"rejected\",result=\"ok\"";
        proxy.metric("renewals_total", refreshed).await == 1.0
    })
    .await;
}

/// I3.
#[tokio::test]
async fn a_new_token_is_used_only_once_it_is_durable() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1]).await;
    damoov.handle().expire(None);
    let store = writers_blocked(&proxy);
    let caller = proxy.calling(1, SCORES);
    answer_arrived(&proxy).await;
    let other = proxy.calling(1, SCORES);
    eventually("both callers wait", async || {
        proxy.metric("renewals_joined_total", "").await >= 1.0
    })
    .await;
    assert!(!caller.is_finished() && !other.is_finished());
    // The old token came once, the new one not at all.
    assert_eq!(damoov.handle().counts_of(&principal(1)).data_calls, 1);

    drop(store);
    served(&caller.await.unwrap(), 1);
    served(&other.await.unwrap(), 1);
    assert_eq!(calls(&damoov, 1), (0, 1));
}

#[tokio::test]
async fn a_kill_after_the_commit_costs_nothing() {
    let damoov = damoov().await;
    let mut proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1]).await;
    damoov.handle().expire(None);
    let data_calls = || damoov.handle().counts_of(&principal(1)).data_calls;
    let caller = proxy.calling(1, SCORES);
    eventually("the first answer", async || data_calls() >= 1).await;
    eventually("the new pair is durable", async || {
        let committed = "operation=\"commit\",result=\"ok\"";
        proxy.metric("store_operations_total", committed).await == 2.0
    })
    .await;
    proxy.crash().await;
    caller.abort();
    served(&proxy.get(1, SCORES).await, 1);
    assert_eq!(calls(&damoov, 1), (0, 1));
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_once_more_with_the_same_pair() {
    let damoov = forgiving().await;
    let proxy = roomy(&damoov).set("renewal.timeout", "500ms").start().await;
    log_in(&damoov, &proxy, 1..=3).await;
    damoov.handle().expire(None);
    for (number, lost) in [(1, Lost::Reset), (2, Lost::Half), (3, Lost::Hang)] {
        fault_once(&damoov, On::Refresh, Action::Lose(lost));
        served(&proxy.get(number, SCORES).await, number);
        let count = damoov.handle().counts_of(&principal(number));
        assert_eq!(
            (count.refreshes.lost, count.refreshes.ok, count.logins.all()),
            (1, 1, 0),
            "{lost:?}"
        );
    }
}

#[tokio::test]
async fn a_pair_rejected_after_a_lost_answer_costs_one_login() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1]).await;
    damoov.handle().expire(None);
    fault_once(&damoov, On::Refresh, Action::Lose(Lost::Reset));
    served(&proxy.get(1, SCORES).await, 1);
    let count = damoov.handle().counts_of(&principal(1));
    assert_eq!(
        (
            count.refreshes.lost,
            count.refreshes.rejected,
            count.logins.ok
        ),
        (1, 1, 1)
    );
}

#[tokio::test]
async fn a_pair_rejected_after_a_lost_answer_waits_for_the_login_budget() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov)
        .set("login_budget.logins", "1")
        .set("login_budget.reserve", "0")
        .set("login_budget.per", "1h")
        .start()
        .await;
    log_in(&damoov, &proxy, [1]).await;
    damoov.handle().expire(None);
    fault_once(&damoov, On::Refresh, Action::Lose(Lost::Reset));
    let answer = proxy.get(1, SCORES).await;
    refused(&answer, 503, "login_budget_exhausted");
    assert!((3500..=3600).contains(&retry_after(&answer)));
    assert_eq!(calls(&damoov, 1), (0, 2));
}

#[tokio::test]
async fn a_pair_whose_answers_are_lost_again_is_kept_and_not_sent_for_a_while() {
    let damoov = forgiving().await;
    let proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1]).await;
    damoov.handle().expire(None);
    let lost = Fault::new(On::Refresh, Action::Lose(Lost::Reset));
    damoov.handle().add_fault(lost.times(2));
    refused(&proxy.get(1, SCORES).await, 502, "auth_unreachable");
    assert_eq!(calls(&damoov, 1), (0, 2));

    let resting = Instant::now();
    served(&proxy.get(1, SCORES).await, 1);
    assert!(resting.elapsed() > Duration::from_millis(700));
    assert_eq!(calls(&damoov, 1), (0, 3));
}

#[tokio::test]
async fn what_says_nothing_about_the_tokens_is_tried_three_times_and_drops_none() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1]).await;
    damoov.handle().expire(None);
    fault(&damoov, On::Refresh, Action::status(503));
    refused(&proxy.get(1, SCORES).await, 502, "auth_unreachable");
    assert_eq!(calls(&damoov, 1), (0, 3));
    damoov.handle().clear_faults();
    served(&proxy.get(1, SCORES).await, 1);
    assert_eq!(calls(&damoov, 1), (0, 4));
}

#[tokio::test]
async fn a_renewal_under_way_at_sigterm_is_finished_and_stored() {
    let damoov = damoov().await;
    let mut proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1]).await;
    damoov.handle().expire(None);
    fault_once(&damoov, On::Refresh, Action::Delay(Delay::Millis(800)));
    let caller = proxy.calling(1, SCORES);
    eventually("a refresh was processed", async || {
        calls(&damoov, 1) == (0, 1)
    })
    .await;
    caller.abort();
    assert!(proxy.terminate().await.success());
    proxy.start().await;
    served(&proxy.get(1, SCORES).await, 1);
    assert_eq!(calls(&damoov, 1), (0, 1));
}

/// I1.
#[tokio::test]
async fn many_callers_of_one_expired_user_cause_one_refresh() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1]).await;
    damoov.handle().expire(None);
    let callers: Vec<_> = (0..rounds(300, 3_000))
        .map(|_| proxy.calling(1, SCORES))
        .collect();
    for caller in callers {
        served(&caller.await.unwrap(), 1);
    }
    assert_eq!(calls(&damoov, 1), (0, 1));
}

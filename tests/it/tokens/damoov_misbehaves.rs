//! Answers that the API should never give.

use std::time::Duration;

use damoov_proxy::simulator::{Action, Delay, Fault, Garbage, On};
use serde_json::json;
use tokio::time::Instant;

use super::{
    calls, fast, fast_damoov, fault, fault_once, forgiving, log_in, refused, roomy, served,
};
use crate::harness::{SCORES, damoov, eventually, principal, user};

#[tokio::test]
async fn garbage_instead_of_new_tokens_drops_no_pair() {
    let damoov = forgiving().await;
    let proxy = roomy(&damoov).start().await;
    let kinds = [
        Garbage::Html,
        Garbage::Empty,
        Garbage::CutJson,
        Garbage::OtherStatus(500),
        Garbage::OtherStatus(204),
        Garbage::Huge,
        Garbage::OtherUser,
    ];
    log_in(&damoov, &proxy, 0..kinds.len()).await;
    damoov.handle().expire(None);
    for (number, kind) in kinds.into_iter().enumerate() {
        fault_once(&damoov, On::Refresh, Action::Garbage(kind.clone()));
        served(&proxy.get(number, SCORES).await, number);
        let count = damoov.handle().counts_of(&principal(number));
        assert_eq!(count.logins.all(), 0, "{kind:?}");
        assert_eq!(count.wrong_tokens, 0, "{kind:?}");
    }
}

#[tokio::test]
async fn an_empty_result_is_a_rejection() {
    let damoov = forgiving().await;
    let proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1]).await;
    damoov.handle().expire(None);
    fault_once(&damoov, On::Refresh, Action::Garbage(Garbage::ResultNull));
    served(&proxy.get(1, SCORES).await, 1);
    assert_eq!(calls(&damoov, 1), (1, 1));
}

#[tokio::test]
async fn garbage_instead_of_a_first_login_serves_nobody() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).set("renewal.wait", "2s").start().await;
    for (number, kind) in [Garbage::Html, Garbage::Huge, Garbage::OtherUser]
        .into_iter()
        .enumerate()
    {
        fault(&damoov, On::Login, Action::Garbage(kind.clone()));
        let answer = proxy.get(number, SCORES).await;
        // Later ones may end while the host rests from what it did to earlier ones.
        assert!(answer.status.is_server_error(), "{kind:?}");
        damoov.handle().clear_faults();
        let count = damoov.handle().counts_of(&principal(number));
        assert_eq!(count.data_calls, 0, "{kind:?}");
        assert!(count.logins.all() <= 3, "{kind:?}: {count:?}");
    }
}

/// I6.
#[tokio::test]
async fn another_users_token_is_never_attached() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1]).await;
    damoov.handle().expire(None);
    fault(&damoov, On::Auth, Action::Garbage(Garbage::OtherUser));
    for number in [1, 2] {
        refused(&proxy.get(number, SCORES).await, 502, "auth_bad_response");
    }
    let total = damoov.handle().counts().total;
    // User 1's own expired token, once.
    assert_eq!((total.data_calls, total.wrong_tokens), (1, 0));
}

#[tokio::test]
async fn a_missing_refresh_token_keeps_the_old_one() {
    let damoov = forgiving().await;
    let mut proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1]).await;
    damoov.handle().expire(None);
    let without = Action::Garbage(Garbage::NoRefreshToken);
    fault_once(&damoov, On::Refresh, without);
    served(&proxy.get(1, SCORES).await, 1);
    assert_eq!(calls(&damoov, 1), (0, 1));

    // Damoov still takes the old one, as it is within its grace period.
    damoov.handle().expire(None);
    proxy.crash().await;
    proxy.get(1, SCORES).await;
    let count = damoov.handle().counts_of(&principal(1));
    assert_eq!((count.refreshes.ok, count.logins.all()), (1, 0));
}

#[tokio::test]
async fn no_expires_in_makes_a_renewal_loop() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    let values = [
        json!(0),
        json!(-86400),
        json!(1e18),
        json!("86400"),
        json!(null),
        json!(1.5),
        json!("soon"),
        json!([]),
    ];
    log_in(&damoov, &proxy, 0..values.len()).await;
    damoov.handle().expire(None);
    for (number, value) in values.into_iter().enumerate() {
        let action = Action::Garbage(Garbage::ExpiresIn(value.clone()));
        fault_once(&damoov, On::Refresh, action);
        for _ in 0..5 {
            served(&proxy.get(number, SCORES).await, number);
        }
        assert_eq!(calls(&damoov, number), (0, 1), "{value}");
    }
}

#[tokio::test]
async fn an_api_that_always_says_401_costs_one_refresh_a_minute_and_no_login() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1, 2]).await;
    fault(&damoov, On::Data, Action::status(401));
    for number in [1, 2] {
        for round in 1..=10 {
            let before = damoov.handle().counts_of(&principal(number)).data_calls;
            assert_eq!(proxy.get(number, SCORES).await.status, 401);
            let sent = damoov.handle().counts_of(&principal(number)).data_calls - before;
            assert_eq!(sent, if round == 1 { 2 } else { 1 });
        }
        assert_eq!(calls(&damoov, number), (0, 1));
    }
}

#[tokio::test]
async fn many_callers_of_an_api_that_always_answers_401_cause_one_refresh() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1]).await;
    fault(&damoov, On::Data, Action::status(401));
    fault(&damoov, On::Data, Action::Delay(Delay::UpToMillis(40)));
    let callers: Vec<_> = (0..60)
        .map(|_| {
            let first = proxy.calling(1, SCORES);
            let (client, url) = (proxy.client(), proxy.url(SCORES));
            tokio::spawn(async move {
                assert_eq!(first.await.unwrap().status, 401);
                let again = http::Request::get(url).header("DeviceToken", user(1).to_string());
                let again = client.send(again.body(Default::default()).unwrap()).await;
                assert_eq!(again.unwrap().status, 401);
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let count = damoov.handle().counts_of(&principal(1));
    assert_eq!(calls(&damoov, 1), (0, 1));
    assert!(count.data_calls <= 2 * 120, "{count:?}");
}

#[tokio::test]
async fn an_api_that_answers_401_again_after_a_minute_causes_another_refresh() {
    let damoov = fast_damoov(60).await;
    let proxy = fast(&damoov, 60).start().await;
    log_in(&damoov, &proxy, [1]).await;
    fault(&damoov, On::Data, Action::status(401));
    let started = Instant::now();
    eventually("a minute later, another refresh", async || {
        assert_eq!(proxy.get(1, SCORES).await.status, 401);
        calls(&damoov, 1) == (0, 2)
    })
    .await;
    assert!(started.elapsed() > Duration::from_millis(900));
}

#[tokio::test]
async fn a_late_401_for_an_older_token_costs_no_auth_call() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, [1]).await;
    damoov.handle().expire(None);
    let late = "/indicators/v3/Scores/eco?StartDate=2026-11-01&EndDate=2026-11-07";
    let slow = On::Path("/indicators/v3/Scores/eco".into());
    let delay = Fault::new(slow, Action::Delay(Delay::Millis(800)));
    damoov.handle().add_fault(delay.times(1));
    let late = proxy.calling(1, late);
    // Its first attempt goes out with the same token as the next one's.
    eventually("both wait", async || {
        proxy.metric("requests_in_flight", "").await == 1.0
    })
    .await;
    served(&proxy.get(1, SCORES).await, 1);
    assert!(!late.is_finished());
    let late = late.await.unwrap();
    served(&late, 1);
    assert!(late.header("proxy-status").contains("replayed"));
    assert_eq!(calls(&damoov, 1), (0, 1));
}

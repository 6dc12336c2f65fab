//! Registrations, moves and deletions of users that pass through.

use damoov_proxy::principal::InstanceId;
use damoov_proxy::simulator::{
    Action, Delay, Fault, Garbage, Instance, KnownUsers, Lost, On, Registration,
    RegistrationCredentials, RegistrationShape, Simulator,
};
use http::Request;
use serde_json::{Value, json};

use super::{Tokens, assert_refused, log_in, log_in_account, post};
use crate::harness::{Answer, Proxy, SCORES, damoov_with, eventually, principal, proxy, user};

async fn register(proxy: &Proxy, number: usize, asks: bool) -> Answer {
    let content = json!({
        "UserFields": {"ClientId": "test"},
        "CustomToken": user(number).to_string(),
        "CreateAccessToken": asks,
    });
    post(proxy, Request::post("/v1/Registration/create"), content).await
}

#[tokio::test]
async fn a_registrations_tokens_are_kept_and_replaced_whatever_the_answer() {
    for shape in [RegistrationShape::Enveloped, RegistrationShape::Bare] {
        for credentials in [
            RegistrationCredentials::Asked,
            RegistrationCredentials::Always,
        ] {
            for asks in [true, false] {
                let damoov = damoov_with(|settings| {
                    settings.known_users = KnownUsers::Only(Vec::new());
                    settings.registration = Registration { credentials, shape };
                })
                .await;
                let proxy = proxy(&damoov).start().await;
                let answer = register(&proxy, 1, asks).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                let content: Value = serde_json::from_slice(answer.content()).unwrap();
                let result = match shape {
                    RegistrationShape::Enveloped => &content["Result"],
                    RegistrationShape::Bare => &content,
                };
                assert_eq!(result["DeviceToken"], user(1).to_string());
                let gives = asks || credentials == RegistrationCredentials::Always;
                assert_eq!(!result["AccessToken"].is_null(), gives);
                if gives {
                    let tokens = Tokens::in_result(result);
                    assert_eq!(tokens.expires_in, 432_000);
                    let answer = proxy.send(tokens.get(SCORES)).await;
                    assert_eq!(answer.served_as(), user(1).to_string(), "{}", answer.text());
                }
                assert_eq!(proxy.get(1, SCORES).await.status, 200);
                let count = damoov.handle().counts_of(&principal(1));
                assert_eq!(count.registrations.all(), 1);
                assert_eq!(count.logins.all(), u64::from(!gives), "{shape:?} {asks}");
            }
        }
    }
}

#[tokio::test]
async fn a_registrations_tokens_outlive_a_crash_and_are_renewed_like_any_other() {
    let damoov = damoov_with(|_| {}).await;
    let mut proxy = proxy(&damoov).start().await;
    let answer = register(&proxy, 1, true).await;
    let tokens = Tokens::of(&answer);
    proxy.crash().await;
    damoov.handle().expire(None);
    assert_eq!(proxy.send(tokens.get(SCORES)).await.status, 200);
    let count = damoov.handle().counts_of(&principal(1));
    assert_eq!((count.logins.all(), count.refreshes.all()), (0, 1));
}

/// Registers user 1 and leaves once Damoov has made it, before the answer.
async fn register_and_hang_up(damoov: &Simulator, proxy: &Proxy) {
    let slow = Action::Delay(Delay::Millis(1000));
    damoov
        .handle()
        .add_fault(Fault::new(On::Registration, slow).times(1));
    let content = json!({"CustomToken": user(1).to_string(), "CreateAccessToken": true});
    let request = Request::post(proxy.url("/v1/Registration/create"))
        .header("Content-Type", "application/json")
        .body(content.to_string().into_bytes().into())
        .unwrap();
    let client = proxy.client();
    let calling = tokio::spawn(async move { client.send(request).await });
    let registered = async || damoov.handle().counts_of(&principal(1)).registrations.all() == 1;
    eventually("the registration has reached Damoov", registered).await;
    calling.abort();
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_registering_leaves_the_tokens_behind() {
    let damoov = damoov_with(|_| {}).await;
    let proxy = proxy(&damoov).start().await;
    register_and_hang_up(&damoov, &proxy).await;
    let stored = async || proxy.metric("tokens_stored", "").await == 1.0;
    eventually("its tokens are stored", stored).await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    assert_eq!(damoov.handle().counts_of(&principal(1)).logins.all(), 0);
}

#[tokio::test]
async fn a_registration_under_way_ends_before_the_proxy_does() {
    let damoov = damoov_with(|_| {}).await;
    let mut proxy = proxy(&damoov).start().await;
    register_and_hang_up(&damoov, &proxy).await;
    assert!(proxy.terminate().await.success());
    proxy.start().await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    assert_eq!(damoov.handle().counts_of(&principal(1)).logins.all(), 0);
}

#[tokio::test]
async fn a_login_that_overtakes_the_tokens_of_a_registration_stays() {
    let damoov = damoov_with(|_| {}).await;
    let proxy = proxy(&damoov).start().await;
    // Half of a delay passes before a call is processed, half after: the registration is, and is
    // answered, between the login's being sent and its being processed.
    for (on, millis) in [(On::Login, 2000), (On::Registration, 400)] {
        let delay = Action::Delay(Delay::Millis(millis));
        damoov.handle().add_fault(Fault::new(on, delay));
    }
    let calling = proxy.calling(1, SCORES);
    let tokens = Tokens::of(&register(&proxy, 1, true).await);
    assert_eq!(calling.await.unwrap().status, 200);
    assert_eq!(proxy.send(tokens.get(SCORES)).await.status, 200);
    let count = damoov.handle().counts_of(&principal(1));
    assert_eq!((count.logins.all(), count.refreshes.all()), (1, 0));
}

#[tokio::test]
async fn registrations_whose_callers_hang_up_are_bounded() {
    let damoov = damoov_with(|_| {}).await;
    let proxy = proxy(&damoov).set("workers.threads", "1").start().await;
    let delay = Action::Delay(Delay::Millis(30_000));
    let slow = Fault::new(On::Registration, delay).times(1000);
    damoov.handle().add_fault(slow);
    let arrived = || 1000 - damoov.handle().faults()[0].times.unwrap();
    for round in 1..=4 {
        let calling: Vec<_> = (0..64)
            .map(|_| {
                let request = Request::post(proxy.url("/v1/Registration/create"))
                    .body(b"{}".to_vec().into())
                    .unwrap();
                let client = proxy.client();
                tokio::spawn(async move { client.send(request).await })
            })
            .collect();
        let all = async || arrived() == round * 64;
        eventually("the registrations have reached Damoov", all).await;
        calling.iter().for_each(tokio::task::JoinHandle::abort);
    }
    let answer = register(&proxy, 1, true).await;
    assert_refused(&answer, 503, "overloaded");
    assert_eq!(arrived(), 256);
}

#[tokio::test]
async fn a_registration_is_sent_once_whatever_comes_back() {
    for action in [
        Action::Reset,
        Action::Lose(Lost::Reset),
        Action::status(503),
        Action::status(401),
    ] {
        let damoov = damoov_with(|_| {}).await;
        let proxy = proxy(&damoov).start().await;
        // A connection that has been used before.
        assert_eq!(register(&proxy, 2, true).await.status, 200);
        damoov
            .handle()
            .add_fault(Fault::new(On::Registration, action.clone()));
        let answer = register(&proxy, 1, true).await;
        assert_ne!(answer.status, 200, "{action:?}");
        let counts = damoov.handle().counts_of(&principal(1));
        assert_eq!(counts.registrations.all(), 1, "{action:?}");
        assert_eq!(counts.logins.all(), 0);
    }
}

#[tokio::test]
async fn an_unreadable_answer_is_not_passed_on_as_it_may_hold_real_tokens() {
    for garbage in [Garbage::CutJson, Garbage::Html, Garbage::Huge] {
        let damoov = damoov_with(|_| {}).await;
        let proxy = proxy(&damoov).start().await;
        let spoilt = Fault::new(On::Registration, Action::Garbage(garbage));
        damoov.handle().add_fault(spoilt);
        let answer = register(&proxy, 1, true).await;
        assert_refused(&answer, 502, "upstream_bad_response");
    }
}

#[tokio::test]
async fn a_taken_device_token_is_answered_as_the_api_does_and_its_pair_stays() {
    let damoov = damoov_with(|settings| settings.known_users = KnownUsers::Only(Vec::new())).await;
    let proxy = proxy(&damoov).start().await;
    assert_eq!(register(&proxy, 1, true).await.status, 200);
    let again = register(&proxy, 1, true).await;
    assert_eq!(again.status, 422, "{}", again.text());
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    assert_eq!(damoov.handle().counts_of(&principal(1)).logins.all(), 0);
}

#[tokio::test]
async fn content_too_long_for_a_registration_is_refused_unsent() {
    let damoov = damoov_with(|_| {}).await;
    let proxy = proxy(&damoov).start().await;
    let create = Request::post("/v1/Registration/create");
    let answer = proxy.send_with(create, vec![b' '; 65 << 10]).await;
    assert_refused(&answer, 413, "content_too_large");
    assert_eq!(damoov.handle().counts().total.registrations.all(), 0);
}

#[tokio::test]
async fn a_user_that_is_deleted_or_moved_through_the_proxy_is_forgotten() {
    const OTHER: &str = "22222222-2222-4222-8222-222222222222";
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.instances.push(Instance {
            id: InstanceId::parse(OTHER).unwrap(),
            key: "other".to_owned(),
        });
    })
    .await;
    let proxy = proxy(&damoov)
        .set("login_budget.logins", "10")
        .start()
        .await;
    Tokens::of(&log_in_account(&proxy).await);
    let moved = json!({"DeviceToken": user(2).to_string(), "ToInstanceId": OTHER, "ToInstanceKey": "other"});
    for (number, method, path, content) in [
        (
            1,
            "DELETE",
            format!("/v1/Management/users/{}", user(1)),
            String::new(),
        ),
        (
            2,
            "POST",
            "/v1/Management/users/instances/change".to_owned(),
            moved.to_string(),
        ),
        (
            3,
            "POST",
            format!("/~{}/v1/Management/users/instances/change/{OTHER}", user(3)),
            String::new(),
        ),
    ] {
        let tokens = Tokens::of(&log_in(&proxy, number).await);
        assert_eq!(proxy.send(tokens.get(SCORES)).await.status, 200);
        // A replay tells it as well.
        damoov.handle().expire(None);
        let request = || {
            Request::builder()
                .method(method)
                .uri(&path)
                .header("Content-Type", "application/json")
        };
        let answer = proxy.send_with(request(), content.clone()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.header("proxy-status").contains("replayed"));
        let refused = proxy.send(tokens.get(SCORES)).await;
        assert_refused(&refused, 401, "token_invalid");
        let shown = proxy.command(&format!("tokens show {}", user(number)));
        let shown = crate::harness::captured(shown).await;
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains("pair           none"), "{shown}");
    }
}

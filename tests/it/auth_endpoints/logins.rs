//! Logins and refreshes that the proxy answers, and those that it refuses or forwards.

use std::net::TcpListener;

use damoov_proxy::principal::InstanceId;
use damoov_proxy::simulator::{ExpiresIn, INSTANCE_ID, INSTANCE_KEY, Instance};
use futures_util::future::join_all;
use http::Request;
use serde_json::{Value, json};

use super::{Tokens, assert_refused, log_in, log_in_account, post, refresh};
use crate::harness::{SCORES, damoov, damoov_with, principal, proxy, user};

#[tokio::test]
async fn a_login_is_answered_in_the_apis_envelope_in_either_form() {
    for form in [ExpiresIn::Number, ExpiresIn::Text] {
        let damoov = damoov_with(|settings| {
            settings.login_limit = None;
            settings.expires_in = form;
        })
        .await;
        let mut proxy = proxy(&damoov).start().await;
        let device = user(1).to_string();
        let strings = json!({"LoginFields": json!({"Devicetoken": device}).to_string(), "Password": INSTANCE_KEY});
        let objects = json!({"loginFields": {"DeviceToken": device.replace('-', "").to_uppercase()}, "password": INSTANCE_KEY});
        for content in [strings, objects] {
            let request = Request::post("/v1/Auth/Login").header("InstanceId", INSTANCE_ID);
            let answer = post(&proxy, request, content).await;
            assert_eq!(answer.header("content-type"), "application/json");
            assert!(answer.header("proxy-status").starts_with("damoov-proxy"));
            let envelope: Value = serde_json::from_slice(answer.content()).unwrap();
            assert_eq!(envelope["Status"], 200);
            assert_eq!(envelope["Errors"], json!([]));
            assert_eq!(envelope["Result"]["DeviceToken"], device);
            let tokens = Tokens::of(&answer);
            let left = match form {
                ExpiresIn::Number => tokens.expires_in.as_u64().unwrap(),
                ExpiresIn::Text => tokens.expires_in.as_str().unwrap().parse().unwrap(),
            };
            assert!((86_000..=86_400).contains(&left), "{left}");
        }
        // How the API writes numbers is remembered, too.
        proxy.crash().await;
        let tokens = Tokens::of(&log_in(&proxy, 1).await);
        assert_eq!(tokens.expires_in.is_string(), form == ExpiresIn::Text);
        let tokens = Tokens::of(&log_in_account(&proxy).await);
        assert_eq!(tokens.expires_in.is_string(), form == ExpiresIn::Text);
        assert_eq!(damoov.handle().counts().total.logins.all(), 2);
    }
}

#[tokio::test]
async fn two_hundred_services_that_log_the_same_user_in_cost_one_login_ever() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    for round in 0..3 {
        let answers = join_all((0..200).map(|_| log_in(&proxy, 1))).await;
        for answer in &answers {
            let tokens = Tokens::of(answer);
            assert_eq!(proxy.send(tokens.get(SCORES)).await.status, 200);
        }
        match round {
            0 => {
                damoov.handle().expire(None);
            }
            _ => proxy.crash().await,
        }
    }
    let count = damoov.handle().counts_of(&principal(1));
    assert_eq!((count.logins.all(), count.refreshes.all()), (1, 1));
}

#[tokio::test]
async fn a_refresh_gives_newer_tokens_and_is_free_while_the_real_one_is_fresh() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let first = Tokens::of(&log_in(&proxy, 1).await);
    let second = Tokens::of(&refresh(&proxy, &first.access, &first.refresh).await);
    assert_eq!(damoov.handle().counts().total.refreshes.all(), 0);
    for tokens in [&first, &second] {
        let answer = proxy.send(tokens.get(SCORES)).await;
        assert_eq!(answer.served_as(), user(1).to_string());
    }
    damoov.handle().expire(None);
    // The proxy learns of it by the first 401 that follows.
    assert_eq!(proxy.send(second.get(SCORES)).await.status, 200);
    let third = Tokens::of(&refresh(&proxy, &first.access, &second.refresh).await);
    assert_eq!(proxy.send(third.get(SCORES)).await.status, 200);
    let count = damoov.handle().counts_of(&principal(1));
    assert_eq!((count.logins.all(), count.refreshes.all()), (1, 1));
}

#[tokio::test]
async fn what_is_no_login_or_refresh_is_refused_without_a_call() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    for path in ["/v1/Auth/Login", "/v1/Auth/RefreshToken"] {
        for content in ["", "null", "[]", "{}", "{\"LoginFields\":7}", "\u{0}"] {
            let answer = proxy.send_with(Request::post(path), content).await;
            assert_refused(&answer, 400, "bad_request");
        }
        let answer = proxy
            .send_with(Request::post(path), vec![b' '; 65 << 10])
            .await;
        assert_refused(&answer, 413, "content_too_large");
        assert_refused(&proxy.send(Request::get(path)).await, 405, "method_unknown");
    }
    let unknown = proxy.send(Request::post("/v1/Auth/Logout")).await;
    assert_refused(&unknown, 404, "route_unknown");
    assert_eq!(damoov.handle().counts().total.logins.all(), 0);
}

#[tokio::test]
async fn a_login_that_damoov_rejects_is_403_so_that_nobody_tries_again_at_once() {
    let damoov = damoov_with(|settings| settings.rejected_users = vec![user(1).to_string()]).await;
    let proxy = proxy(&damoov).start().await;
    for _ in 0..3 {
        assert_refused(&log_in(&proxy, 1).await, 403, "login_rejected");
    }
    assert_eq!(damoov.handle().counts().total.logins.all(), 1);
}

const OTHER_INSTANCE: &str = "22222222-2222-4222-8222-222222222222";

#[tokio::test]
async fn a_login_for_nobody_configured_is_403_or_forwarded_within_budget() {
    let damoov = damoov_with(|settings| {
        settings.instances.push(Instance {
            id: InstanceId::parse(OTHER_INSTANCE).unwrap(),
            key: "other".to_owned(),
        });
    })
    .await;
    let fields = json!({"Devicetoken": user(1).to_string()}).to_string();
    let content = json!({"LoginFields": fields, "Password": "other"});
    let login = || Request::post("/v1/Auth/Login").header("InstanceId", OTHER_INSTANCE);

    let closed = proxy(&damoov).start().await;
    assert_refused(
        &post(&closed, login(), content.clone()).await,
        403,
        "login_rejected",
    );
    assert_eq!(damoov.handle().counts().total.logins.all(), 0);

    let open = proxy(&damoov)
        .set("forward_unknown_logins", "true")
        .set("renewal.wait", "1s")
        .set("login_budget.logins", "2")
        .start()
        .await;
    let real = Tokens::of(&post(&open, login(), content.clone()).await);
    // Real ones: Damoov itself takes them, and a refresh of theirs is forwarded as well.
    let renewed = Tokens::of(&refresh(&open, &real.access, &real.refresh).await);
    assert_ne!(renewed.refresh, real.refresh);
    let answer = post(&open, login(), content.clone()).await;
    assert_refused(&answer, 503, "login_budget_exhausted");
    let count = damoov.handle().counts_of(&principal(1));
    assert_eq!((count.logins.all(), count.refreshes.all()), (1, 1));
}

#[tokio::test]
async fn a_refresh_of_a_real_pair_of_ours_is_not_forwarded() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov)
        .set("forward_unknown_logins", "true")
        .start()
        .await;
    let pair = damoov.handle().issue(&principal(1));
    let answer = refresh(&proxy, &pair.access_token, &pair.refresh_token).await;
    assert_refused(&answer, 401, "token_invalid");
    assert_eq!(damoov.handle().counts().total.refreshes.all(), 0);
}

#[tokio::test]
async fn a_forwarded_login_that_was_not_sent_costs_no_slot() {
    let damoov = damoov().await;
    let refusing = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = refusing.local_addr().unwrap().port();
    drop(refusing);
    let proxy = proxy(&damoov)
        .redirect(
            "user.telematicssdk.com",
            &format!("http://127.0.0.1:{port}"),
        )
        .set("forward_unknown_logins", "true")
        .set("login_budget.logins", "2")
        .start()
        .await;
    let fields = json!({"email": "stranger@example.com"}).to_string();
    let content = json!({"LoginFields": fields, "Password": "?"});
    for _ in 0..3 {
        let answer = post(&proxy, Request::post("/v1/Auth/Login"), content.clone()).await;
        assert_refused(&answer, 502, "upstream_unreachable");
    }
    assert_eq!(proxy.metric("login_budget_remaining", "").await, 2.0);
}

#[tokio::test]
async fn a_429_to_a_forwarded_login_blocks_logins_like_any_other() {
    let damoov = damoov_with(|settings| {
        settings.login_limit.as_mut().unwrap().calls = 0;
    })
    .await;
    let proxy = proxy(&damoov)
        .set("forward_unknown_logins", "true")
        .start()
        .await;
    let fields = json!({"email": "stranger@example.com"}).to_string();
    let content = json!({"LoginFields": fields, "Password": "?"});
    let answer = post(&proxy, Request::post("/v1/Auth/Login"), content.clone()).await;
    assert_eq!(answer.status, 429);
    assert_refused(&proxy.get(1, SCORES).await, 503, "login_blocked");
    let answer = post(&proxy, Request::post("/v1/Auth/Login"), content).await;
    assert_refused(&answer, 503, "login_blocked");
    assert_eq!(damoov.handle().counts().total.logins.all(), 1);
}

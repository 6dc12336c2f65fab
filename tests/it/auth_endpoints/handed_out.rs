//! The tokens that callers are given: whom they name, where, how long, and what ends them.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use damoov_proxy::clock::Clock;
use futures_util::future::join_all;
use http::Request;
use serde_json::Value;

use super::{ADMIN, Tokens, assert_refused, log_in, log_in_account, refresh};
use crate::harness::{Proxy, SCORES, damoov, damoov_with, eventually, principal, proxy, user};

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

async fn assert_invalid(proxy: &Proxy, token: &str) {
    let request = Request::get(SCORES).header("Authorization", format!("Bearer {token}"));
    let answer = proxy.send(request).await;
    assert_refused(&answer, 401, "token_invalid");
    assert!(answer.header("www-authenticate").starts_with("Bearer"));
}

#[tokio::test]
async fn a_handed_out_token_looks_like_the_real_one_and_is_swapped_for_it() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let tokens = Tokens::of(&log_in(&proxy, 1).await);
    assert_eq!(part(&tokens.access, 0)["kid"], "damoov-proxy");
    let claims = part(&tokens.access, 1);
    assert_eq!(claims["DeviceToken"], user(1).to_string().replace('-', ""));
    assert_eq!(claims["IsAdmin"], "False");
    let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert!((86_000..=86_400).contains(&life));
    for _ in 0..2 {
        let answer = proxy.send(tokens.get(SCORES)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.served_as(), user(1).to_string());
        damoov.handle().expire(None);
    }
    let count = damoov.handle().counts_of(&principal(1));
    assert_eq!((count.logins.all(), count.refreshes.all()), (1, 1));
}

#[tokio::test]
async fn an_accounts_token_names_it_on_admin_routes_and_a_users_does_not() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let admin = Tokens::of(&log_in_account(&proxy).await);
    let of_user = Tokens::of(&log_in(&proxy, 1).await);
    assert_eq!(proxy.send(admin.get(ADMIN)).await.status, 200);
    // On a route for either, the one who is named.
    for (tokens, served_as) in [(&admin, String::new()), (&of_user, user(1).to_string())] {
        let answer = proxy.send(tokens.get("/v1/Management/users")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.served_as(), served_as);
    }
    // A user's token opens nothing that an account is asked for, although there is a default one.
    assert_refused(
        &proxy.send(of_user.get(ADMIN)).await,
        400,
        "account_unknown",
    );
    assert_refused(
        &proxy.send(admin.get(SCORES)).await,
        400,
        "device_token_missing",
    );
}

#[tokio::test]
async fn two_names_that_differ_are_a_conflict_and_no_token_is_looked_up() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let tokens = Tokens::of(&log_in(&proxy, 1).await);
    let lookups = proxy.metric("token_lookups_total", "").await;
    let header = tokens
        .get(SCORES)
        .header("DeviceToken", user(2).to_string());
    assert_refused(&proxy.send(header).await, 400, "principal_conflict");
    let prefix = tokens.get(&format!("/~{}{SCORES}", user(2)));
    assert_refused(&proxy.send(prefix).await, 400, "principal_conflict");
    assert_eq!(proxy.metric("token_lookups_total", "").await, lookups);
    let same = tokens
        .get(SCORES)
        .header("DeviceToken", user(1).to_string());
    assert_eq!(proxy.send(same).await.status, 200);
}

#[tokio::test]
async fn forged_foreign_and_misused_tokens_are_invalid() {
    let damoov = damoov().await;
    let here = proxy(&damoov).start().await;
    let elsewhere = proxy(&damoov).start().await;
    let tokens = Tokens::of(&log_in(&here, 1).await);
    let other = Tokens::of(&log_in(&here, 2).await);
    let strangers = Tokens::of(&log_in(&elsewhere, 1).await);
    let real = damoov.handle().issue(&principal(3)).access_token;

    // Every byte of it counts.
    let (signed, mac) = tokens.access.rsplit_once('.').unwrap();
    for place in (0..tokens.access.len()).step_by(37) {
        let mut forged = tokens.access.clone().into_bytes();
        forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(forged).unwrap();
        if forged != tokens.access {
            assert_invalid(&here, &forged).await;
        }
    }
    for token in [
        "x",
        "..",
        signed,
        mac,
        &format!("{signed}."),
        &format!("{signed}.{mac}{mac}"),
        &format!("{signed}.{}", other.access.rsplit_once('.').unwrap().1),
        &tokens.refresh,
        &strangers.access,
        &real,
    ] {
        assert_invalid(&here, token).await;
    }
    // Beside another name a stranger's bearer is dropped, and never forwarded.
    let dropped = Request::get(SCORES)
        .header("DeviceToken", user(1).to_string())
        .header("Authorization", format!("Bearer {real}"));
    assert_eq!(here.send(dropped).await.served_as(), user(1).to_string());

    let refreshes = damoov.handle().counts().total.refreshes.all();
    for (access, refresh_token) in [
        (&tokens.access, &tokens.access),
        (&tokens.refresh, &tokens.refresh),
        (&tokens.access, &other.refresh),
        (&tokens.access, &strangers.refresh),
        (&strangers.access, &tokens.refresh),
        (&real, &tokens.refresh),
        (&"x".to_owned(), &tokens.refresh),
    ] {
        let answer = refresh(&here, access, refresh_token).await;
        assert_refused(&answer, 401, "token_invalid");
    }
    assert_eq!(damoov.handle().counts().total.refreshes.all(), refreshes);
}

#[tokio::test]
async fn tokens_are_good_after_a_restart_and_on_every_process_of_the_store() {
    let damoov = damoov().await;
    let mut first = proxy(&damoov).start().await;
    let tokens = Tokens::of(&log_in(&first, 1).await);
    let second = proxy(&damoov).start_on(first.store()).await;
    assert_eq!(second.send(tokens.get(SCORES)).await.status, 200);
    Tokens::of(&refresh(&second, &tokens.access, &tokens.refresh).await);
    first.crash().await;
    assert_eq!(first.send(tokens.get(SCORES)).await.status, 200);
    assert_eq!(damoov.handle().counts().total.logins.all(), 1);
}

#[tokio::test]
async fn forgetting_a_user_ends_its_tokens_and_a_new_login_gives_good_ones() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    let old = Tokens::of(&log_in(&proxy, 1).await);
    let others = Tokens::of(&log_in(&proxy, 2).await);
    let forget = format!("tokens forget {}", user(1));
    assert!(proxy.command(&forget).status().unwrap().success());
    proxy.crash().await;
    assert_invalid(&proxy, &old.access).await;
    let answer = refresh(&proxy, &old.access, &old.refresh).await;
    assert_refused(&answer, 401, "token_invalid");
    assert_eq!(damoov.handle().counts_of(&principal(1)).logins.all(), 1);

    let new = Tokens::of(&log_in(&proxy, 1).await);
    assert_eq!(proxy.send(new.get(SCORES)).await.status, 200);
    assert_invalid(&proxy, &old.access).await;
    assert_eq!(proxy.send(others.get(SCORES)).await.status, 200);
}

#[tokio::test]
async fn a_forget_beside_a_running_proxy_ends_tokens_within_a_second() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let tokens = Tokens::of(&log_in(&proxy, 1).await);
    let forget = format!("tokens forget {}", user(1));
    assert!(proxy.command(&forget).status().unwrap().success());
    let refused = async || proxy.send(tokens.get(SCORES)).await.status == 401;
    crate::harness::eventually("the token is invalid", refused).await;
    assert_eq!(damoov.handle().counts().total.logins.all(), 1);
}

/// A day in five seconds.
const SCALE: u32 = 17_280;

#[tokio::test]
async fn an_access_token_is_good_for_a_day_past_its_end_and_renewable_after() {
    let clock = Clock::scaled(SCALE);
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.clock = clock;
    })
    .await;
    let proxy = proxy(&damoov)
        .set("renewal.wait", "1h")
        .set("renewal.timeout", "1h")
        .scaled(SCALE)
        .start()
        .await;
    let tokens = Tokens::of(&log_in(&proxy, 1).await);
    clock.sleep(Duration::from_secs(36 * 3600)).await;
    // The renewal may take longer than anybody waits: an hour passes in 0.2 s.
    eventually("it is good past its end", async || {
        let answer = proxy.send(tokens.get(SCORES)).await;
        assert!(
            [200, 504].contains(&answer.status.as_u16()),
            "{}",
            answer.text()
        );
        answer.status == 200
    })
    .await;
    clock.sleep(Duration::from_secs(16 * 3600)).await;
    assert_invalid(&proxy, &tokens.access).await;
    let newer = Tokens::of(&refresh(&proxy, &tokens.access, &tokens.refresh).await);
    assert_eq!(proxy.send(newer.get(SCORES)).await.status, 200);
    assert_eq!(damoov.handle().counts_of(&principal(1)).logins.all(), 1);
}

#[tokio::test]
async fn configured_real_tokens_name_their_user_while_they_are_known() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).set("hand_out", "real").start().await;
    let first = Tokens::of(&log_in(&proxy, 1).await);
    let admin = Tokens::of(&log_in_account(&proxy).await);
    assert_ne!(part(&first.access, 0)["kid"], "damoov-proxy");
    // Damoov itself takes it.
    let direct = Request::get(format!("{}{SCORES}", damoov.base_url()))
        .header("Authorization", format!("Bearer {}", first.access))
        .body(Default::default())
        .unwrap();
    assert_eq!(proxy.client().send(direct).await.unwrap().status, 200);
    assert_eq!(proxy.send(admin.get(ADMIN)).await.status, 200);

    damoov.handle().expire(Some(&principal(1)));
    let answer = proxy.send(first.get(SCORES)).await;
    assert_eq!(answer.served_as(), user(1).to_string(), "{}", answer.text());
    // It is the previous one now, which holds after a restart as well.
    proxy.crash().await;
    let answer = proxy.send(first.get(SCORES)).await;
    assert_eq!(answer.served_as(), user(1).to_string(), "{}", answer.text());
    let second = Tokens::of(&refresh(&proxy, &first.access, &first.refresh).await);
    assert_ne!(second.access, first.access);
    damoov.handle().expire(Some(&principal(1)));
    assert_eq!(proxy.send(second.get(SCORES)).await.status, 200);
    // Two generations old.
    assert_invalid(&proxy, &first.access).await;
    let stranger = damoov.handle().issue(&principal(1)).access_token;
    assert_invalid(&proxy, &stranger).await;
    assert_eq!(damoov.handle().counts_of(&principal(1)).logins.all(), 1);
}

#[tokio::test]
async fn a_token_of_an_account_that_is_configured_no_more_is_invalid() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    let tokens = Tokens::of(&log_in_account(&proxy).await);
    assert_eq!(proxy.send(tokens.get(ADMIN)).await.status, 200);
    proxy.kill();
    proxy.reconfigure("account.0.name", "another");
    proxy.start().await;
    assert_refused(&proxy.send(tokens.get(ADMIN)).await, 401, "token_invalid");
    let refreshed = refresh(&proxy, &tokens.access, &tokens.refresh).await;
    assert_refused(&refreshed, 401, "token_invalid");
}

#[tokio::test]
async fn a_real_token_names_its_user_after_an_import_replaced_it() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).set("hand_out", "real").start().await;
    let first = Tokens::of(&log_in(&proxy, 1).await);
    proxy.kill();
    proxy.import(&damoov, [1]);
    proxy.start().await;
    let answer = proxy.send(first.get(SCORES)).await;
    assert_eq!(answer.served_as(), user(1).to_string(), "{}", answer.text());
    assert_eq!(damoov.handle().counts_of(&principal(1)).logins.all(), 1);
}

#[tokio::test]
async fn a_refresh_of_a_real_token_gives_another_in_case_damoov_refused_it() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).set("hand_out", "real").start().await;
    let first = Tokens::of(&log_in(&proxy, 1).await);
    // Damoov says so to the caller, who calls it directly; the proxy does not know.
    damoov.handle().expire(None);
    let refreshes = (0..50).map(|_| refresh(&proxy, &first.access, &first.refresh));
    for answer in join_all(refreshes).await {
        let newer = Tokens::of(&answer);
        assert_ne!(newer.access, first.access);
        assert_eq!(proxy.send(newer.get(SCORES)).await.status, 200);
    }
    let count = damoov.handle().counts_of(&principal(1));
    assert_eq!((count.logins.all(), count.refreshes.all()), (1, 1));
}

#[tokio::test]
async fn tokens_outlive_the_replacement_of_the_stores_key() {
    let key = |byte: u8| base64::prelude::BASE64_STANDARD.encode([byte; 32]);
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov)
        .set("store.key.env", "STORE_KEY")
        .env("STORE_KEY", &key(1))
        .env("NEW_KEY", &key(2))
        .start()
        .await;
    let old = Tokens::of(&log_in(&proxy, 1).await);
    proxy.kill();
    proxy.reconfigure("store.key.env", "NEW_KEY");
    proxy.reconfigure("store.old_keys", "[{ env = \"STORE_KEY\" }]");
    proxy.start().await;
    assert_eq!(proxy.send(old.get(SCORES)).await.status, 200);
    let new = Tokens::of(&refresh(&proxy, &old.access, &old.refresh).await);
    assert_eq!(proxy.send(new.get(SCORES)).await.status, 200);
    assert_eq!(damoov.handle().counts().total.logins.all(), 1);
}

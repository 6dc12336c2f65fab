//! Logins, registrations, requests and trouble at the same time.

use damoov_proxy::simulator::KnownUsers;
use futures_util::future::{join, join_all};
use http::Request;
use serde_json::json;

use super::{Tokens, log_in, post};
use crate::harness::{SCORES, captured, damoov, damoov_with, eventually, principal, proxy, user};

#[tokio::test]
async fn logins_amid_revocations_forgets_and_crashes_all_end_well() {
    let damoov = damoov().await;
    let one = proxy(&damoov)
        .set("login_budget.logins", "100")
        .start()
        .await;
    let mut other = proxy(&damoov)
        .set("login_budget.logins", "100")
        .start_on(one.store())
        .await;
    let forget = format!("tokens forget {}", user(1));
    let rounds = 4;
    for _ in 0..rounds {
        let logins = (0..100).flat_map(|_| [log_in(&one, 1), log_in(&other, 1)]);
        let trouble = async {
            damoov.handle().expire(None);
            captured(one.command(&forget)).await
        };
        let (answers, _) = join(join_all(logins), trouble).await;
        answers.iter().for_each(|answer| drop(Tokens::of(answer)));
        other.crash().await;
    }
    let count = damoov.handle().counts_of(&principal(1)).logins.all();
    assert!(count <= 1 + rounds, "{count} logins");
    // A forget beside a running process is known to it within a second.
    let served = async || {
        let tokens = Tokens::of(&log_in(&one, 1).await);
        other.send(tokens.get(SCORES)).await.status == 200
    };
    eventually("tokens of one process are good at the other", served).await;
}

#[tokio::test]
async fn a_registration_amid_requests_of_its_user_serves_them_all() {
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.known_users = KnownUsers::Only(Vec::new());
    })
    .await;
    let proxy = proxy(&damoov)
        .set("login_budget.logins", "1000")
        .set("renewal.remember_rejected", "1s")
        .start()
        .await;
    for number in 1..=20 {
        let content = json!({"CustomToken": user(number).to_string(), "CreateAccessToken": true});
        let create = post(&proxy, Request::post("/v1/Registration/create"), content);
        let (registered, _) =
            join(create, join_all((0..5).map(|_| proxy.get(number, SCORES)))).await;
        let tokens = Tokens::of(&registered);
        let answer = proxy.send(tokens.get(SCORES)).await;
        assert_eq!(
            answer.served_as(),
            user(number).to_string(),
            "{}",
            answer.text()
        );
        let logins = damoov.handle().counts_of(&principal(number)).logins.all();
        assert!(logins <= 2, "{logins} logins");
    }
}

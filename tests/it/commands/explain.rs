//! `explain`: what a principal's last renewal was, what its next request does, and what a 401 then does.

use serde_json::Value;

use crate::harness::{Proxy, SCORES, captured, damoov, principal, proxy, user};

async fn explained(proxy: &Proxy, number: usize) -> Value {
    let command = proxy.command(&format!("explain {} --json", user(number)));
    let output = captured(command).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn explain_follows_a_user_from_no_login_to_a_dead_token() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let (code, said) = proxy.run(&format!("explain {}", user(1))).await;
    assert_eq!(code, Some(1), "nothing is known: {said}");
    let nothing = explained(&proxy, 1).await;
    assert_eq!(nothing["known"], false);
    assert_eq!(nothing["next_request"], "logs_in");
    assert_eq!(nothing["after_401"], "refreshes");
    assert_eq!(nothing["last_renewal"], Value::Null);

    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    let served = explained(&proxy, 1).await;
    assert_eq!(served["known"], true);
    assert_eq!(served["next_request"], "served");
    assert_eq!(served["after_401"], "refreshes");
    assert_eq!(served["last_renewal"]["outcome"], "renewed");
    let age = served["last_renewal"]["age_seconds"].as_f64().unwrap();
    assert!((0.0..60.0).contains(&age), "{age}");

    damoov.handle().revoke_refresh_tokens(Some(&principal(1)));
    let (code, said) = proxy.run("tokens verify").await;
    assert_eq!(code, Some(1), "{said}");
    let dead = explained(&proxy, 1).await;
    assert_eq!(dead["last_renewal"]["outcome"], "refresh_rejected");
    assert_eq!(dead["next_request"], "served");
    assert_eq!(dead["after_401"], "logs_in");
    let (code, said) = proxy.run(&format!("explain {}", user(1))).await;
    assert_eq!(code, Some(0), "{said}");
    for row in [
        "last renewal   a refresh that Damoov rejected",
        "next request   goes out with the stored token, which costs nothing",
        "a 401 then     costs a login, which takes a slot of the budget",
    ] {
        assert!(said.contains(row), "{row}: {said}");
    }
}

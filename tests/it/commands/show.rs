//! `tokens show`: each obstacle with its end, and the name that the log has for a user.

use damoov_proxy::simulator::{Action, Fault, On, Status};
use serde_json::Value;

use crate::harness::{Proxy, SCORES, captured, damoov, damoov_with, proxy, user};

async fn show(proxy: &Proxy, number: usize) -> String {
    proxy.run(&format!("tokens show {}", user(number))).await.1
}

#[tokio::test]
async fn a_user_who_never_got_in_has_a_log_name_and_its_obstacles() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    let limited = Action::Status(Status {
        code: 429,
        retry_after: Some(3000),
        content: None,
    });
    damoov.handle().add_fault(Fault::new(On::Login, limited));
    assert_eq!(proxy.get(1, SCORES).await.code(), "login_blocked");
    let (code, shown) = proxy.run(&format!("tokens show {}", user(1))).await;
    assert_eq!(code, Some(1), "nothing is known: {shown}");
    for row in [
        "needs login    yes: it has no pair",
        "next request   is refused",
        "obstacle       blocked: ",
        "the block ends in 49m (login_blocked)",
    ] {
        assert!(shown.contains(row), "{row}: {shown}");
    }
    assert!(proxy.terminate().await.success());
    let log = proxy.log();
    let event = log
        .lines()
        .find(|line| line.contains("\"target\":\"access\""));
    let event: Value = serde_json::from_str(event.unwrap()).unwrap();
    let name = event["principal"].as_str().unwrap();
    assert!(
        shown.contains(&format!("in logs        {name}")),
        "{name}: {shown}"
    );
}

#[tokio::test]
async fn a_served_user_needs_no_login_and_a_used_up_budget_is_told() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).set("login_budget.logins", "1").start().await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    let shown = show(&proxy, 1).await;
    for row in [
        "RefreshToken   present",
        "needs login    no: its RefreshToken renews it",
        "next request   goes out with the stored token, which costs nothing",
        "obstacle       out of budget: ",
        "(login_budget_exhausted)",
    ] {
        assert!(shown.contains(row), "{row}: {shown}");
    }
    let json = captured(proxy.command(&format!("tokens show {} --json", user(1)))).await;
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["needs_login"], false);
    assert_eq!(json["next_request"], "served");
    assert_eq!(json["obstacles"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_rejected_login_is_told_until_the_key_is_another() {
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.rejected_users = vec!["00000001".to_owned()];
    })
    .await;
    let mut proxy = proxy(&damoov).start().await;
    assert_eq!(proxy.get(1, SCORES).await.code(), "login_rejected");
    let shown = show(&proxy, 1).await;
    assert!(shown.contains("obstacle       rejected: "), "{shown}");
    assert!(
        shown.contains("tried again in 9m (login_rejected)"),
        "{shown}"
    );
    proxy.reconfigure("instance.0.key", "another");
    let shown = show(&proxy, 1).await;
    assert!(shown.contains("obstacle       none"), "{shown}");
}

#[tokio::test]
async fn a_dead_refresh_token_and_a_suspension_are_told() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).set("renewal.wait", "2s").start().await;
    proxy.import(&damoov, 1..=6);
    // Every refresh is rejected, and so is every login for want of one.
    damoov
        .handle()
        .add_fault(Fault::new(On::Login, Action::status(503)));
    damoov.handle().expire(None);
    damoov.handle().revoke_refresh_tokens(None);
    proxy.get(1, SCORES).await;
    let shown = show(&proxy, 1).await;
    assert!(shown.contains("RefreshToken   dead"), "{shown}");
    assert!(
        shown.contains("needs login    yes: its RefreshToken is dead"),
        "{shown}"
    );
    for number in 2..=5 {
        proxy.get(number, SCORES).await;
    }
    let shown = show(&proxy, 6).await;
    assert!(shown.contains("obstacle       suspended: "), "{shown}");
}

//! `doctor`: each step that a request takes, and what to do about one that fails.

use std::time::Duration;

use damoov_proxy::simulator::{Action, Fault, On};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::harness::{
    Proxy, SCORES, captured, damoov, principal, proxy, server_tls, trusting, user, with_tls,
};

/// The findings of a run, and its exit code.
async fn doctor(proxy: &Proxy, options: &str) -> (Option<i32>, Vec<Value>) {
    let output = captured(proxy.command(&format!("doctor --json{options}"))).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    (output.status.code(), lines.collect())
}

fn of<'f>(findings: &'f [Value], step: &str) -> &'f Value {
    let found = findings.iter().find(|finding| finding["step"] == step);
    found.unwrap_or_else(|| panic!("{step} is not among {findings:#?}"))
}

#[tokio::test]
async fn a_proxy_that_works_is_found_in_order_and_one_pair_is_refreshed() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    let (code, findings) = doctor(&proxy, "").await;
    assert_eq!(code, Some(0), "{findings:#?}");
    let steps: Vec<_> = findings.iter().map(|found| found["step"].as_str().unwrap()).collect();
    assert_eq!(steps[..4], ["configuration", "name", "connection", "certificate"]);
    assert_eq!(steps[steps.len() - 4..], ["clock", "store", "budget", "renewal"]);
    for step in ["name", "connection", "answer", "store", "budget", "renewal"] {
        let found = of(&findings, step);
        assert_eq!(found["verdict"], "good", "{found}");
        assert!(found["took_millis"].as_f64().unwrap() > 0.0, "{found}");
    }
    let total = damoov.handle().counts().total;
    assert_eq!((total.logins.all(), total.refreshes.ok), (1, 1));
    let (code, said) = proxy.run("doctor").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("ok      renewal       user:00000001"), "{said}");
}

#[tokio::test]
async fn a_login_is_made_only_if_it_is_allowed() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    damoov.handle().revoke_refresh_tokens(Some(&principal(1)));
    let (code, findings) = doctor(&proxy, "").await;
    assert_eq!(code, Some(1), "{findings:#?}");
    let renewal = of(&findings, "renewal");
    assert_eq!(renewal["verdict"], "failed");
    assert!(renewal["advice"].as_str().unwrap().contains("tokens verify"));
    let (code, findings) = doctor(&proxy, "").await;
    assert_eq!(code, Some(0), "it is known to be dead: {findings:#?}");
    assert_eq!(of(&findings, "renewal")["verdict"], "skipped");
    assert_eq!(damoov.handle().counts().total.logins.all(), 1);
    let (code, findings) = doctor(&proxy, " --allow-login").await;
    assert_eq!(code, Some(0), "{findings:#?}");
    assert_eq!(of(&findings, "renewal")["verdict"], "good");
    assert_eq!(damoov.handle().counts().total.logins.all(), 2);
}

#[tokio::test]
async fn a_host_that_is_not_reached_fails_at_its_step_with_what_to_do() {
    let damoov = damoov().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    for (url, step, advice) in [
        ("http://nowhere.invalid:81", "name", "resolver"),
        ("http://127.0.0.1:1", "connection", "nothing listens there"),
        (&*silent, "answer", "ask Damoov"),
    ] {
        let proxy = proxy(&damoov)
            .redirect("user.telematicssdk.com", url)
            .set("upstream.response_timeout", "300ms")
            .stopped_here();
        let (code, findings) = doctor(&proxy, "").await;
        assert_eq!(code, Some(1), "{findings:#?}");
        let failed: Vec<_> = findings
            .iter()
            .filter(|finding| finding["verdict"] == "failed")
            .collect();
        assert_eq!(failed.len(), 1, "{failed:#?}");
        assert_eq!(failed[0]["step"], step, "{failed:#?}");
        let told = failed[0]["advice"].as_str().unwrap();
        assert!(told.contains(advice), "{told}");
        let found = failed[0]["found"].as_str().unwrap();
        assert!(found.starts_with("user.telematicssdk.com: "), "{found}");
        assert!(!proxy.store().exists(), "it makes no store");
    }
}

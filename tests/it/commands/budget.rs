//! `budget`: what it says of windows and blocks, and that a running proxy follows when one is lifted.

use damoov_proxy::simulator::{Action, Fault, On, Status};
use serde_json::Value;
use tokio::time::Instant;

use crate::harness::{SCORES, captured, damoov, eventually, proxy};

#[tokio::test]
async fn the_budget_tells_its_windows_the_reserve_and_the_next_slots() {
    let damoov = damoov().await;
    let builder = proxy(&damoov).set("login_budget.more", r#"[{ logins = 40, per = "1h" }]"#);
    let store = builder.store();
    let mut proxy = builder.stopped(&store);
    let (code, said) = proxy.run("budget").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("4 logins in 1m: 0 used, 4 free"), "{said}");
    assert!(!store.exists(), "looking makes no store");

    proxy.start().await;
    for number in [1, 2, 3] {
        assert_eq!(proxy.get(number, SCORES).await.status, 200);
    }
    let (code, said) = proxy.run("budget").await;
    assert_eq!(code, Some(0), "{said}");
    for row in [
        "window         4 logins in 1m: 3 used, 1 free",
        "window         40 logins in 1h: 3 used, 37 free",
        "reserve        1 of each window",
        "users seen before: now; new users: in ",
        "block          none",
        "halving        none",
    ] {
        assert!(said.contains(row), "{row}: {said}");
    }
    let json = captured(proxy.command("budget --json")).await;
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["windows"][0]["used"], 3);
    assert_eq!(json["next_known_seconds"], 0.0);
    assert!(json["next_new_seconds"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn a_block_is_told_and_lifted_only_with_yes_and_a_running_proxy_follows() {
    let damoov = damoov().await;
    // Half of the windows is enough for all of these.
    let proxy = proxy(&damoov)
        .set("login_budget.logins", "40")
        .start()
        .await;
    let limited = Action::Status(Status {
        code: 429,
        retry_after: Some(3000),
        content: None,
    });
    damoov.handle().add_fault(Fault::new(On::Login, limited));
    assert_eq!(proxy.get(1, SCORES).await.code(), "login_blocked");
    damoov.handle().clear_faults();

    let (code, said) = proxy.run("budget").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("block          for 49m more"), "{said}");
    assert!(said.contains("20 logins in 1m (half of 40)"), "{said}");
    let (code, said) = proxy.run("budget unblock").await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("49m") && said.contains("--yes"), "{said}");
    assert_eq!(proxy.get(1, SCORES).await.code(), "login_blocked");

    let (code, said) = proxy.run("budget unblock --yes").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("the block is lifted; the windows stay halved"),
        "{said}"
    );
    let lifted = Instant::now();
    eventually("the user logs in", async || {
        proxy.get(1, SCORES).await.status == 200
    })
    .await;
    assert!(lifted.elapsed().as_millis() < 1000);
    assert_eq!(proxy.metric("login_blocked_seconds", "").await, 0.0);
    for (command, code) in [("budget unblock --yes", 0), ("budget unblock", 2)] {
        let (ended, said) = proxy.run(command).await;
        assert_eq!(ended, Some(code), "{said}");
        assert!(said.contains("nothing to lift"), "{said}");
    }
}

#[tokio::test]
async fn a_request_that_waits_for_the_end_of_a_block_follows_when_it_is_lifted() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov)
        .set("renewal.wait", "60s")
        .set("login_budget.logins", "40")
        .start()
        .await;
    let limited = Action::Status(Status {
        code: 429,
        retry_after: Some(45),
        content: None,
    });
    damoov.handle().add_fault(Fault::new(On::Login, limited));
    proxy.get(1, SCORES).await;
    damoov.handle().clear_faults();
    // They fill the line while the block stands, and would wait for its end.
    let calls = [1, 2].map(|number| proxy.calling(number, SCORES));
    eventually("both wait", async || {
        proxy.metric("requests_in_flight", "").await == 2.0
    })
    .await;
    let lifted = Instant::now();
    let (code, said) = proxy.run("budget unblock --yes").await;
    assert_eq!(code, Some(0), "{said}");
    for call in calls {
        assert_eq!(call.await.unwrap().status, 200);
    }
    assert!(
        lifted.elapsed().as_secs() < 10,
        "it did not wait for the block"
    );
}

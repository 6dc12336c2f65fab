//! `tokens verify`: refreshes that nobody asked for, and what they cost.

use std::process::Stdio;

use damoov_proxy::simulator::{Action, Delay, Fault, On};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{SCORES, damoov, eventually, principal, proxy, user};

#[tokio::test]
async fn a_sample_is_refreshed_and_the_new_pairs_are_what_is_stored() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    proxy.import(&damoov, 1..=5);
    let (code, said) = proxy.run("tokens verify --sample 3").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("refreshed 3, rejected 0, failed 0, not tried 0; 3 picked of 5"),
        "{said}"
    );
    let (code, said) = proxy.run("tokens verify --sample 100 --json").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("\"refreshed\":5"), "{said}");
    damoov.handle().expire(None);
    for number in 1..=5 {
        assert_eq!(proxy.get(number, SCORES).await.status, 200);
    }
    let total = damoov.handle().counts().total;
    assert_eq!((total.logins.all(), total.refreshes.ok), (0, 3 + 5 + 5));
}

#[tokio::test]
async fn rejected_pairs_are_exit_code_1_and_never_logged_in() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    proxy.import(&damoov, 1..=12);
    damoov.handle().revoke_refresh_tokens(Some(&principal(1)));
    let (code, said) = proxy.run("tokens verify --sample 12").await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("refreshed 11, rejected 1"), "{said}");
    assert!(
        said.contains(&format!("user:{}: the API rejects", user(1))),
        "{said}"
    );

    // One more would suspend the logins of every proxy on this store.
    damoov.handle().revoke_refresh_tokens(None);
    let (code, said) = proxy.run("tokens verify --sample 12").await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("refreshed 0, rejected 4, failed 0, not tried 7"),
        "{said}"
    );
    assert!(said.contains("1 more are known dead"), "{said}");
    assert_eq!(proxy.metric("logins_suspended", "").await, 0.0);
    assert_eq!(damoov.handle().counts().total.logins.all(), 0);
}

#[tokio::test]
async fn an_api_that_cannot_be_asked_is_no_rejection() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let (code, said) = proxy.run("tokens verify").await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nothing to verify"), "{said}");
    proxy.import(&damoov, [1]);
    damoov
        .handle()
        .add_fault(Fault::new(On::Refresh, Action::status(503)));
    let (code, said) = proxy.run("tokens verify --sample 1").await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("refreshed 0, rejected 0, failed 1"), "{said}");
    damoov.handle().clear_faults();
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    assert_eq!(damoov.handle().counts().total.logins.all(), 0);
}

#[tokio::test]
async fn an_interrupted_verification_loses_no_answer() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    proxy.import(&damoov, 1..=9);
    let slow = Fault::new(On::Refresh, Action::Delay(Delay::Millis(500)));
    damoov.handle().add_fault(slow);
    let mut verify = proxy.command("tokens verify --sample 9");
    let mut verify = verify.stderr(Stdio::null()).spawn().unwrap();
    eventually("refreshes are under way", async || {
        damoov.handle().counts().total.refreshes.all() > 0
    })
    .await;
    kill_process(Pid::from_child(&verify), Signal::INT).unwrap();
    let status = tokio::task::spawn_blocking(move || verify.wait().unwrap());
    assert_eq!(status.await.unwrap().code(), Some(75));
    damoov.handle().clear_faults();
    assert!(damoov.handle().counts().total.refreshes.all() < 9);
    damoov.handle().expire(None);
    for number in 1..=9 {
        assert_eq!(proxy.get(number, SCORES).await.status, 200);
    }
    assert_eq!(damoov.handle().counts().total.logins.all(), 0);
}

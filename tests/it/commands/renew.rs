//! `tokens renew`: a refresh that somebody asked for, and a login that he allowed.

use damoov_proxy::simulator::{Action, Delay, Fault, On};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{SCORES, damoov, eventually, principal, proxy, user};

#[tokio::test]
async fn a_pair_is_refreshed_now_and_a_running_proxy_takes_the_new_one() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    let (code, said) = proxy.run(&format!("tokens renew {}", user(1))).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("refreshed user:"), "{said}");
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    let total = damoov.handle().counts().total;
    assert_eq!((total.logins.all(), total.refreshes.all()), (1, 1));
}

#[tokio::test]
async fn a_login_is_made_only_if_it_is_allowed_and_takes_a_slot() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov)
        .set("login_budget.logins", "1")
        .set("renewal.wait", "1s")
        .set("renewal.timeout", "250ms")
        .start()
        .await;
    let renew = format!("tokens renew {}", user(1));
    let allowed = format!("{renew} --allow-login --json");
    let (code, said) = proxy.run(&renew).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--allow-login logs it in"), "{said}");
    assert_eq!(damoov.handle().counts().total.logins.all(), 0);

    let (code, said) = proxy.run(&allowed).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(r#""outcome":"logged_in""#), "{said}");
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    assert_eq!(damoov.handle().counts().total.logins.all(), 1);

    // A pair whose RefreshToken is dead: the only slot of the minute is taken.
    damoov.handle().revoke_refresh_tokens(Some(&principal(1)));
    let (code, said) = proxy.run(&renew).await;
    assert_eq!(code, Some(1), "{said}");
    let (code, said) = proxy.run(&allowed).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the login budget is used up"), "{said}");
    assert_eq!(damoov.handle().counts().total.logins.all(), 1);
}

#[tokio::test]
async fn a_pair_that_a_proxy_is_renewing_is_left_to_it() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    let slow = Fault::new(On::Refresh, Action::Delay(Delay::Millis(3_000)));
    damoov.handle().add_fault(slow);
    damoov.handle().expire(None);
    let waits = proxy.get(1, SCORES);
    let renews = async {
        eventually("the proxy refreshes", async || {
            damoov.handle().counts().total.refreshes.all() > 0
        })
        .await;
        proxy.run(&format!("tokens renew {}", user(1))).await
    };
    let (answer, (_, said)) = tokio::join!(waits, renews);
    assert_eq!(answer.status, 200);
    let total = damoov.handle().counts().total;
    assert_eq!(
        (total.refreshes.all(), total.logins.all()),
        (1, 1),
        "{said}"
    );
}

#[tokio::test]
async fn a_signal_does_not_lose_the_answer_to_a_renewal() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    proxy.import(&damoov, [1]);
    let slow = Fault::new(On::Refresh, Action::Delay(Delay::Millis(700)));
    damoov.handle().add_fault(slow);
    let mut renew = proxy.command(&format!("tokens renew {}", user(1)));
    let mut renew = renew.spawn().unwrap();
    eventually("it refreshes", async || {
        damoov.handle().counts().total.refreshes.all() > 0
    })
    .await;
    kill_process(Pid::from_child(&renew), Signal::INT).unwrap();
    let status = tokio::task::spawn_blocking(move || renew.wait().unwrap());
    assert_eq!(status.await.unwrap().code(), Some(0));
    damoov.handle().clear_faults();
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    let total = damoov.handle().counts().total;
    assert_eq!((total.refreshes.all(), total.logins.all()), (1, 0));
}

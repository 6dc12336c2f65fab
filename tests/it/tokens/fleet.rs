//! Several proxies on one store: one renewal among them, and a holder of a lease that oversleeps it.

use std::time::Duration;

use damoov_proxy::simulator::{Action, Delay, On, Simulator};
use rustix::process::Signal;

use super::{calls, fault_once, log_in, roomy, served};
use crate::harness::{Proxy, SCORES, damoov, eventually, principal, rounds};

async fn pair_of_proxies(damoov: &Simulator) -> (Proxy, Proxy) {
    let one = roomy(damoov).set("renewal.wait", "60s").start().await;
    let other = roomy(damoov).set("renewal.wait", "60s");
    let other = other.start_on(one.store()).await;
    (one, other)
}

/// I1.
#[tokio::test]
async fn two_proxies_on_one_store_renew_once() {
    let damoov = damoov().await;
    let (one, other) = pair_of_proxies(&damoov).await;
    log_in(&damoov, &one, [1]).await;
    served(&other.get(1, SCORES).await, 1);
    for round in 1..=rounds(10, 200) as u64 {
        damoov.handle().expire(None);
        let callers: Vec<_> = (0..20)
            .flat_map(|_| [one.calling(1, SCORES), other.calling(1, SCORES)])
            .collect();
        for caller in callers {
            served(&caller.await.unwrap(), 1);
        }
        assert_eq!(calls(&damoov, 1), (0, round));
    }
    let count = damoov.handle().counts_of(&principal(1));
    assert_eq!(count.refreshes_at_once, 1);
}

#[tokio::test]
async fn two_proxies_on_one_store_log_a_new_user_in_once() {
    let damoov = damoov().await;
    let (one, other) = pair_of_proxies(&damoov).await;
    for number in 0..rounds(10, 200) {
        let callers = [one.calling(number, SCORES), other.calling(number, SCORES)];
        for caller in callers {
            served(&caller.await.unwrap(), number);
        }
        assert_eq!(calls(&damoov, number), (1, 0));
    }
}

#[tokio::test]
async fn a_proxy_follows_what_the_other_one_committed() {
    let damoov = damoov().await;
    let (one, other) = pair_of_proxies(&damoov).await;
    log_in(&damoov, &one, [1]).await;
    served(&other.get(1, SCORES).await, 1);
    damoov.handle().expire(None);
    served(&one.get(1, SCORES).await, 1);
    let unauthorized = || damoov.handle().counts_of(&principal(1)).unauthorized;
    eventually("the other one uses the new token at once", async || {
        let before = unauthorized();
        served(&other.get(1, SCORES).await, 1);
        unauthorized() == before
    })
    .await;
    assert_eq!(calls(&damoov, 1), (0, 1));
}

/// A killed holder's lease holds nobody up.
#[tokio::test]
async fn a_proxy_takes_over_at_once_from_a_killed_one() {
    let damoov = damoov().await;
    let (mut one, other) = pair_of_proxies(&damoov).await;
    log_in(&damoov, &one, [1]).await;
    damoov.handle().expire(None);
    fault_once(&damoov, On::Refresh, Action::status(503));
    let caller = one.calling(1, SCORES);
    eventually("one holds the lease", async || calls(&damoov, 1) == (0, 1)).await;
    one.kill();
    caller.abort();
    let soon = tokio::time::timeout(Duration::from_secs(5), other.get(1, SCORES));
    served(&soon.await.expect("no wait for the lease's end"), 1);
    assert_eq!(calls(&damoov, 1), (0, 2));
}

/// The holder is stopped after Damoov rotated its pair, and wakes when its lease is over: with the
/// answer in its socket, or only after the time for it has run out.
#[tokio::test]
async fn a_holder_that_oversleeps_its_lease_costs_one_login_at_most() {
    tokio::join!(oversleeps("10s"), oversleeps("2s"));
}

async fn oversleeps(timeout: &str) {
    let damoov = damoov().await;
    let one = roomy(&damoov)
        .set("renewal.timeout", timeout)
        .set("renewal.wait", "60s");
    let one = one.start().await;
    let other = roomy(&damoov)
        .set("renewal.wait", "60s")
        .start_on(one.store())
        .await;
    log_in(&damoov, &one, [1]).await;
    damoov.handle().expire(None);
    fault_once(&damoov, On::Refresh, Action::Delay(Delay::Millis(600)));
    let sleeper = one.calling(1, SCORES);
    eventually("Damoov rotated the pair", async || {
        calls(&damoov, 1) == (0, 1)
    })
    .await;
    one.signal(Signal::STOP);

    // Waits until the lease is over, is rejected with the old pair, logs in.
    served(&other.get(1, SCORES).await, 1);
    let healed = damoov.handle().counts_of(&principal(1));
    assert_eq!((healed.logins.ok, healed.refreshes.rejected), (1, 1));

    one.signal(Signal::CONT);
    served(&sleeper.await.unwrap(), 1);
    for _ in 0..3 {
        served(&one.get(1, SCORES).await, 1);
        served(&other.get(1, SCORES).await, 1);
    }
    let count = damoov.handle().counts_of(&principal(1));
    assert_eq!(count.logins.all(), 1, "timeout {timeout}");
    assert_eq!(one.metric("logins_suspended", "").await, 0.0);
}

//! Patience after calls that failed: a user's own before the host's, a slot for each login that was
//! sent and for no other, what Retry-After says, and who goes first when it is over.

use std::net::SocketAddr;
use std::time::Duration;

use damoov_proxy::simulator::{
    Action, Delay, Fault, Garbage, Lost, On, Simulator, Status, StatusUntil,
};
use futures_util::future::join_all;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::{
    calls, fast, fast_damoov, fault, fault_once, log_in, refused, retry_after, roomy, served,
};
use crate::harness::{Proxy, SCORES, damoov, eventually, heavy, loopback, principal, proxy};

/// An address that refuses every connection, until [`reach`] is given it.
fn refusing() -> SocketAddr {
    let listener = std::net::TcpListener::bind(loopback(0)).unwrap();
    listener.local_addr().unwrap()
}

/// From now on `address` leads to `damoov`.
async fn reach(address: SocketAddr, damoov: &Simulator) {
    let (listener, to) = (TcpListener::bind(address).await.unwrap(), damoov.addr());
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut to) = TcpStream::connect(to).await {
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    });
}

fn busy(code: u16, seconds: u64) -> Action {
    Action::Status(Status {
        code,
        retry_after: Some(seconds),
        content: None,
    })
}

fn busy_until(code: u16, seconds: i64) -> Action {
    Action::StatusUntil(StatusUntil { code, seconds })
}

async fn remaining(proxy: &Proxy) -> f64 {
    proxy.metric("login_budget_remaining", "").await
}

#[tokio::test]
async fn an_unsent_login_costs_no_slot_and_goes_out_when_the_host_is_back() {
    let damoov = damoov().await;
    let host = refusing();
    let one = proxy(&damoov).redirect("user.telematicssdk.com", &format!("http://{host}"));
    let one = one.start().await;
    let waits = join_all((1..=3).map(|number| one.calling(number, SCORES)));
    eventually("a login was tried", async || {
        one.metric("renewals_total", "grant=\"login\"").await >= 1.0
    })
    .await;
    // As every process on the store sees it.
    let other = proxy(&damoov).start_on(one.store()).await;
    eventually("all slots are free", async || {
        remaining(&other).await == 4.0
    })
    .await;
    served(&other.get(4, SCORES).await, 4);
    reach(host, &damoov).await;
    let mut codes = Vec::new();
    for answer in waits.await {
        codes.push(answer.unwrap().status.as_u16());
    }
    codes.sort_unstable();
    // The slots that are not reserved for users seen before, and one that comes too late.
    assert_eq!(codes, [200, 200, 503]);
    assert_eq!(damoov.handle().counts().total.logins.all(), 3);
    assert_eq!(remaining(&one).await, 1.0);
}

#[tokio::test]
async fn a_sent_login_that_brought_nothing_costs_its_slot_and_is_not_resent() {
    let damoov = fast_damoov(60).await;
    let proxy = fast(&damoov, 60)
        .set("renewal.timeout", "30s")
        .set("login_budget.per", "1h")
        .start()
        .await;
    let brings_nothing = [
        Action::status(500),
        Action::Garbage(Garbage::Html),
        Action::Garbage(Garbage::OtherUser),
        Action::Lose(Lost::Reset),
        Action::Lose(Lost::Half),
        Action::Lose(Lost::Hang),
    ];
    for (number, action) in brings_nothing.into_iter().enumerate() {
        let before = remaining(&proxy).await;
        let fails = Fault::new(On::Login, action.clone()).of(principal(number));
        damoov.handle().add_fault(fails);
        let answer = proxy.get(number, SCORES).await;
        assert!(answer.status.is_server_error(), "{}", answer.text());
        assert_eq!(calls(&damoov, number), (1, 0), "{action:?}");
        assert!(remaining(&proxy).await == before - 1.0, "{action:?}");

        damoov.handle().clear_faults();
        let rests = Instant::now();
        served(&proxy.get(number, SCORES).await, number);
        assert!(rests.elapsed() * 60 > Duration::from_secs(10));
        assert_eq!(calls(&damoov, number), (2, 0), "{action:?}");
    }
}

#[tokio::test]
async fn one_user_whose_login_fails_takes_few_slots_and_holds_nobody_up() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).set("renewal.wait", "2s").start().await;
    log_in(&damoov, &proxy, [2]).await;
    damoov.handle().expire(None);
    let fails = Fault::new(On::Login, Action::status(500)).of(principal(1));
    damoov.handle().add_fault(fails);
    for _ in 0..5 {
        refused(&proxy.get(1, SCORES).await, 502, "auth_unreachable");
    }
    let started = Instant::now();
    served(&proxy.get(2, SCORES).await, 2);
    served(&proxy.get(3, SCORES).await, 3);
    assert!(started.elapsed() < Duration::from_millis(700));
    assert_eq!(calls(&damoov, 1), (1, 0));
    assert_eq!(remaining(&proxy).await, 1.0);
}

#[tokio::test]
async fn one_user_whose_refresh_fails_holds_up_no_other_renewal() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, 1..=3).await;
    damoov.handle().expire(None);
    let fails = Fault::new(On::Refresh, Action::status(500)).of(principal(1));
    damoov.handle().add_fault(fails);
    let failing = proxy.calling(1, SCORES);
    eventually("a refresh failed", async || calls(&damoov, 1) == (0, 1)).await;
    let started = Instant::now();
    served(&proxy.get(2, SCORES).await, 2);
    served(&proxy.get(3, SCORES).await, 3);
    assert!(started.elapsed() < Duration::from_millis(700));
    refused(&failing.await.unwrap(), 502, "auth_unreachable");
    assert_eq!(calls(&damoov, 1), (0, 3));
}

#[tokio::test]
async fn several_users_whose_refreshes_keep_failing_hold_up_no_other_renewal() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    proxy.import(&damoov, 1..=16);
    damoov.handle().expire(None);
    let failing = 11..=16;
    for number in failing.clone() {
        let fails = Fault::new(On::Refresh, Action::status(500)).of(principal(number));
        damoov.handle().add_fault(fails);
    }
    let callers: Vec<_> = failing.clone().map(|n| proxy.calling(n, SCORES)).collect();
    eventually("each has failed", async || {
        failing.clone().all(|number| calls(&damoov, number).1 >= 1)
    })
    .await;
    // It looked like the host's failure, until this one was answered.
    served(&proxy.get(1, SCORES).await, 1);
    for caller in callers {
        refused(&caller.await.unwrap(), 502, "auth_unreachable");
    }
    let started = Instant::now();
    served(&proxy.get(2, SCORES).await, 2);
    assert!(started.elapsed() < Duration::from_millis(500));
}

#[tokio::test]
async fn several_users_in_a_row_whose_calls_fail_are_a_host_that_does() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    log_in(&damoov, &proxy, 1..=4).await;
    damoov.handle().expire(None);
    let lost = Action::Lose(Lost::Reset);
    damoov
        .handle()
        .add_fault(Fault::new(On::Login, lost).times(3));
    for number in 11..=13 {
        refused(&proxy.get(number, SCORES).await, 502, "auth_unreachable");
    }
    let started = Instant::now();
    served(&proxy.get(1, SCORES).await, 1);
    assert!(started.elapsed() > Duration::from_millis(700));
}

#[tokio::test]
async fn a_date_in_retry_after_blocks_logins_until_then_and_for_a_day_at_most() {
    for (seconds, between) in [
        (20, 17..=20),
        (10_800, 10_790..=10_800),
        (200_000, 86_390..=86_400),
    ] {
        let damoov = damoov().await;
        let proxy = roomy(&damoov).start().await;
        fault_once(&damoov, On::Login, busy_until(429, seconds));
        for number in [1, 2] {
            // The block of 20 s could end within somebody's patience.
            let answer = proxy.calling(number, SCORES);
            if seconds > 20 || number == 1 {
                let answer = answer.await.unwrap();
                refused(&answer, 503, "login_blocked");
                let told = retry_after(&answer);
                assert!(between.contains(&told), "{told}");
            }
        }
        assert_eq!(damoov.handle().counts().total.logins.all(), 1);
    }
}

#[tokio::test]
async fn a_503_and_a_429_to_a_refresh_say_how_long_the_host_is_left_alone() {
    for (on, action) in [
        (On::Refresh, busy(503, 20)),
        (On::Refresh, busy_until(503, 20)),
        (On::Refresh, busy_until(429, 20)),
        (On::Login, busy(503, 20)),
        (On::Login, busy_until(503, 20)),
    ] {
        let damoov = fast_damoov(20).await;
        let proxy = fast(&damoov, 20).start().await;
        log_in(&damoov, &proxy, [1, 2]).await;
        damoov.handle().expire(None);
        fault_once(&damoov, on.clone(), action.clone());
        let started = Instant::now();
        let first = proxy.calling(if on == On::Login { 3 } else { 1 }, SCORES);
        eventually("the host said so", async || {
            let failed = proxy.metric("renewals_total", "result=\"failed\"").await;
            failed + proxy.metric("renewals_total", "result=\"limited\"").await == 1.0
        })
        .await;
        served(&proxy.get(2, SCORES).await, 2);
        let waited = started.elapsed() * 20;
        assert!(waited > Duration::from_secs(18), "{action:?}: {waited:?}");
        let answer = first.await.unwrap();
        match on {
            // The slot is spent, and with it what one request may cost.
            On::Login => refused(&answer, 502, "auth_unreachable"),
            _ => served(&answer, 1),
        }
        let total = damoov.handle().counts().total;
        assert_eq!(
            total.logins.all() + total.refreshes.all(),
            3 - total.logins.all()
        );
    }
}

#[tokio::test]
async fn waiters_that_cannot_outwait_a_back_off_are_told_why_at_once() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).set("renewal.wait", "5s").start().await;
    log_in(&damoov, &proxy, [1, 2]).await;
    damoov.handle().expire(None);
    fault(&damoov, On::Refresh, busy(503, 3_600));
    let started = Instant::now();
    for number in [1, 2] {
        refused(&proxy.get(number, SCORES).await, 502, "auth_unreachable");
    }
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(damoov.handle().counts().total.refreshes.all(), 1);
}

#[tokio::test]
async fn after_a_back_off_one_renewal_goes_first_and_others_at_a_pace() {
    let _turn = heavy().await;
    let damoov = damoov().await;
    let users = 300;
    let proxy = roomy(&damoov).start().await;
    proxy.import(&damoov, 0..users);
    damoov.handle().expire(None);
    // The one that goes first takes its time.
    fault_once(&damoov, On::Refresh, busy(429, 2));
    fault(&damoov, On::Refresh, Action::Delay(Delay::Millis(200)));
    let callers: Vec<_> = (0..users).map(|n| proxy.calling(n, SCORES)).collect();
    let refreshes = || damoov.handle().counts().total.refreshes;
    eventually("the host said so", async || refreshes().failed >= 1).await;
    let before = refreshes().all();
    assert!(before <= 130, "what was under way: {before}");
    let mut seen = Vec::new();
    while refreshes().ok < users as u64 {
        seen.push((Instant::now(), refreshes().all()));
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(seen[0].0.elapsed() < Duration::from_secs(20));
    }
    let followed = refreshes().all() - before;
    let when = |count| {
        let reached = seen.iter().find(|(_, calls)| *calls >= before + count);
        reached.expect("all were seen").0
    };
    // One goes first; how long nine tenths of those that follow take, at 40 more in each second.
    let most = followed * 9 / 10;
    let meant = (1.0 + most as f64 / 20.0).sqrt() - 1.0;
    let took = (when(most) - when(2)).as_secs_f64();
    assert!(
        took > 0.6 * meant,
        "{followed} in {took} s, {before} before"
    );
    for (number, caller) in callers.into_iter().enumerate() {
        served(&caller.await.unwrap(), number);
    }
}

#[tokio::test]
async fn a_host_that_fails_each_first_call_is_called_by_no_other() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).set("renewal.wait", "8s").start().await;
    proxy.import(&damoov, 0..50);
    damoov.handle().expire(None);
    fault_once(&damoov, On::Refresh, busy(429, 1));
    fault(&damoov, On::Refresh, Action::status(500));
    let started = Instant::now();
    let callers: Vec<_> = (0..50).map(|n| proxy.calling(n, SCORES)).collect();
    let calls = || damoov.handle().counts().total.refreshes.all();
    eventually("the host rests", async || {
        started.elapsed() > Duration::from_millis(800)
    })
    .await;
    let before = calls();
    for caller in callers {
        refused(&caller.await.unwrap(), 502, "auth_unreachable");
    }
    // One after each rest, of which each is longer than the one before: 1, 2 and 4 s.
    let calls = calls() - before;
    assert!((2..=4).contains(&calls), "{calls} refreshes");
}

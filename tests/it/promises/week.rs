//! Seven days of everything that goes wrong, in a minute and a half.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use damoov_proxy::clock::Clock;
use damoov_proxy::simulator::{
    Action, Fault, Handle, KnownUsers, LoginLimit, Lost, On, RetryAfter,
};
use futures_util::future::join_all;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;

use crate::harness::{
    Answer, Client, Proxy, SCORES, allow_many_descriptors, damoov_with, heavy, most_within, proxy,
    rounds, user,
};

const USERS: usize = 500;
const DAY: Duration = Duration::from_secs(86_400);
/// Logins in half a day: by the budget, and before the API blocks.
const BUDGET: usize = 300;
const LIMIT: usize = 330;

/// What callers may be told instead of being served at once: the proxy is down, the login waits
/// for a slot, an answer was lost, the API is broken.
const PASSING: [&str; 8] = [
    "login_budget_exhausted",
    "login_suspended",
    "login_contested",
    "credentials_timeout",
    "auth_timeout",
    "auth_unreachable",
    "auth_bad_response",
    "draining",
];

struct Week {
    client: Client,
    url: String,
    over: AtomicBool,
    calls: AtomicUsize,
    put_off: AtomicUsize,
    made_up: AtomicUsize,
}

#[tokio::test]
async fn a_week_in_the_life_costs_one_login_a_user_and_trips_no_block() {
    let _turn = heavy().await;
    allow_many_descriptors();
    let scale: u32 = if rounds(1, 2) == 1 { 7200 } else { 1800 };
    let damoov = damoov_with(|settings| {
        settings.clock = Clock::scaled(scale);
        settings.known_users = KnownUsers::Only((0..USERS).map(user).collect());
        settings.refresh.grace = 2 * DAY;
        settings.login_limit = Some(LoginLimit {
            calls: LIMIT,
            per: DAY / 2,
            block: DAY,
            retry_after: RetryAfter::Told,
        });
    })
    .await;
    let handle = damoov.handle();
    let mut proxy = proxy(&damoov)
        .env("DAMOOV_PROXY_TIME_SCALE", &scale.to_string())
        .set("login_budget.logins", &BUDGET.to_string())
        .set("login_budget.per", "12h")
        .set("renewal.wait", "1h")
        .set("renewal.timeout", "1h")
        .set("drain_timeout", "1s")
        .start()
        .await;
    let week = Week {
        client: Client::new(),
        url: proxy.url(SCORES),
        over: AtomicBool::new(false),
        calls: AtomicUsize::new(0),
        put_off: AtomicUsize::new(0),
        made_up: AtomicUsize::new(0),
    };
    let users = join_all((0..USERS).map(|number| week.live(number, DAY / scale)));
    let trouble = async {
        trouble(&mut proxy, handle, DAY / scale).await;
        week.over.store(true, Ordering::Release);
    };
    let (_, (), ()) = tokio::join!(users, trouble, week.make_up_users(DAY / scale));

    let counts = handle.counts();
    eprintln!(
        "{} calls, {} put off, {} made up; {:?}",
        week.calls.load(Ordering::Relaxed),
        week.put_off.load(Ordering::Relaxed),
        week.made_up.load(Ordering::Relaxed),
        counts.total
    );
    assert_eq!(counts.blocks_tripped, 0);
    assert_eq!(counts.total.wrong_tokens, 0);
    assert!(counts.total.refreshes.lost > 0 && counts.total.refreshes.failed > 0);
    assert!(most_within(&counts.login_calls, DAY / 2) <= LIMIT);
    let logins = counts.total.logins.ok as usize;
    // The broken API costs four at most; a user whose answer was lost twice just before it has a reason to be
    // rejected, and costs one of its own.
    assert!((USERS..=USERS + 4 + 2).contains(&logins), "{logins} logins");
}

/// What befalls the proxy and the API in seven days.
async fn trouble(proxy: &mut Proxy, handle: &Handle, day: Duration) {
    for today in 1..=7 {
        let next = Instant::now() + day;
        let lost = Fault::new(On::Refresh, Action::Lose(Lost::Reset));
        handle.add_fault(lost.times(20));
        tokio::time::sleep(day.mul_f64(fastrand::f64() / 3.0)).await;
        if today == 4 {
            let broken = Fault::new(On::Refresh, Action::status(400));
            handle.clear_faults();
            handle.add_fault(broken);
            handle.expire(None);
            tokio::time::sleep(day / 48).await;
            handle.clear_faults();
            tokio::time::sleep(day / 8).await;
        }
        match today % 3 {
            0 => {
                assert!(proxy.terminate().await.success());
                proxy.start().await;
            }
            _ => proxy.crash().await,
        }
        tokio::time::sleep_until(next).await;
    }
}

impl Week {
    /// A user's calls until the week is over, and one more.
    async fn live(&self, number: usize, day: Duration) {
        while !self.over.load(Ordering::Acquire) {
            self.served(number, day).await;
            tokio::time::sleep(day.mul_f64(fastrand::f64() / 3.0)).await;
        }
        self.served(number, day).await;
    }

    /// Calls until served.
    async fn served(&self, number: usize, day: Duration) {
        // A newcomer's login may wait for the next half day, and the one after.
        let deadline = Instant::now() + day * 2;
        loop {
            assert!(Instant::now() < deadline, "user {number} is not served");
            self.calls.fetch_add(1, Ordering::Relaxed);
            match self.call(user(number).to_string()).await {
                Some(answer) if answer.status == StatusCode::OK => {
                    assert_eq!(answer.served_as(), user(number).to_string());
                    return;
                }
                // A replay that met a second expiry.
                Some(answer) if answer.status == StatusCode::UNAUTHORIZED => {}
                Some(answer) => {
                    let code = answer.code();
                    assert!(PASSING.contains(&code.as_str()), "{}", answer.text());
                }
                None => {}
            }
            self.put_off.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(day / 50).await;
        }
    }

    async fn make_up_users(&self, day: Duration) {
        while !self.over.load(Ordering::Acquire) {
            let _ = self.call(uuid::Uuid::new_v4().to_string()).await;
            self.made_up.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(day / 50).await;
        }
    }

    /// `None` if the proxy is not there.
    async fn call(&self, device_token: String) -> Option<Answer> {
        let request = Request::get(&self.url).header("DeviceToken", device_token);
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let answer = self.client.send(request).await.ok()?;
        answer.is_whole().then_some(answer)
    }
}

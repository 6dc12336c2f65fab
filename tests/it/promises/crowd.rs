//! Many at once: ten thousand callers of one user, and a thousand users in every kind of trouble.

use std::time::Duration;

use damoov_proxy::simulator::{Action, Delay, Fault, Handle, LoginLimit, Lost, On, RetryAfter};
use futures_util::future::join_all;
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::{
    Proxy, SCORES, allow_many_descriptors, damoov, damoov_with, heavy, most_within, principal,
    proxy, rounds, user,
};

const CALLERS: usize = 10_000;

#[tokio::test]
async fn i1_ten_thousand_callers_of_an_expired_user_cost_one_refresh_no_login() {
    let _turn = heavy().await;
    allow_many_descriptors();
    let damoov = damoov().await;
    let proxy = proxy(&damoov)
        .set("max_connections", "12000")
        .set("renewal.wait", "60s")
        .set("renewal.timeout", "60s")
        // All replays come at once: on a busy machine the last ones wait long for a connection.
        .set("upstream.connect_timeout", "60s")
        .start()
        .await;
    proxy.import(&damoov, [1]);
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    let handle = damoov.handle();
    handle.expire(None);
    // Long enough that all are there before it ends, as the gauge below proves.
    handle.add_fault(Fault::new(On::Refresh, Action::Delay(Delay::Millis(8000))));

    let mut callers = Vec::new();
    for _ in 0..CALLERS {
        callers.push(TcpStream::connect(proxy.address()).await.unwrap());
    }
    let request = format!(
        "GET {SCORES} HTTP/1.1\r\nHost: localhost\r\nDeviceToken: {}\r\nConnection: close\r\n\r\n",
        user(1)
    );
    let mut answers = JoinSet::new();
    for mut caller in callers {
        let request = request.clone();
        answers.spawn(async move {
            caller.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            caller.read_to_string(&mut answer).await.unwrap();
            answer
        });
    }
    let mut at_once = 0.0;
    while at_once < CALLERS as f64 && answers.len() == CALLERS {
        at_once = proxy.metric("requests_in_flight", "").await.max(at_once);
        if let Some(answer) = answers.try_join_next() {
            panic!("answered with {at_once} callers there: {answer:?}");
        }
    }
    let served = format!("x-sim-device-token: {}", user(1));
    let answers = answers.join_all().await;
    let good = |answer: &&String| answer.starts_with("HTTP/1.1 200 ") && answer.contains(&served);
    let bad = answers.iter().find(|answer| !good(answer));
    assert_eq!((answers.len(), bad), (CALLERS, None));
    let count = handle.counts_of(&principal(1));
    assert_eq!((count.refreshes.all(), count.logins.all()), (1, 0));
}

const PRINCIPALS: usize = 1000;
const REQUESTS: usize = 50;
const BUDGET: usize = 80;
const PER: Duration = Duration::from_secs(5);

/// What happened to one user's requests.
#[derive(Default)]
struct Tally {
    good: usize,
    unauthorized: usize,
    refused: usize,
    hung_up: usize,
}

#[tokio::test]
async fn i6_a_thousand_users_in_trouble_never_mix_and_keep_to_the_budget() {
    let _turn = heavy().await;
    allow_many_descriptors();
    let damoov = damoov_with(|settings| {
        settings.login_limit = Some(LoginLimit {
            calls: BUDGET + BUDGET / 4,
            per: PER,
            block: Duration::from_secs(3600),
            retry_after: RetryAfter::Told,
        });
    })
    .await;
    let proxy = proxy(&damoov)
        .set("login_budget.logins", &BUDGET.to_string())
        .set("login_budget.per", "5s")
        // A user revoked in every round of a long run would count as contested.
        .set("renewal.contested_backoff", "0s")
        .set("renewal.renewals_per_second", "10000")
        .start()
        .await;
    proxy.import(&damoov, 0..PRINCIPALS);
    let handle = damoov.handle();
    for _ in 0..rounds(1, 10) {
        let quiet = (0..PRINCIPALS).map(|number| call_as(&proxy, None, number));
        let troubled = (0..PRINCIPALS).map(|number| call_as(&proxy, Some(handle), number));
        let tallies = join_all(quiet.chain(troubled)).await;
        let sum = |of: fn(&Tally) -> usize| tallies.iter().map(of).sum::<usize>();
        let (good, refused) = (sum(|tally| tally.good), sum(|tally| tally.refused));
        let (unauthorized, hung_up) = (sum(|tally| tally.unauthorized), sum(|t| t.hung_up));
        eprintln!("{good} good, {unauthorized} 401, {refused} refused, {hung_up} hung up");
        assert_eq!(
            good + unauthorized + refused + hung_up,
            PRINCIPALS * REQUESTS
        );
        assert!(good + hung_up >= PRINCIPALS * REQUESTS * 98 / 100);
        // A 401 is passed on only after a replay met a second expiry (and for a minute after).
        let settled = proxy.metric("replays_total", "result=\"rejected\"").await;
        assert!(unauthorized as f64 <= settled * REQUESTS as f64);
    }
    let counts = handle.counts();
    eprintln!("{:?}", counts.total);
    assert_eq!(counts.total.wrong_tokens, 0);
    assert_eq!(counts.blocks_tripped, 0);
    assert!(counts.total.logins.ok > 0 && counts.total.refreshes.lost > 0);
    // A second of the window is left to the way from the slot to the wire.
    let most = most_within(&counts.login_calls, PER - Duration::from_secs(1));
    assert!(most <= BUDGET, "{most} logins within the window");
}

/// Half of a user's requests; with `trouble`, the user meets an expiry now and then, and at
/// random once a revocation (every tenth user) or a lost answer (every fifth).
async fn call_as(proxy: &Proxy, trouble: Option<&Handle>, number: usize) -> Tally {
    let whose = principal(number);
    let unlucky = fastrand::usize(0..REQUESTS / 2);
    let mut tally = Tally::default();
    for request in 0..REQUESTS / 2 {
        if let Some(handle) = trouble {
            if request == unlucky && number.is_multiple_of(10) {
                handle.revoke(Some(&whose));
            } else if request == unlucky && number % 5 == 1 {
                let lost = [Lost::Reset, Lost::Half][fastrand::usize(0..2)];
                handle.add_fault(
                    Fault::new(On::Refresh, Action::Lose(lost))
                        .of(whose.clone())
                        .times(1),
                );
                handle.expire(Some(&whose));
            } else if fastrand::u8(0..10) == 0 {
                handle.expire(Some(&whose));
            }
        }
        let patience = match fastrand::u8(0..20) {
            0 => Duration::from_millis(fastrand::u64(0..30)),
            _ => Duration::from_secs(60),
        };
        let Ok(answer) = tokio::time::timeout(patience, proxy.get(number, SCORES)).await else {
            assert!(patience < Duration::from_secs(1), "no answer");
            tally.hung_up += 1;
            continue;
        };
        match answer.status {
            StatusCode::OK => {
                assert_eq!(answer.served_as(), user(number).to_string());
                tally.good += 1;
            }
            StatusCode::UNAUTHORIZED if answer.code() != "token_invalid" => {
                tally.unauthorized += 1;
            }
            _ => {
                // The last one: two answers lost in a row, when one of an earlier round is left.
                let permitted = [
                    "login_budget_exhausted",
                    "login_suspended",
                    "auth_unreachable",
                ];
                let code = answer.code();
                assert!(
                    permitted.contains(&code.as_str()),
                    "{} {}",
                    answer.status,
                    answer.text()
                );
                tally.refused += 1;
            }
        }
    }
    tally
}

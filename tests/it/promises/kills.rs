//! SIGKILL at any instant: what was used is durable (I3), and nobody known logs in again (I10).

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use damoov_proxy::simulator::{Recorded, Simulator};
use futures_util::future::join_all;
use http::Request;
use http_body_util::Full;
use tokio::task::JoinSet;

use crate::harness::{Client, ECHO, Proxy, damoov_with, heavy, principal, proxy, rounds, user};

const USERS: usize = 40;
/// Callers of each user at the same time.
const CALLERS: usize = 2;
/// A kill comes within so much load.
const WITHIN: Duration = Duration::from_millis(150);

#[tokio::test]
async fn i3_i10_kill_9_under_load_costs_no_login_in_a_grace_period() {
    kill_again_and_again(Duration::from_secs(3600), rounds(100, 300)).await;
}

#[tokio::test]
async fn i3_i10_kill_9_under_load_costs_at_most_what_is_in_flight() {
    kill_again_and_again(Duration::ZERO, rounds(100, 300)).await;
}

/// In each round every user's token expires at most once, and one newcomer logs in.
async fn kill_again_and_again(grace: Duration, rounds: usize) {
    let _turn = heavy().await;
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.refresh.grace = grace;
    })
    .await;
    let handle = damoov.handle();
    let builder = proxy(&damoov)
        .set("login_budget.logins", "100000")
        .set("renewal.renewals_per_second", "10000");
    let store = builder.store();
    let mut proxy = builder.stopped(&store);
    proxy.import(&damoov, 0..USERS);
    proxy.start().await;
    let mut held = Tokens::of(call_each(&proxy, &damoov, 0..USERS).await);
    let (mut refreshes_in_flight, mut logins_in_flight) = (0, 0);
    for round in 0..rounds {
        let newcomer = USERS + round;
        let users = || (0..USERS).chain([newcomer]);
        handle.reset();
        load_until_killed(&mut proxy, newcomer, &damoov).await;
        proxy.start().await;
        let counts = |number| handle.counts_of(&principal(number));
        let at_kill: HashMap<_, _> = users().map(|number| (number, counts(number))).collect();
        let used = Tokens::of(handle.requests());

        let after_restart = call_each(&proxy, &damoov, users()).await;
        let stored = Tokens::first_of(&after_restart);
        for number in users() {
            let newer = used.of_user(number).find(|token| !held.has(number, token));
            if let Some(used) = newer {
                assert!(stored.has(number, used), "{number}: a used pair is lost");
            }
            let at_kill = at_kill[&number];
            let logins = (counts(number).logins.all() - at_kill.logins.all()) as usize;
            if number == newcomer {
                assert!(at_kill.logins.all() <= 1, "{at_kill:?}");
                let in_flight = at_kill.logins.ok == 1 && newer.is_none();
                logins_in_flight += usize::from(in_flight && logins == 1);
                assert!(logins == 0 || newer.is_none(), "a known user logs in");
                assert!(logins <= 1);
                continue;
            }
            assert_eq!(at_kill.logins.all(), 0, "{number}: before the kill");
            let in_flight = at_kill.refreshes.issued() == 1 && newer.is_none();
            refreshes_in_flight += usize::from(in_flight);
            let permitted = usize::from(in_flight && grace.is_zero());
            assert!(
                logins <= permitted,
                "{number}: {logins} logins, {at_kill:?}"
            );
        }
        held = Tokens::of(after_restart);
    }
    eprintln!(
        "{rounds} kills: 0 acknowledged pairs lost; {refreshes_in_flight} refreshes and \
         {logins_in_flight} logins were in flight"
    );
    assert!(refreshes_in_flight > 0, "no kill ever hit a refresh");
}

/// Calls of all users, until a kill at a random instant.
async fn load_until_killed(proxy: &mut Proxy, newcomer: usize, damoov: &Simulator) {
    let mut callers = JoinSet::new();
    let known = (0..USERS).flat_map(|number| (0..CALLERS).map(move |caller| (number, caller)));
    for (number, caller) in known.chain([(newcomer, 1)]) {
        let (client, url) = (proxy.client(), proxy.url(ECHO));
        let (handle, expires_at) = (damoov.handle().clone(), fastrand::usize(0..4));
        callers.spawn(async move {
            for call in 0.. {
                if caller == 0 && call == expires_at {
                    handle.expire(Some(&principal(number)));
                }
                // Cut off by the kill, as many are.
                if call_as(&client, &url, number).await.is_err() {
                    return;
                }
            }
        });
    }
    // Early more often than late: then most is in flight.
    let instant = WITHIN.mul_f64(fastrand::f64() * fastrand::f64());
    tokio::time::sleep(instant).await;
    proxy.kill();
    callers.shutdown().await;
}

async fn call_as(
    client: &Client,
    url: &str,
    number: usize,
) -> Result<(), hyper_util::client::legacy::Error> {
    let request = Request::get(url).header("DeviceToken", user(number).to_string());
    let answer = client.send(request.body(Full::<Bytes>::default()).unwrap());
    let answer = answer.await?;
    if answer.is_whole() {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.served_as(), user(number).to_string());
    }
    Ok(())
}

/// One call of each user, who must be served; what reached Damoov.
async fn call_each(
    proxy: &Proxy,
    damoov: &Simulator,
    users: impl Iterator<Item = usize>,
) -> Vec<Recorded> {
    let before = damoov.handle().requests().len();
    let (client, url) = (proxy.client(), proxy.url(ECHO));
    for ended in join_all(users.map(|number| call_as(&client, &url, number))).await {
        ended.expect("an answer");
    }
    damoov.handle().requests().split_off(before)
}

/// The tokens that reached Damoov, of each user, in order.
struct Tokens(HashMap<String, Vec<String>>);

impl Tokens {
    /// Those that were good.
    fn of(requests: Vec<Recorded>) -> Tokens {
        let good = requests.iter().filter(|request| request.status == 200);
        Tokens::collect(good)
    }

    /// The first of each user, good or expired: the stored one, right after a start.
    fn first_of(requests: &[Recorded]) -> Tokens {
        let mut tokens = Tokens::collect(requests.iter());
        tokens.0.values_mut().for_each(|tokens| tokens.truncate(1));
        tokens
    }

    fn collect<'a>(requests: impl Iterator<Item = &'a Recorded>) -> Tokens {
        let mut tokens = HashMap::<_, Vec<_>>::new();
        for request in requests {
            let whose = request.principal.clone().expect("a token of somebody");
            let token = request.headers["authorization"].to_str().unwrap();
            tokens.entry(whose).or_default().push(token.to_owned());
        }
        Tokens(tokens)
    }

    fn of_user(&self, number: usize) -> impl Iterator<Item = &String> {
        let tokens = self.0.get(&principal(number).to_string());
        tokens.into_iter().flatten()
    }

    fn has(&self, number: usize, token: &str) -> bool {
        self.of_user(number).any(|held| held == token)
    }
}

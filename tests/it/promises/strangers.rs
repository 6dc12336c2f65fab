//! DeviceTokens that nobody knows cannot starve those that are known.

use std::collections::HashSet;
use std::time::Duration;

use damoov_proxy::simulator::KnownUsers;
use futures_util::future::join_all;
use http::Request;
use tokio::time::Instant;

use crate::harness::{
    Answer, Proxy, SCORES, allow_many_descriptors, damoov_with, heavy, most_within, proxy, rounds,
    user,
};

const KNOWN: usize = 100;
const STRANGERS: usize = 32;
/// How much resident memory may grow: made-up users leave nothing behind.
const MOST: u64 = 32 << 20;

#[tokio::test]
async fn i7_random_device_tokens_at_full_speed_starve_no_known_user() {
    let _turn = heavy().await;
    allow_many_descriptors();
    let damoov = damoov_with(|settings| {
        settings.known_users = KnownUsers::Only((0..KNOWN).map(user).collect());
    })
    .await;
    let proxy = proxy(&damoov).start().await;
    proxy.import(&damoov, 0..KNOWN);
    join_all((0..KNOWN).map(|number| proxy.get(number, SCORES))).await;
    let before = proxy.resident();

    let end = Instant::now() + Duration::from_secs(rounds(10, 120) as u64);
    let strangers = join_all((0..STRANGERS).map(|_| strangers(&proxy, end)));
    let known = join_all((0..KNOWN).map(|number| known(&proxy, number, end)));
    let expiry = async {
        tokio::time::sleep_until(end - Duration::from_secs(5)).await;
        damoov.handle().expire(None);
    };
    let (strangers, known, ()) = tokio::join!(strangers, known, expiry);
    let grown = proxy.resident().saturating_sub(before);

    let codes: HashSet<_> = strangers.iter().flat_map(|(_, codes)| codes).collect();
    let refused = strangers.iter().map(|(calls, _)| calls).sum::<usize>();
    eprintln!(
        "{refused} calls of strangers, {} of known users, {grown} bytes grown",
        known.iter().sum::<usize>()
    );
    for code in codes {
        // The last one: a slot that came in the last moment of somebody's patience.
        let permitted = [
            "login_budget_exhausted",
            "login_rejected",
            "credentials_timeout",
        ];
        assert!(permitted.contains(&code.as_str()), "{code}");
    }
    assert!(refused > 1000, "only {refused} calls of strangers");
    let counts = damoov.handle().counts();
    assert_eq!(counts.blocks_tripped, 0);
    let most = most_within(&counts.login_calls, Duration::from_secs(59));
    assert!((1..=4).contains(&most), "{most} logins in a minute");
    assert_eq!(counts.total.logins.ok, 0, "a known user was logged in");
    assert!(grown < MOST, "grew by {grown} bytes");
}

/// Calls with DeviceTokens out of nowhere; how many, and the codes of the answers.
async fn strangers(proxy: &Proxy, end: Instant) -> (usize, HashSet<String>) {
    let (mut calls, mut codes) = (0, HashSet::new());
    while Instant::now() < end {
        let stranger = uuid::Uuid::new_v4().to_string();
        let answer = proxy
            .send(Request::get(SCORES).header("DeviceToken", stranger))
            .await;
        codes.insert(answer.code());
        calls += 1;
    }
    (calls, codes)
}

/// Calls as a known user, who is always served; how many.
async fn known(proxy: &Proxy, number: usize, end: Instant) -> usize {
    let mut calls = 0;
    while Instant::now() < end {
        let answer: Answer = proxy.get(number, SCORES).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.served_as(), user(number).to_string());
        calls += 1;
    }
    calls
}

//! Renewals that no request waits for: the fleet shares them, and their pace.

use std::collections::HashMap;
use std::time::Duration;

use damoov_proxy::clock::{Clock, Timestamp};
use damoov_proxy::principal::Principal;
use damoov_proxy::simulator::Called;
use futures_util::future::join_all;

use super::checker::Trial;
use super::scene::{Fleet, damoov_of_a_fleet};
use crate::harness::{eventually, heavy, rounds};

/// A minute, the keeper's round, in a second.
const SCALE: u32 = 60;
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn idle_pairs_are_refreshed_once_by_the_whole_fleet_in_six_store_calls() {
    let _turn = heavy().await;
    let (pairs, size) = (rounds(500, 5_000), rounds(3, 10));
    // In minutes, each of which takes a second: pairs are due within the 30 s that a test waits.
    let age = rounds(10, 20);
    let damoov = damoov_of_a_fleet(|settings| settings.clock = Clock::scaled(SCALE)).await;
    let mut fleet = Fleet::stopped_on(Default::default(), damoov, size, |_, sidecar| {
        sidecar
            .scaled(SCALE)
            .set("renewal.timeout", "5m")
            .set("renewal.renewals_per_second", "1000")
            .set("renewal.keep_refresh_tokens", &format!("{age}m"))
    });
    fleet.sidecars[0].import(&fleet.damoov, 0..pairs);
    fleet.start_all().await;
    let refreshes = || fleet.damoov.handle().counts().total.refreshes.all() as usize;
    eventually("all are due and are refreshed", async || {
        refreshes() >= pairs
    })
    .await;
    eventually("the last ones are committed", async || {
        let committed = "operation=\"commit\",result=\"ok\"";
        fleet.metric("store_operations_total", committed).await >= pairs as f64
    })
    .await;
    let calls = fleet.metric("store_operations_total", "").await;
    let scans = "operation=\"scan\"";
    let scans = fleet.metric("store_operations_total", scans).await;
    let a_pair = (calls - scans) / refreshes() as f64;
    assert!((3.0..=6.0).contains(&a_pair), "{a_pair} store calls a pair");
    assert_eq!(fleet.logins(), 0);
    let mut refreshed = HashMap::<_, Vec<_>>::new();
    for (principal, at) in refreshes_of(&fleet) {
        refreshed.entry(principal).or_default().push(at);
    }
    assert_eq!(refreshed.len(), pairs);
    // On a busy machine the first ones are due again before the last ones were refreshed.
    let age = Duration::from_secs(60 * age as u64);
    for times in refreshed.values() {
        assert!(times.windows(2).all(|two| two[1].since(two[0]) >= age));
    }
    fleet.judge(Trial::default());
}

/// Whose refreshes arrived when, by Damoov's clock.
fn refreshes_of(fleet: &Fleet) -> Vec<(Option<Principal>, Timestamp)> {
    let entries = fleet.damoov.handle().journal().entries.into_iter();
    let refreshes = entries.filter(|entry| entry.called == Called::Refresh);
    refreshes
        .map(|entry| (entry.principal, entry.arrived.at))
        .collect()
}

#[tokio::test]
async fn the_fleet_together_renews_no_faster_than_one_sidecar_may() {
    let _turn = heavy().await;
    let users = 300;
    // Sixty in a real second.
    let pace = 1;
    let damoov = damoov_of_a_fleet(|settings| {
        settings.clock = Clock::scaled(SCALE);
        settings.lifetimes.after_login = 1200 * SECOND;
    })
    .await;
    let mut fleet = Fleet::stopped_on(Default::default(), damoov, 3, |_, sidecar| {
        sidecar
            .scaled(SCALE)
            .set("renewal.timeout", "5m")
            .set("renewal.wait", "1h")
            .set("renewal.ahead", "0.1")
            .set("renewal.renewals_per_second", &pace.to_string())
    });
    fleet.sidecars[0].import(&fleet.damoov, 0..users);
    fleet.start_all().await;
    eventually("each knows of all three", async || {
        fleet.metric("store_processes", "").await == 9.0
    })
    .await;
    let refreshes = || fleet.damoov.handle().counts().total.refreshes.ok as usize;
    eventually("most are renewed ahead of time", async || {
        // Only tokens that are used are.
        let users = (0..users).map(|number| fleet.serve(number % 3, number));
        join_all(users).await;
        refreshes() >= 200
    })
    .await;
    let starts: Vec<_> = refreshes_of(&fleet).into_iter().map(|(_, at)| at).collect();
    let span = 120;
    let most = starts
        .iter()
        .enumerate()
        .map(|(first, start)| {
            let end = start.plus(span * SECOND);
            starts[first..].partition_point(|other| *other < end)
        })
        .max();
    let meant = (span * pace) as usize;
    assert!(
        most.unwrap() <= meant * 3 / 2,
        "{most:?} instead of {meant}"
    );
    assert_eq!(fleet.damoov.handle().counts().total.unauthorized, 0);
    fleet.judge(Trial::default());
}

//! The store is restored from yesterday's backup: every pair in it was redeemed since.

use std::time::Duration;

use damoov_proxy::clock::Clock;
use futures_util::future::join_all;

use super::checker::{Excuse, Trial};
use super::scene::{Fleet, damoov_of_a_fleet};
use crate::harness::{Proxy, heavy, principal, rounds};

const SIDECARS: usize = 3;
/// A minute of the budget in a second.
const SCALE: u32 = 60;
const MINUTE: Duration = Duration::from_secs(60);
const LOGINS: usize = 4;

#[tokio::test]
async fn after_a_restored_backup_pairs_are_found_dead_within_the_budget() {
    let _turn = heavy().await;
    let users = rounds(16, 40);
    let damoov = damoov_of_a_fleet(|settings| settings.clock = Clock::scaled(SCALE)).await;
    let mut fleet = Fleet::start(damoov, SIDECARS, |_, sidecar| {
        sidecar
            .scaled(SCALE)
            .set("renewal.timeout", "5m")
            .set("renewal.wait", "1h")
    })
    .await;
    fleet.sidecars[0].import(&fleet.damoov, 0..users);
    stop_all(&mut fleet).await;
    let (name, backup) = (fleet.database.name().to_owned(), "yesterday");
    let server = fleet.database.server().clone();
    let backup = format!("{name}_{backup}");
    let copy = |to: &str, of: &str| format!("CREATE DATABASE {to} TEMPLATE {of}");
    server.sql("postgres", &copy(&backup, &name)).await;
    fleet.start_all().await;
    fleet.damoov.handle().expire(None);
    fleet.serve_all(0..users).await;
    assert_eq!(fleet.logins(), 0);
    stop_all(&mut fleet).await;
    server
        .sql("postgres", &format!("DROP DATABASE {name}"))
        .await;
    server.sql("postgres", &copy(&name, &backup)).await;
    server
        .sql("postgres", &format!("DROP DATABASE {backup}"))
        .await;

    fleet.damoov.handle().expire(None);
    let from = fleet.damoov.handle().tick();
    fleet.start_all().await;
    let served = |number: usize| {
        let fleet = &fleet;
        async move { while fleet.ask(number % SIDECARS, number).await.status != 200 {} }
    };
    let everybody = join_all((0..users).map(served));
    let ended = tokio::time::timeout(Duration::from_secs(60), everybody).await;
    assert!(ended.is_ok(), "never: everybody is served");
    let to = fleet.damoov.handle().tick();
    for number in 0..users {
        let count = fleet.damoov.handle().counts_of(&principal(number));
        assert_eq!(count.logins.all(), 1, "user {number}");
        let rejected = count.refreshes.rejected;
        assert!(rejected <= 20, "user {number}: {rejected} times");
    }
    assert!(fleet.metric("old_pairs_rejected_total", "").await >= 1.0);
    let told = |sidecar: &Proxy| sidecar.log().contains("as after a backup was restored");
    assert!(fleet.sidecars.iter().any(told), "an operator is told");
    fleet.judge(Trial {
        // A login takes its slot a moment before it arrives; a moment is long on this clock.
        budget: vec![(LOGINS, MINUTE * 3 / 4)],
        excuses: vec![Excuse::Suspended { from, to }, Excuse::SetBack { from, to }],
        ..Trial::default()
    });
}

async fn stop_all(fleet: &mut Fleet) {
    for sidecar in &mut fleet.sidecars {
        assert!(sidecar.terminate().await.success(), "{}", sidecar.log());
    }
}

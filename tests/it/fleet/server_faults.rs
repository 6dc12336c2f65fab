//! The server of the store dies, freezes, or is replaced by its standby, while everybody calls.

use std::net::SocketAddr;
use std::time::Duration;

use damoov_proxy::simulator::Tick;
use futures_util::future::join_all;
use servers::{Database, Replication, Server, Standby, url};
use tokio::time::{Instant, sleep};

use super::checker::{Excuse, Trial};
use super::healing::nothing_is_lost;
use super::load::Load;
use super::scene::{Fleet, damoov_of_a_fleet};
use crate::harness::{eventually, heavy, principal, rounds};

const SIDECARS: usize = 3;
/// Those that call all the time, and one for each sidecar that shows when it is back.
const CALLING: usize = 12;
const USERS: usize = CALLING + SIDECARS;
/// How long everybody calls before and after a fault.
const BEFORE: Duration = Duration::from_millis(700);
/// How long a server is away: longer than a call to it may take.
const AWAY: Duration = Duration::from_millis(2_500);
/// How long a fleet takes to come back after its server did.
const BACK: Duration = Duration::from_secs(3);

/// A fleet on a server of its own, whose users have pairs and never logged in.
async fn fleet_on(database: Database, hosts: &[SocketAddr]) -> Fleet {
    let damoov = damoov_of_a_fleet(|_| ()).await;
    let hosts = url("postgres", hosts, database.name());
    let mut fleet = Fleet::stopped_on(database, damoov, SIDECARS, |_, sidecar| {
        sidecar.set("store.url", &hosts)
    });
    fleet.start_all().await;
    fleet.sidecars[0].import(&fleet.damoov, 0..USERS);
    fleet.serve_all(0..USERS).await;
    fleet
}

/// Returns once an expired user was served on every sidecar; that takes no longer than [`BACK`].
async fn is_back(fleet: &Fleet) {
    let since = Instant::now();
    for sidecar in 0..SIDECARS {
        let number = CALLING + sidecar;
        fleet.damoov.handle().expire(Some(&principal(number)));
        eventually("renewals work again", async || {
            fleet.ask(sidecar, number).await.status == 200
        })
        .await;
    }
    assert!(since.elapsed() < BACK, "back after {:?}", since.elapsed());
}

/// Everything is there, nobody has logged in, and the journal is clean.
async fn is_whole(fleet: &Fleet, excuses: Vec<Excuse>) {
    let sidecars: Vec<_> = fleet.sidecars.iter().collect();
    let healed = nothing_is_lost(&fleet.damoov, &sidecars, 0..USERS).await;
    assert_eq!(fleet.logins(), 0);
    fleet.judge(Trial {
        excuses,
        healed: Some(healed),
        ..Trial::default()
    });
}

/// What the store may not know yet is doubted from here on.
fn doubted(from: Tick, fleet: &Fleet) -> Excuse {
    let now = fleet.damoov.handle().tick();
    let to = Tick {
        number: u64::MAX,
        ..now
    };
    Excuse::Doubted { from, to }
}

#[tokio::test]
async fn a_killed_server_costs_no_login_and_no_fresh_token() {
    let _turn = heavy().await;
    let server = Server::start().await;
    let fleet = fleet_on(Database::on(&server), &[server.address()]).await;
    let mut excuses = Vec::new();
    for _ in 0..rounds(2, 60) {
        let load = Load::on(&fleet, 0..CALLING);
        sleep(BEFORE).await;
        let killed = fleet.damoov.handle().tick();
        server.kill().await;
        sleep(AWAY).await;
        server.restart().await;
        is_back(&fleet).await;
        load.stop().await;
        excuses.push(doubted(killed, &fleet));
    }
    is_whole(&fleet, excuses).await;
}

#[tokio::test]
async fn a_paused_server_costs_no_login_and_no_fresh_token() {
    let _turn = heavy().await;
    let server = Server::start().await;
    let fleet = fleet_on(Database::on(&server), &[server.address()]).await;
    let mut excuses = Vec::new();
    for _ in 0..rounds(1, 20) {
        let load = Load::on(&fleet, 0..CALLING);
        sleep(BEFORE).await;
        let paused = fleet.damoov.handle().tick();
        server.pause();
        sleep(2 * AWAY).await;
        server.resume();
        is_back(&fleet).await;
        load.stop().await;
        excuses.push(doubted(paused, &fleet));
    }
    is_whole(&fleet, excuses).await;
}

#[tokio::test]
async fn a_promoted_synchronous_standby_has_everything() {
    for _ in 0..rounds(1, 20) {
        fails_over(Replication::Synchronous).await;
    }
}

#[tokio::test]
async fn what_a_promoted_asynchronous_standby_lacks_is_given_back_to_it() {
    for _ in 0..rounds(1, 10) {
        fails_over(Replication::Asynchronous).await;
    }
}

async fn fails_over(replication: Replication) {
    let _turn = heavy().await;
    let server = Server::start().await;
    let standby = server.standby(replication).await;
    let hosts = [server.address(), standby.server().address()];
    let fleet = fleet_on(Database::on(&server), &hosts).await;
    let load = Load::on(&fleet, 0..CALLING);
    sleep(BEFORE).await;
    let behind = fleet.damoov.handle().tick();
    if replication == Replication::Asynchronous {
        lags_behind(&standby, &fleet).await;
    }
    server.kill().await;
    sleep(BEFORE).await;
    standby.promote().await;
    is_back(&fleet).await;
    load.stop().await;
    if replication == Replication::Asynchronous {
        eventually("what was lost is restored, and counted", async || {
            let counts = fleet
                .sidecars
                .iter()
                .map(|sidecar| sidecar.metric("store_restored_total", ""));
            join_all(counts).await.into_iter().sum::<f64>() >= 1.0
        })
        .await;
    }
    is_whole(&fleet, vec![doubted(behind, &fleet)]).await;
}

/// Returns once users were refreshed whose pairs the standby does not have.
async fn lags_behind(standby: &Standby, fleet: &Fleet) {
    standby.hold_back();
    let refreshes = || fleet.damoov.handle().counts().total.refreshes.ok;
    let before = refreshes();
    eventually("pairs are refreshed", async || refreshes() >= before + 10).await;
}

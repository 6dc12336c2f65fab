//! Sidecars that are killed at every step of a renewal, or stand still for longer than their lease, with the
//! store in reach and without it.

use std::time::Duration;

use damoov_proxy::simulator::{Action, Delay, Fault, On};
use futures_util::future::join_all;
use rustix::process::Signal;
use servers::{At, Database, Forwarder, Part};

use super::checker::{Excuse, Trial};
use super::healing::nothing_is_lost;
use super::scene::{DOORS, Fleet, damoov_of_a_fleet};
use crate::harness::{SCORES, eventually, heavy, principal, rounds};

/// Where a sidecar is killed, and what that may cost. Each step has a sidecar and a user of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// The store gave the lease, and nobody heard of it.
    LeaseUnheard,
    /// Damoov has rotated the pair, its answer is under way.
    InFlight,
    /// The new pair has arrived, the store never gets it.
    NotCommitted,
    /// The store has the new pair, and nobody heard of that.
    CommitUnheard,
    /// The store is out of reach before anything is asked of it.
    AwayBeforeLease,
    /// As [`Step::InFlight`], with the store out of reach.
    AwayInFlight,
    /// The pair was acknowledged, and only the outbox has it. The store is back before the sidecar is.
    InTheOutbox,
    /// The same, and the sidecar is back before the store is.
    InTheOutboxFirst,
}

const STEPS: [Step; 8] = [
    Step::LeaseUnheard,
    Step::InFlight,
    Step::NotCommitted,
    Step::CommitUnheard,
    Step::AwayBeforeLease,
    Step::AwayInFlight,
    Step::InTheOutbox,
    Step::InTheOutboxFirst,
];
/// The sidecar that lives on.
const SURVIVOR: usize = STEPS.len();
/// What the transactions say that take a lease, and that commit a pair.
const LEASES: &str = "INSERT INTO leases";
const ENTRIES: &str = "committed AS (";
/// How long Damoov takes for an answer that a kill forestalls.
const SLOW: Duration = Duration::from_secs(3);
/// Longer than a pair that the store does not take is kept in memory alone.
const QUICK: Duration = Duration::from_millis(400);

impl Step {
    /// The logins that it may cost.
    fn logins(self) -> u64 {
        match self {
            Step::InFlight | Step::NotCommitted | Step::AwayInFlight => 1,
            Step::LeaseUnheard
            | Step::CommitUnheard
            | Step::AwayBeforeLease
            | Step::InTheOutbox
            | Step::InTheOutboxFirst => 0,
        }
    }
}

#[tokio::test]
async fn a_sidecar_killed_at_any_step_costs_a_login_in_flight_at_most() {
    let _turn = heavy().await;
    let database = Database::new();
    let networks: Vec<_> = (0..=SURVIVOR)
        .map(|_| Forwarder::to(database.server().address()))
        .collect();
    let urls: Vec<_> = networks
        .iter()
        .map(|network| database.url_at(&[network.address()]))
        .collect();
    let damoov = damoov_of_a_fleet(|_| ()).await;
    let mut fleet = Fleet::stopped_on(database, damoov, SURVIVOR + 1, |number, sidecar| {
        sidecar
            .set("store.url", &urls[number])
            .set("renewal.wait", "60s")
            .set("login_budget.logins", "100000")
    });
    fleet.start_all().await;
    fleet.sidecars[SURVIVOR].import(&fleet.damoov, 0..STEPS.len());
    let mut excuses = Vec::new();
    for _ in 0..rounds(1, 25) {
        fleet.serve_all(0..STEPS.len()).await;
        let logins = |number| {
            fleet
                .damoov
                .handle()
                .counts_of(&principal(number))
                .logins
                .all()
        };
        let before: Vec<_> = (0..STEPS.len()).map(logins).collect();
        let killed =
            join_all((0..STEPS.len()).map(|number| reach(&fleet, &networks[number], number)));
        killed.await;
        for (number, door) in DOORS.into_iter().enumerate().take(STEPS.len()) {
            fleet.sidecars[number].kill();
            let at = fleet.damoov.handle().tick();
            excuses.push(Excuse::Killed { door, at });
        }
        fleet.damoov.handle().clear_faults();
        come_back(&mut fleet, &networks).await;
        join_all((0..STEPS.len()).map(|number| fleet.serve(SURVIVOR, number))).await;
        for (number, step) in STEPS.into_iter().enumerate() {
            let logins = fleet
                .damoov
                .handle()
                .counts_of(&principal(number))
                .logins
                .all();
            assert!(logins - before[number] <= step.logins(), "{step:?}");
        }
        let sidecars: Vec<_> = fleet.sidecars.iter().collect();
        let healed = nothing_is_lost(&fleet.damoov, &sidecars, 0..STEPS.len()).await;
        fleet.judge(Trial {
            excuses: excuses.clone(),
            healed: Some(healed),
            ..Trial::default()
        });
    }
}

/// The user's token has expired, and its sidecar has come so far with the renewal.
async fn reach(fleet: &Fleet, network: &Forwarder, number: usize) {
    let handle = fleet.damoov.handle();
    let refreshes = || handle.counts_of(&principal(number)).refreshes.ok;
    let before = refreshes();
    let rotated = async || eventually("rotated", async || refreshes() > before).await;
    let slow = |by: Duration| {
        let delay = Action::Delay(Delay::Millis(by.as_millis() as u64));
        handle.add_fault(Fault::new(On::Refresh, delay).of(principal(number)));
    };
    let commit_of = |text: &str| At::CommitOf(text.to_owned());
    handle.expire(Some(&principal(number)));
    let call = || fleet.sidecars[number].calling(number, SCORES);
    match STEPS[number] {
        Step::LeaseUnheard => {
            let lost = network.lose(Part::Answer, commit_of(LEASES));
            let _caller = call();
            lost.happened().await;
        }
        Step::NotCommitted => {
            let lost = network.lose(Part::Request, commit_of(ENTRIES));
            let _caller = call();
            lost.happened().await;
        }
        Step::CommitUnheard => {
            let lost = network.lose(Part::Answer, commit_of(ENTRIES));
            let _caller = call();
            lost.happened().await;
        }
        Step::InFlight => {
            slow(SLOW);
            let _caller = call();
            rotated().await;
        }
        Step::AwayInFlight => {
            slow(SLOW);
            let _caller = call();
            rotated().await;
            network.pause();
        }
        Step::AwayBeforeLease => {
            network.pause();
            let _caller = call();
        }
        Step::InTheOutbox | Step::InTheOutboxFirst => {
            slow(QUICK);
            let caller = call();
            rotated().await;
            network.pause();
            assert_eq!(caller.await.unwrap().status, 200, "it was acknowledged");
        }
    }
}

/// The networks are whole again, and all killed sidecars are back.
async fn come_back(fleet: &mut Fleet, networks: &[Forwarder]) {
    for (network, step) in networks.iter().zip(STEPS) {
        if step != Step::InTheOutboxFirst {
            network.resume();
        }
    }
    join_all(
        fleet.sidecars[..SURVIVOR]
            .iter_mut()
            .map(|killed| killed.start()),
    )
    .await;
    networks.iter().for_each(Forwarder::resume);
    for number in [Step::InTheOutbox, Step::InTheOutboxFirst] {
        let number = STEPS.iter().position(|step| *step == number).unwrap();
        let sidecar = &fleet.sidecars[number];
        eventually("the outbox is empty", async || {
            sidecar.metric("store_outbox_pairs", "").await == 0.0
        })
        .await;
    }
}

/// The holder is stopped after Damoov rotated its pairs, and wakes when its leases are over.
#[tokio::test]
async fn a_sidecar_that_oversleeps_its_leases_costs_one_login_a_user_at_most() {
    const USERS: usize = 4;
    let _turn = heavy().await;
    let damoov = damoov_of_a_fleet(|_| ()).await;
    let fleet = Fleet::start(damoov, 2, |_, sidecar| {
        sidecar
            .set("renewal.wait", "60s")
            .set("login_budget.logins", "100000")
    })
    .await;
    fleet.sidecars[1].import(&fleet.damoov, 0..USERS);
    let handle = fleet.damoov.handle();
    let mut excuses = Vec::new();
    for _ in 0..rounds(1, 50) {
        // Both hold what the round before ended with.
        fleet.serve_all(0..USERS).await;
        let before = handle.counts().total;
        handle.expire(None);
        let delay = Action::Delay(Delay::Millis(600));
        handle.add_fault(Fault::new(On::Refresh, delay).times(USERS as u64));
        let sleepers: Vec<_> = (0..USERS)
            .map(|number| fleet.sidecars[0].calling(number, SCORES))
            .collect();
        eventually("all are rotated", async || {
            handle.counts().total.refreshes.ok == before.refreshes.ok + USERS as u64
        })
        .await;
        let from = handle.tick();
        fleet.sidecars[0].signal(Signal::STOP);
        // Waits until the leases are over, is refused with the old pairs, logs in.
        join_all((0..USERS).map(|number| fleet.serve(1, number))).await;
        fleet.sidecars[0].signal(Signal::CONT);
        let to = handle.tick();
        for sleeper in sleepers {
            assert_eq!(sleeper.await.unwrap().status, 200);
        }
        for _ in 0..3 {
            fleet.serve_all(0..USERS).await;
        }
        let logins = handle.counts().total.logins.all() - before.logins.all();
        assert!(logins <= USERS as u64, "{logins} logins");
        let sidecars: Vec<_> = fleet.sidecars.iter().collect();
        let healed = nothing_is_lost(&fleet.damoov, &sidecars, 0..USERS).await;
        excuses.push(Excuse::Stopped {
            door: DOORS[0],
            from,
            to,
        });
        fleet.judge(Trial {
            excuses: excuses.clone(),
            healed: Some(healed),
            ..Trial::default()
        });
    }
}

//! A sidecar that stands still for longer than its lease.

use damoov_proxy::simulator::{Action, Delay, Fault, On};
use futures_util::future::join_all;
use rustix::process::Signal;

use super::checker::{Excuse, Trial};
use super::healing::nothing_is_lost;
use super::scene::{DOORS, Fleet, damoov_of_a_fleet};
use crate::harness::{SCORES, eventually, heavy, rounds};

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
    fleet.serve_all(0..USERS).await;
    let handle = fleet.damoov.handle();
    for _ in 0..rounds(1, 50) {
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
        fleet.judge(Trial {
            excuses: vec![Excuse::Stopped {
                door: DOORS[0],
                from,
                to,
            }],
            healed: Some(healed),
            ..Trial::default()
        });
    }
}

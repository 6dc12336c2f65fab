//! RefreshTokens that are refused, whoever of the fleet presents them: a broken deploy, a phone app that
//! logs the same user in.

use damoov_proxy::simulator::{Action, Fault, On};
use futures_util::future::join_all;

use super::checker::{Excuse, Trial};
use super::healing::nothing_is_lost;
use super::scene::{Fleet, damoov_of_a_fleet};
use crate::harness::{eventually, heavy, principal, rounds};

const SIDECARS: usize = 3;
const USERS: usize = 30;

#[tokio::test]
async fn a_broken_deploy_costs_four_logins_at_most_for_all_sidecars_together() {
    let _turn = heavy().await;
    for _ in 0..rounds(1, 5) {
        let damoov = damoov_of_a_fleet(|_| ()).await;
        let fleet = Fleet::start(damoov, SIDECARS, |_, sidecar| {
            sidecar.set("login_budget.logins", "1000")
        })
        .await;
        fleet.sidecars[0].import(&fleet.damoov, 0..USERS);
        fleet.serve_all(0..USERS).await;
        let handle = fleet.damoov.handle();
        let from = handle.tick();
        handle.add_fault(Fault::new(On::Refresh, Action::status(400)));
        handle.expire(None);
        let calls = (0..USERS).map(|number| fleet.ask(number % SIDECARS, number));
        let mut suspended = 0;
        for answer in join_all(calls).await {
            if answer.status != 200 {
                assert_eq!(answer.code(), "login_suspended", "{}", answer.text());
                suspended += 1;
            }
        }
        assert!(suspended >= USERS - 4, "{suspended} suspended");
        assert!(fleet.logins() <= 4);
        for sidecar in &fleet.sidecars {
            eventually("every sidecar knows", async || {
                sidecar.metric("logins_suspended", "").await == 1.0
            })
            .await;
        }

        handle.clear_faults();
        eventually("a probe ended it for all", async || {
            fleet.metric("logins_suspended", "").await == 0.0
        })
        .await;
        fleet.serve_all(0..USERS).await;
        assert!(fleet.logins() <= 4, "every pair was kept");
        let to = handle.tick();
        let sidecars: Vec<_> = fleet.sidecars.iter().collect();
        let healed = nothing_is_lost(&fleet.damoov, &sidecars, 0..USERS).await;
        fleet.judge(Trial {
            excuses: vec![Excuse::Suspended { from, to }],
            healed: Some(healed),
            ..Trial::default()
        });
    }
}

#[tokio::test]
async fn a_phone_app_costs_one_login_wherever_its_user_is_asked_for() {
    let damoov = damoov_of_a_fleet(|_| ()).await;
    let fleet = Fleet::start(damoov, 2, |_, sidecar| {
        sidecar.set("login_budget.logins", "1000")
    })
    .await;
    for number in 0..rounds(1, 5) {
        fleet.serve_all([number]).await;
        // A refresh that works in between: the API is not broken, however many have phones.
        fleet.damoov.handle().expire(Some(&principal(number)));
        fleet.serve_all([number]).await;
        let before = fleet.logins();
        let phone_logs_in = || fleet.damoov.handle().issue(&principal(number));
        phone_logs_in();
        fleet.serve(0, number).await;
        fleet.serve(1, number).await;
        phone_logs_in();
        for sidecar in [1, 0, 1] {
            let answer = fleet.ask(sidecar, number).await;
            assert_eq!(answer.code(), "login_contested", "{}", answer.text());
        }
        assert_eq!(fleet.logins() - before, 1);
    }
    fleet.judge(Trial::default());
}

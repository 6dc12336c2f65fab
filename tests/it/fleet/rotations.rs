//! Everybody's token expires under load: one refresh a rotation among all sidecars, and no login.

use futures_util::future::join_all;

use super::checker::Trial;
use super::healing::nothing_is_lost;
use super::scene::{Fleet, damoov_of_a_fleet};
use crate::harness::{heavy, principal, rounds};

const SIDECARS: usize = 3;
const USERS: usize = 50;
/// Calls of each user on each sidecar at the same time.
const CALLS: usize = 2;

#[tokio::test]
async fn three_sidecars_refresh_each_user_once_a_rotation_and_log_nobody_in() {
    let _turn = heavy().await;
    let damoov = damoov_of_a_fleet(|_| ()).await;
    let fleet = Fleet::start(damoov, SIDECARS, |_, sidecar| sidecar).await;
    fleet.sidecars[0].import(&fleet.damoov, 0..USERS);
    for round in 1..=rounds(10, 500) as u64 {
        fleet.damoov.handle().expire(None);
        join_all((0..CALLS).map(|_| fleet.serve_all(0..USERS))).await;
        for number in 0..USERS {
            let count = fleet.damoov.handle().counts_of(&principal(number));
            let refreshes = (count.refreshes.ok, count.refreshes.all());
            assert_eq!(refreshes, (round, round), "user {number}");
        }
    }
    let sidecars: Vec<_> = fleet.sidecars.iter().collect();
    let healed = nothing_is_lost(&fleet.damoov, &sidecars, 0..USERS).await;
    assert_eq!(fleet.logins(), 0);
    fleet.judge(Trial {
        healed: Some(healed),
        ..Trial::default()
    });
}

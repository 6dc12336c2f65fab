//! A user is forgotten while a sidecar hears nothing of the store.

use std::time::Duration;

use servers::{Database, Forwarder};
use tokio::time::Instant;

use super::checker::{Excuse, Trial};
use super::scene::{Fleet, damoov_of_a_fleet};
use crate::auth_endpoints::{Tokens, log_in};
use crate::harness::{SCORES, captured, eventually, principal, rounds, user};

/// A second, and half of one for a busy machine.
const SOON: Duration = Duration::from_millis(1500);
/// How long a sidecar takes at most to reach a store that is there again.
const BACK: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_forget_holds_on_a_sidecar_within_a_second_of_hearing_again() {
    let database = Database::new();
    let forwarder = Forwarder::to(database.server().address());
    let damoov = damoov_of_a_fleet(|_| ()).await;
    let cut_off = database.url_at(&[forwarder.address()]);
    let mut fleet = Fleet::stopped_on(database, damoov, 2, |number, sidecar| {
        let sidecar = sidecar.set("login_budget.logins", "1000");
        match number {
            1 => sidecar.set("store.url", &cut_off),
            _ => sidecar,
        }
    });
    fleet.start_all().await;
    let mut excuses = Vec::new();
    for number in 0..rounds(1, 5) {
        let [here, there] = [&fleet.sidecars[0], &fleet.sidecars[1]];
        let tokens = Tokens::of(&log_in(here, number).await);
        for sidecar in [here, there] {
            assert_eq!(sidecar.send(tokens.get(SCORES)).await.status, 200);
        }
        forwarder.cut();
        let forget = here.command(&format!("tokens forget {}", user(number)));
        assert!(captured(forget).await.status.success());
        excuses.push(Excuse::Forgotten {
            principal: principal(number),
            at: fleet.damoov.handle().tick(),
        });
        eventually("it holds where it was said", async || {
            here.send(tokens.get(SCORES)).await.status == 401
        })
        .await;
        let away = async || there.metric("store_away", "").await == 1.0;
        eventually("it hears nothing", &away).await;
        forwarder.resume();
        let resumed = Instant::now();
        eventually("it hears again", async || !away().await).await;
        let heard = Instant::now();
        eventually("it holds everywhere", async || {
            there.send(tokens.get(SCORES)).await.status == 401
        })
        .await;
        assert!(heard.elapsed() < SOON, "after {:?}", heard.elapsed());
        assert!(resumed.elapsed() < BACK + SOON, "{:?}", resumed.elapsed());
        // Nothing is left of the pair: the user is new.
        let before = fleet.logins();
        fleet.serve(1, number).await;
        fleet.serve(0, number).await;
        assert_eq!(fleet.logins(), before + 1);
    }
    fleet.judge(Trial {
        excuses,
        ..Trial::default()
    });
}

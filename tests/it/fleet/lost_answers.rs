//! The answer of the store is lost after it did what it was asked, or the question before: what was asked is
//! done once.

use std::time::Duration;

use damoov_proxy::simulator::{Action, Delay, Fault, On};
use servers::{At, Database, Forwarder, Part};

use super::checker::Trial;
use super::healing::nothing_is_lost;
use super::scene::{Fleet, damoov_of_a_fleet};
use crate::harness::{Builder, eventually, principal, rounds, user};

/// A transaction of each kind, by what it says.
const LEASE: &str = "INSERT INTO leases";
const EXTENSION: &str = "UPDATE leases SET until";
const COMMIT: &str = "committed AS (";
const NOTE: &str = "excluded.refresh_dead";
const SLOT: &str = "budgets";
const FORGET: &str = "gone AS (";

/// What is to be lost is said before the answer to a request, or soon after.
const LOST: Duration = Duration::from_secs(5);

const PARTS: [Part; 2] = [Part::Request, Part::Answer];

/// Two sidecars, each behind a network of its own.
struct Scene {
    fleet: Fleet,
    networks: [Forwarder; 2],
}

impl Scene {
    async fn new() -> Scene {
        Scene::with(|sidecar| sidecar.set("login_budget.logins", "100000")).await
    }

    async fn with(change: impl Fn(Builder) -> Builder) -> Scene {
        let database = Database::new();
        let networks = [(); 2].map(|()| Forwarder::to(database.server().address()));
        let urls = networks
            .each_ref()
            .map(|network| database.url_at(&[network.address()]));
        let damoov = damoov_of_a_fleet(|_| ()).await;
        let mut fleet = Fleet::stopped_on(database, damoov, 2, |number, sidecar| {
            change(sidecar.set("store.url", &urls[number]))
        });
        fleet.start_all().await;
        Scene { fleet, networks }
    }

    /// User 1 is served by the first sidecar although this is lost.
    async fn serve_losing(&self, part: Part, text: &str) {
        let lost = self.networks[0].lose(part, At::CommitOf(text.to_owned()));
        self.fleet.serve(0, 1).await;
        let happened = tokio::time::timeout(LOST, lost.happened()).await;
        happened.unwrap_or_else(|_| panic!("nothing said {text}"));
    }

    /// The logins and refreshes of user 1, and the generation and epoch that the store has: of the pair, or of
    /// the tombstone.
    async fn done(&self) -> (u64, u64, u64, u64) {
        let counts = self.fleet.damoov.handle().counts_of(&principal(1));
        let stored = async |column: &str| {
            let sql = format!("SELECT max({column}) FROM entries");
            self.fleet.database.value(&sql).await.parse().unwrap()
        };
        let (generation, epoch) = (stored("generation").await, stored("epoch").await);
        (
            counts.logins.all(),
            counts.refreshes.all(),
            generation,
            epoch,
        )
    }

    async fn is_whole(&self) {
        let sidecars: Vec<_> = self.fleet.sidecars.iter().collect();
        let healed = nothing_is_lost(&self.fleet.damoov, &sidecars, [1]).await;
        self.fleet.judge(Trial {
            healed: Some(healed),
            ..Trial::default()
        });
    }
}

#[tokio::test]
async fn a_renewal_with_a_lost_lease_or_commit_is_done_once() {
    let scene = Scene::new().await;
    scene.fleet.sidecars[0].import(&scene.fleet.damoov, [1]);
    scene.fleet.serve_all([1]).await;
    let (_, _, first, _) = scene.done().await;
    let mut refreshes = 0;
    for _ in 0..rounds(1, 20) {
        for (part, text) in PARTS
            .into_iter()
            .flat_map(|part| [(part, LEASE), (part, COMMIT)])
        {
            scene.fleet.damoov.handle().expire(None);
            scene.serve_losing(part, text).await;
            scene.fleet.serve(1, 1).await;
            refreshes += 1;
            let done = scene.done().await;
            assert_eq!(
                done,
                (0, refreshes, first + refreshes, 0),
                "{part:?} {text}"
            );
        }
    }
    scene.is_whole().await;
}

#[tokio::test]
async fn a_lease_whose_extension_is_lost_is_extended_all_the_same() {
    let scene = Scene::new().await;
    scene.fleet.sidecars[0].import(&scene.fleet.damoov, [1]);
    scene.fleet.serve_all([1]).await;
    let handle = scene.fleet.damoov.handle();
    for part in PARTS {
        handle.expire(None);
        // A heartbeat comes every five seconds.
        let slow = Action::Delay(Delay::Millis(6_000));
        handle.add_fault(Fault::new(On::Refresh, slow).times(1));
        scene.serve_losing(part, EXTENSION).await;
        scene.fleet.serve(1, 1).await;
    }
    let (logins, refreshes, ..) = scene.done().await;
    assert_eq!((logins, refreshes), (0, 2));
    scene.is_whole().await;
}

#[tokio::test]
async fn a_login_whose_slot_or_note_is_lost_takes_one_slot() {
    for _ in 0..rounds(1, 20) {
        for (part, text) in PARTS
            .into_iter()
            .flat_map(|part| [(part, SLOT), (part, NOTE)])
        {
            let scene = Scene::with(|sidecar| {
                sidecar
                    .set("login_budget.logins", "2")
                    .set("login_budget.reserve", "0")
                    .set("login_budget.per", "1h")
            })
            .await;
            scene.fleet.sidecars[0].import(&scene.fleet.damoov, [1]);
            scene.fleet.serve_all([1]).await;
            scene.fleet.damoov.handle().revoke(Some(&principal(1)));
            scene.serve_losing(part, text).await;
            let (logins, refreshes, ..) = scene.done().await;
            assert_eq!((logins, refreshes), (1, 1), "{part:?} {text}");
            // One more login is left, and no more than that.
            scene.fleet.serve(1, 2).await;
            let refused = scene.fleet.ask(1, 3).await;
            assert_eq!(refused.code(), "login_budget_exhausted", "{part:?} {text}");
            scene.is_whole().await;
        }
    }
}

#[tokio::test]
async fn who_is_forgotten_with_a_lost_answer_is_forgotten_once() {
    let scene = Scene::new().await;
    for (epoch, part) in PARTS.into_iter().cycle().take(rounds(2, 20)).enumerate() {
        let logs_in = epoch as u64 + 1;
        eventually("logged in anew", async || {
            scene.fleet.serve_all([1]).await;
            scene.fleet.logins() == logs_in
        })
        .await;
        let (.., before) = scene.done().await;
        assert_eq!(before, epoch as u64);
        let lost = scene.networks[0].lose(part, At::CommitOf(FORGET.to_owned()));
        let forget = format!("tokens forget {}", user(1));
        // An operator who is told that it may have been done says it again.
        let (code, said) = scene.fleet.sidecars[0].run(&forget).await;
        if code != Some(0) {
            assert_eq!(code, Some(1), "{said}");
            let (code, said) = scene.fleet.sidecars[0].run(&forget).await;
            let done_before = said.starts_with("nothing is known of") && part == Part::Answer;
            assert!(code == Some(0) || done_before, "{said}");
        }
        lost.happened().await;
        let (.., after) = scene.done().await;
        assert_eq!(after, before + 1, "{part:?}");
    }
}

#[tokio::test]
async fn a_slow_store_is_only_slow() {
    let scene = Scene::new().await;
    scene.fleet.sidecars[0].import(&scene.fleet.damoov, [1]);
    for network in &scene.networks {
        network.delay(Duration::from_millis(60));
    }
    scene.fleet.serve_all([1]).await;
    scene.fleet.damoov.handle().expire(None);
    scene.fleet.serve_all([1]).await;
    let (logins, refreshes, ..) = scene.done().await;
    assert_eq!((logins, refreshes), (0, 1));
    scene.is_whole().await;
}

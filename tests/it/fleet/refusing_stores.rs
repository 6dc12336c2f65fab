//! A store that is out of reach, full, read-only, has another password, or ends its sessions: nothing is
//! started that could not be kept, and no sidecar has to be restarted.

use std::ops::Range;
use std::path::PathBuf;

use futures_util::future::join_all;
use servers::{Database, Forwarder, Role, Server, url};
use tempfile::TempDir;

use super::checker::Trial;
use super::healing::nothing_is_lost;
use super::scene::{Fleet, damoov_of_a_fleet};
use crate::harness::{eventually, principal, write_private};
use crate::tokens::Disk;

const SIDECARS: usize = 2;
/// Users whose tokens: have expired; are fresh; are not there yet.
const EXPIRED: usize = 1;
const FRESH: usize = 2;
const NEW: usize = 3;
/// Users that fill a database.
const MORE: Range<usize> = 10..50;

/// A fleet that logs in at a server of its own with a password.
struct Scene {
    fleet: Fleet,
    server: Server,
    network: Forwarder,
    role: Role,
    folder: TempDir,
    /// Users that are there besides.
    more: Range<usize>,
}

impl Scene {
    async fn new() -> Scene {
        let server = Server::builder().passwords().start().await;
        let database = Database::on(&server);
        Scene::on(server, database).await
    }

    async fn on(server: Server, database: Database) -> Scene {
        let role = database.role("first").await;
        let network = Forwarder::to(server.address());
        let folder = tempfile::tempdir().unwrap();
        let password = Scene::password_in(&folder);
        write_private(&password, &role.password);
        let store = url(&role.name, &[network.address()], database.name());
        let damoov = damoov_of_a_fleet(|_| ()).await;
        let mut fleet = Fleet::stopped_on(database, damoov, SIDECARS, |_, sidecar| {
            sidecar
                .set("store.url", &store)
                .set("store.password.file", &password.display().to_string())
        });
        fleet.start_all().await;
        fleet.sidecars[0].import(&fleet.damoov, [EXPIRED, FRESH]);
        fleet.serve_all([EXPIRED, FRESH]).await;
        fleet.damoov.handle().expire(Some(&principal(EXPIRED)));
        Scene {
            fleet,
            server,
            network,
            role,
            folder,
            more: 0..0,
        }
    }

    fn password_in(folder: &TempDir) -> PathBuf {
        folder.path().join("password")
    }

    /// No call is started; who has a fresh token is served; probes say why, and are well.
    async fn nothing_is_started(&self) {
        for sidecar in 0..SIDECARS {
            for number in [EXPIRED, NEW] {
                let answer = self.fleet.ask(sidecar, number).await;
                let said = (answer.status.as_u16(), answer.code());
                assert_eq!(said, (503, "store_unavailable".to_owned()), "{number}");
            }
            self.fleet.serve(sidecar, FRESH).await;
            let proxy = &self.fleet.sidecars[sidecar];
            eventually("probes say so", async || {
                let ready = proxy.status("/readyz").await;
                assert_eq!(ready.status, 200, "{}", ready.text());
                ready.text().contains("store_away")
            })
            .await;
        }
        let total = self.fleet.damoov.handle().counts().total;
        assert_eq!((total.refreshes.all(), total.logins.all()), (0, 0));
    }

    /// Everybody is served by every sidecar, which nobody restarted, and nothing is lost.
    async fn heals(self) {
        for sidecar in 0..SIDECARS {
            for number in [EXPIRED, NEW] {
                eventually("served again", async || {
                    self.fleet.ask(sidecar, number).await.status == 200
                })
                .await;
            }
            let ready = self.fleet.sidecars[sidecar].status("/readyz").await;
            assert!(!ready.text().contains("store_away"), "{}", ready.text());
        }
        eventually("nothing waits in an outbox", async || {
            let sidecars = self.fleet.sidecars.iter();
            let waiting = sidecars.map(|sidecar| sidecar.metric("store_outbox_pairs", ""));
            join_all(waiting).await.into_iter().sum::<f64>() == 0.0
        })
        .await;
        assert_eq!(self.fleet.logins(), 1, "the new user's");
        let sidecars: Vec<_> = self.fleet.sidecars.iter().collect();
        let users = [EXPIRED, FRESH, NEW].into_iter().chain(self.more.clone());
        let healed = nothing_is_lost(&self.fleet.damoov, &sidecars, users).await;
        self.fleet.judge(Trial {
            healed: Some(healed),
            ..Trial::default()
        });
    }
}

#[tokio::test]
async fn without_its_database_a_fleet_starts_nothing_and_heals_by_itself() {
    let scene = Scene::new().await;
    scene.network.cut();
    scene.nothing_is_started().await;
    scene.network.resume();
    scene.heals().await;
}

#[tokio::test]
async fn on_a_silent_database_a_fleet_starts_nothing_and_heals_by_itself() {
    let scene = Scene::new().await;
    scene.network.pause();
    scene.nothing_is_started().await;
    scene.network.resume();
    scene.heals().await;
}

#[tokio::test]
async fn on_a_read_only_database_a_fleet_starts_nothing_and_heals_by_itself() {
    let scene = Scene::new().await;
    scene.server.set_read_only(true).await;
    scene.nothing_is_started().await;
    scene.server.set_read_only(false).await;
    scene.heals().await;
}

#[tokio::test]
async fn a_replaced_password_is_read_again_without_a_restart() {
    let mut scene = Scene::new().await;
    let database = &scene.fleet.database;
    database.change_password(&mut scene.role, "second").await;
    database.terminate_sessions().await;
    scene.nothing_is_started().await;
    write_private(&Scene::password_in(&scene.folder), "second");
    scene.heals().await;
}

#[tokio::test]
async fn sessions_that_are_terminated_are_replaced_at_once() {
    let scene = Scene::new().await;
    scene.fleet.database.terminate_sessions().await;
    for sidecar in 0..SIDECARS {
        scene.fleet.serve(sidecar, EXPIRED).await;
    }
    scene.heals().await;
}

/// What is not full yet takes some renewals, and those are kept.
#[tokio::test]
async fn on_a_full_database_a_fleet_loses_nothing_and_heals_by_itself() {
    let Some(disk) = Disk::new() else { return };
    let server = Server::builder().passwords().start().await;
    std::fs::create_dir(disk.store()).unwrap();
    let database = Database::in_folder(&server, &disk.store());
    let mut scene = Scene::on(server, database).await;
    scene.more = MORE;
    let fleet = &scene.fleet;
    fleet.sidecars[0].import(&fleet.damoov, MORE);
    fleet.serve_all(MORE).await;
    disk.fill(0);
    // While a snapshot sees them, the room of former versions is not used again: each renewal takes more.
    let snapshot = fleet.database.sql("SELECT pg_sleep(60)");
    let refused = eventually("a renewal is refused", async || {
        for number in MORE {
            fleet.damoov.handle().expire(Some(&principal(number)));
            let answer = fleet.ask(number % SIDECARS, number).await;
            if answer.code() == "store_unavailable" {
                return true;
            }
        }
        false
    });
    tokio::select! {
        slept = snapshot => panic!("it ended: {slept:?}"),
        () = refused => {}
    }
    for sidecar in 0..SIDECARS {
        fleet.serve(sidecar, FRESH).await;
        let ready = fleet.sidecars[sidecar].status("/readyz").await;
        assert_eq!(ready.status, 200, "{}", ready.text());
    }
    disk.empty();
    scene.heals().await;
}

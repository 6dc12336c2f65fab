//! Alerts that faults of the store make fire.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use damoov_proxy::simulator::{Action, Delay, Fault, On, Simulator};
use futures_util::future::{LocalBoxFuture, join_all};
use rusqlite::Connection;
use servers::{Database, Forwarder, Replication, Server};

use super::server::watch;
use crate::harness::{Builder, SCORES, damoov, eventually, principal, proxy};
use crate::tokens::Shim;

#[tokio::test]
async fn alerts_fire_by_faults_of_the_store_and_end_with_them() {
    // Most of them wait most of the time.
    let scenes: Vec<LocalBoxFuture<'_, ()>> = vec![
        Box::pin(leases_that_cannot_be_taken_fire_until_they_can()),
        Box::pin(a_damaged_record_fires_until_it_is_replaced()),
        Box::pin(a_store_that_is_older_than_memory_fires_and_ends()),
        Box::pin(a_store_that_is_away_fires_until_it_is_back_and_has_every_pair()),
        Box::pin(a_store_without_a_standby_fires_until_there_is_one()),
        Box::pin(a_clock_that_is_ahead_fires_until_it_is_set()),
    ];
    join_all(scenes).await;
}

/// A proxy on a store that others may share.
fn on(damoov: &Simulator, url: &str) -> Builder {
    proxy(damoov)
        .set("store.url", url)
        .set("store.key.env", "STORE_KEY")
        .env("STORE_KEY", &BASE64_STANDARD.encode([1; 32]))
}

async fn leases_that_cannot_be_taken_fire_until_they_can() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let watched = watch("no-leases", &proxy).await;
    let leases = Connection::open(proxy.store().join("leases.db")).unwrap();
    leases
        .execute_batch("ALTER TABLE leases RENAME TO away")
        .unwrap();
    assert_eq!(proxy.get(1, SCORES).await.code(), "store_unavailable");
    watched.fires("DamoovProxyStoreFailing").await;
    watched.fires("DamoovProxyNotReady").await;
    leases
        .execute_batch("ALTER TABLE away RENAME TO leases")
        .unwrap();
    watched.ends("DamoovProxyNotReady").await;
    watched.ends("DamoovProxyStoreFailing").await;
}

async fn a_damaged_record_fires_until_it_is_replaced() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    proxy.kill();
    proxy.damage_pair(1);
    proxy.start().await;
    let watched = watch("damaged", &proxy).await;
    assert_eq!(
        proxy.get(1, SCORES).await.status,
        200,
        "at the cost of a login"
    );
    watched.fires("DamoovProxyRecordsUnreadable").await;
    watched.ends("DamoovProxyRecordsUnreadable").await;
}

async fn a_store_that_is_older_than_memory_fires_and_ends() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let watched = watch("went-back", &proxy).await;
    proxy.get(1, SCORES).await;
    let tokens = Connection::open(proxy.store().join("tokens.db")).unwrap();
    let columns = "CREATE TEMP TABLE before AS SELECT * FROM entries";
    tokens.execute_batch(columns).unwrap();
    damoov.handle().expire(None);
    proxy.get(1, SCORES).await;
    let restored = "INSERT OR REPLACE INTO entries SELECT * FROM before";
    tokens.execute_batch(restored).unwrap();
    damoov.handle().expire(None);
    proxy.get(1, SCORES).await;
    watched.fires("DamoovProxyStoreWentBack").await;
    watched.ends("DamoovProxyStoreWentBack").await;
}

async fn a_store_that_is_away_fires_until_it_is_back_and_has_every_pair() {
    let database = Database::new();
    let network = Forwarder::to(database.server().address());
    let damoov = damoov().await;
    let proxy = on(&damoov, &database.url_at(&[network.address()]))
        .start()
        .await;
    let watched = watch("away", &proxy).await;
    proxy.get(1, SCORES).await;
    damoov.handle().expire(None);
    let slow = Action::Delay(Delay::Millis(500));
    damoov.handle().add_fault(Fault::new(On::Refresh, slow));
    let call = proxy.calling(1, SCORES);
    let rotated = || damoov.handle().counts_of(&principal(1)).refreshes.ok == 1;
    eventually("rotated", async || rotated()).await;
    network.pause();
    assert_eq!(call.await.unwrap().status, 200, "the pair is in the outbox");
    watched.fires("DamoovProxyOutboxWaits").await;
    watched.fires("DamoovProxyStoreAway").await;
    network.resume();
    watched.ends("DamoovProxyOutboxWaits").await;
    watched.ends("DamoovProxyStoreAway").await;
}

async fn a_store_without_a_standby_fires_until_there_is_one() {
    let server = Server::start().await;
    let database = Database::on(&server);
    let damoov = damoov().await;
    let proxy = on(&damoov, &database.url()).start().await;
    let watched = watch("no-standby", &proxy).await;
    watched.fires("DamoovProxyNoStandby").await;
    let _standby = server.standby(Replication::Synchronous).await;
    // The server is looked at once a minute, and whenever it was away.
    server.kill().await;
    eventually("it is away", async || {
        proxy.metric("store_away", "").await == 1.0
    })
    .await;
    server.restart().await;
    watched.ends("DamoovProxyNoStandby").await;
}

async fn a_clock_that_is_ahead_fires_until_it_is_set() {
    let database = Database::new();
    let damoov = damoov().await;
    let shim = Shim::new();
    shim.set("clock", 20);
    let proxy = shim.apply(on(&damoov, &database.url())).start().await;
    let watched = watch("ahead", &proxy).await;
    watched.fires("DamoovProxyClockOffset").await;
    shim.set("clock", 0);
    database.terminate_sessions().await;
    watched.ends("DamoovProxyClockOffset").await;
}

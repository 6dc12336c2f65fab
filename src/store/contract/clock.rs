//! The store's clock, by which everything is stamped that is persisted.

use std::time::Duration;

use super::{Medium, run};
use crate::clock::Timestamp;
use crate::store::StoreClock;

/// For how long the clock is watched.
const WATCHED: Duration = Duration::from_millis(100);

pub(crate) async fn the_clock_never_goes_back_and_is_every_handles<M: Medium>(medium: &M) {
    let stores = [
        medium.open_scaled(run(), 1).await,
        medium.open_scaled(run(), 1).await,
    ];
    let began = tokio::time::Instant::now();
    let mut seen = [Timestamp::from_millis(0); 2];
    let mut newest = Timestamp::from_millis(0);
    while began.elapsed() < WATCHED {
        for (store, seen) in stores.iter().zip(&mut seen) {
            let (stamp, now) = (store.stamp(), store.now());
            assert!(*seen <= stamp.wall && stamp.wall <= now, "it went back");
            *seen = now;
            let error = newest.since(now);
            assert!(error <= M::CLOCK_ERROR, "{error:?} behind the other");
            newest = newest.max(now);
        }
        tokio::task::yield_now().await;
    }
    // It is no clock that stands.
    let first = stores[0].now();
    tokio::time::sleep(WATCHED).await;
    let passed = stores[0].now().since(first) + M::CLOCK_ERROR;
    assert!(passed >= WATCHED, "{passed:?}");
}

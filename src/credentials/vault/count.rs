//! How many pairs are stored, for the metric.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::store::Store;

/// The stored pairs are counted at least this often while the metric is read.
const COUNT_EVERY: Duration = Duration::from_secs(60);
/// The pause after a count, in times that it took.
const PAUSE: u32 = 1_000;

/// Counts the stored pairs. However often it is asked, the store spends a thousandth of its time on
/// it at most: the count of a large store is up to a minute old.
#[derive(Debug, Default)]
pub(crate) struct StoredCount {
    /// When they may be counted again; `None` before the first count.
    again: Mutex<Option<Instant>>,
}

impl StoredCount {
    /// Brings the metric up to date, if the last count is old.
    pub(crate) async fn report(&self, store: &dyn Store, metrics: &Metrics) {
        let started = Instant::now();
        // Other readers get the old count meanwhile.
        let Some(before) = self.claim(started) else {
            return;
        };
        match store.count().await {
            Ok(stored) => {
                metrics
                    .tokens_stored
                    .set(stored.try_into().unwrap_or(i64::MAX));
                self.not_before(Some(started + COUNT_EVERY.min(started.elapsed() * PAUSE)));
            }
            Err(_) => self.not_before(before),
        }
    }

    /// What stood there, if it is time to count.
    fn claim(&self, now: Instant) -> Option<Option<Instant>> {
        let mut again = self.again.lock().expect("no code panics under this lock");
        match *again {
            Some(again) if now < again => None,
            before => {
                *again = Some(now + COUNT_EVERY);
                Some(before)
            }
        }
    }

    fn not_before(&self, again: Option<Instant>) {
        *self.again.lock().expect("no code panics under this lock") = again;
    }
}

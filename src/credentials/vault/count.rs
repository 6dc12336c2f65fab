//! How many pairs are stored, for the metric.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
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
    /// The count under way: one at most, and it goes on when nobody waits for it any more. Ended when this
    /// is dropped.
    counting: Mutex<JoinSet<()>>,
    /// When they may be counted again; `None` before the first count.
    again: Arc<Mutex<Option<Instant>>>,
}

impl StoredCount {
    /// Brings the metric up to date, if the last count is old. Whoever asks while another one waits for a
    /// count is content with the last one.
    pub(crate) async fn report(&self, store: &Arc<dyn Store>, metrics: &Arc<Metrics>) {
        let counted = self.begin(store.clone(), metrics.clone());
        if let Some(counted) = counted {
            // It fails only if the runtime ends, or the store panics.
            let _ = counted.await;
        }
    }

    /// Counts, if it is time.
    fn begin(&self, store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Option<oneshot::Receiver<()>> {
        let mut counting = self
            .counting
            .lock()
            .expect("no code panics under this lock");
        while counting.try_join_next().is_some() {}
        let started = Instant::now();
        let is_early = self.next().is_some_and(|again| started < again);
        if is_early || !counting.is_empty() {
            return None;
        }
        let (done, counted) = oneshot::channel();
        let again = self.again.clone();
        counting.spawn(async move {
            if let Ok(stored) = store.count().await {
                let stored = stored.try_into().unwrap_or(i64::MAX);
                metrics.tokens_stored.set(stored);
                let next = started + COUNT_EVERY.min(started.elapsed() * PAUSE);
                *again.lock().expect("no code panics under this lock") = Some(next);
            }
            // Perhaps nobody waits any more.
            let _ = done.send(());
        });
        Some(counted)
    }

    fn next(&self) -> Option<Instant> {
        *self.again.lock().expect("no code panics under this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::fixture::{Api, Medium, settings, until, user};

    #[tokio::test]
    async fn a_count_goes_on_when_nobody_waits_for_it_any_more() {
        let api = Api::start().await;
        let (process, store) = Medium::new().start_faulty(&api, settings());
        process.adopt(&user(1), 1).await;
        store.stops("count");
        let report = process.provider.report();
        let told = tokio::time::timeout(Duration::from_millis(20), report).await;
        assert!(told.is_err(), "it waits for the count");
        process.provider.report().await;
        assert_eq!(store.calls("count"), 1, "the next one does not");
        assert_eq!(process.metrics.tokens_stored.get(), 0);
        store.goes_on();
        until(|| process.metrics.tokens_stored.get() == 1).await;
    }

    #[tokio::test]
    async fn a_count_that_failed_is_made_again_by_the_next_report() {
        let api = Api::start().await;
        let (process, store) = Medium::new().start_faulty(&api, settings());
        process.adopt(&user(1), 1).await;
        store.misses("count", 1);
        process.provider.report().await;
        assert_eq!(process.metrics.tokens_stored.get(), 0);
        process.provider.report().await;
        assert_eq!(process.metrics.tokens_stored.get(), 1);
    }
}

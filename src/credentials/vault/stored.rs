//! What stands in the store: a pair is opened, or told to be damaged or sealed with a key that is not
//! here; all of them are counted.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::pair::Pair;
use super::seal;
use crate::credentials::Error;
use crate::credentials::engine::Engine;
use crate::metrics::{Metrics, StoreLabels, StoreOperation, StoreResult};
use crate::principal::Principal;
use crate::store::{self, Entry, Record, Store};

/// The stored pairs are counted at least this often while somebody asks.
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
        // Others who ask meanwhile get the old count.
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

impl Engine {
    /// Opens the pair in `entry`. A damaged one counts as none: that record only. Fails where its key
    /// is not configured: that pair is as good as any.
    pub(crate) fn open(&self, principal: &Principal, entry: &Entry) -> Result<Option<Pair>, Error> {
        let Some(record) = &entry.record else {
            return Ok(None);
        };
        self.check_key(record)?;
        if let Ok(pair) = Pair::of_record(&self.ring, principal, record) {
            return Ok(Some(pair));
        }
        self.count_load(StoreResult::Damaged);
        tracing::error!(
            principal = self.log_name(principal).as_str(),
            "a stored pair is damaged"
        );
        Ok(None)
    }

    /// Fails where the record's key is not configured. Nobody refreshes such a pair, logs in instead
    /// of it, or writes over it.
    pub(crate) fn check_key(&self, record: &Record) -> Result<(), Error> {
        let key = record.key;
        if self.ring.holds(key) || seal::key_of(&record.sealed) != Some(key) {
            return Ok(());
        }
        self.count_load(StoreResult::UnknownKey);
        let mut told = self
            .unknown_keys
            .lock()
            .expect("no code panics under this lock");
        if told.insert(key) {
            tracing::error!(
                %key,
                "pairs in the store are sealed with a key that this process lacks; their users are \
                 answered 503 and not logged in: put the key back into [store] old_keys and restart"
            );
        }
        Err(store::Error::UnknownKey(key).into())
    }

    fn count_load(&self, result: StoreResult) {
        let operation = StoreOperation::Load;
        self.metrics
            .store_operations
            .get_or_create(&StoreLabels { operation, result })
            .inc();
    }
}

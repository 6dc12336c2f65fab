//! What is kept of tokens: pairs under their seal in the store, credentials in memory. Knows nothing of
//! what a login costs, nor of how a pair is renewed.

pub(crate) mod cache;
pub mod canary;
pub(crate) mod census;
mod clock_cache;
pub(crate) mod commit;
pub(crate) mod count;
pub(crate) mod counted;
pub(crate) mod credentials;
pub(crate) mod hold;
pub mod key_file;
mod open;
pub(crate) mod pair;
pub(crate) mod refused;
pub(crate) mod repeated;
pub mod seal;
mod setback;
pub(crate) mod usage;
mod whose;

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use crate::clock::{Clock, Timestamp};
use crate::credentials::Error;
use crate::credentials::closing::ClosingWatch;
use crate::credentials::settings::Current;
use crate::metrics::{Metrics, StoreOperation};
use crate::principal::Principal;
use crate::store::{self, Day, Entry, KeyId, Note, RunId, Store};
use crate::telemetry::LogName;
use crate::telemetry::episode::Episode;
use cache::Cache;
use census::Counting;
use count::StoredCount;
use counted::{Ended, StoreCondition, counted};
use refused::Refused;
use repeated::repeated;
use seal::Ring;

/// Pairs in the store and credentials in memory. Every renewal of a process works with the same one.
pub(crate) struct Vault {
    /// Where pairs are durable. Other processes may work on the same store.
    pub(crate) store: Arc<dyn Store>,
    /// Seals pairs and opens them; makes the names that stand for principals in logs.
    pub(crate) ring: Ring,
    /// This process run: a record says which run committed it.
    pub(crate) run: RunId,
    /// What requests are served from. Filled by commits and by what is read from the store; emptied
    /// by 401s, by changes of other processes, and for want of room.
    pub(crate) cache: Cache,
    /// Tokens that callers showed a moment ago and that name nobody.
    pub(crate) refused: Refused,
    /// The pairs in the store, counted now and then for the metric.
    pub(crate) stored_count: StoredCount,
    /// The credentials in memory, counted by freshness now and then for whoever looks.
    pub(crate) census: Counting,
    /// Pairs that were received and could not be stored before the process ended. Read once, at the
    /// very end.
    pub(crate) pairs_lost: AtomicU64,
    /// Keys that records need and the ring lacks: each is logged once.
    unknown_keys: Mutex<HashSet<KeyId>>,
    /// Whether the store can be read, for the log.
    condition: StoreCondition,
    /// New pairs that exist in memory alone because the store does not take them, for the log.
    unsaved: Episode,
    /// Entries are older than what memory had of them, for the log.
    setback: Episode,
    current: Current,
    closing: ClosingWatch,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// What a [`Vault`] is made of.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) ring: Ring,
    pub(crate) run: RunId,
    pub(crate) current: Current,
    pub(crate) closing: ClosingWatch,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
}

impl Vault {
    pub(crate) fn new(parts: Parts) -> Vault {
        let Parts {
            store,
            ring,
            run,
            current,
            closing,
            clock,
            metrics,
        } = parts;
        let cache = Cache::new(current.now().settings.max_cached, clock);
        cache.named.begin(Day::of(store.now()));
        Vault {
            store,
            ring,
            run,
            cache,
            refused: Refused::new(),
            stored_count: StoredCount::default(),
            census: Counting::default(),
            pairs_lost: AtomicU64::new(0),
            unknown_keys: Mutex::default(),
            condition: StoreCondition::default(),
            unsaved: Episode::new(),
            setback: setback::episode(),
            current,
            closing,
            clock,
            metrics,
        }
    }

    /// The entry of `principal`, freshly read. Memory gives way to it if the store went back in time.
    pub(crate) async fn load(&self, principal: &Principal) -> Result<Entry, Error> {
        let known = self.cache.newest(principal);
        let entry = self.load_uncompared(principal).await?;
        self.went_back(principal, known, &entry);
        Ok(entry)
    }

    /// The same, for one that compares it with what it knew by itself.
    pub(crate) async fn load_uncompared(&self, principal: &Principal) -> Result<Entry, Error> {
        let loaded = repeated(|| self.store.load(principal)).await;
        Ok(self.counted(StoreOperation::Load, loaded)?)
    }

    /// Remembers a fact about `principal` durably.
    pub(crate) async fn note(&self, principal: &Principal, note: Note) -> Result<(), Error> {
        let noted = repeated(|| self.store.note(principal, note)).await;
        Ok(self.counted(StoreOperation::Note, noted)?)
    }

    /// Counts a call to the store by how it ended, and gives the result back.
    pub(crate) fn counted<T: Ended>(
        &self,
        operation: StoreOperation,
        ended: Result<T, store::Error>,
    ) -> Result<T, store::Error> {
        self.condition.note(operation, &ended);
        counted(&self.metrics, operation, ended)
    }

    /// A keyed hash of the principal, for logs.
    pub(crate) fn log_name(&self, principal: &Principal) -> LogName {
        self.ring.log_name(principal)
    }

    /// Now by the store's clock, for what is persisted.
    pub(crate) fn wall(&self) -> Timestamp {
        self.store.now()
    }
}

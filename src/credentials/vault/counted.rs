//! Counts calls to the store by how they ended, and logs when the store begins to fail and when that is
//! over.

use crate::metrics::{Metrics, StoreLabels, StoreOperation, StoreResult};
use crate::principal::Principal;
use crate::store::{Commit, Entry, Error, Lease, Slot};
use crate::telemetry::episode::Episode;

/// Counts `ended` and gives it back.
pub(crate) fn counted<T: Ended>(
    metrics: &Metrics,
    operation: StoreOperation,
    ended: Result<T, Error>,
) -> Result<T, Error> {
    let result = match &ended {
        Ok(value) => value.how(),
        Err(Error::Damaged(_)) => StoreResult::Damaged,
        Err(Error::UnknownKey(_)) => StoreResult::UnknownKey,
        Err(_) => StoreResult::Failed,
    };
    metrics
        .store_operations
        .get_or_create(&StoreLabels { operation, result })
        .inc();
    ended
}

/// Whether the store can be read. That it cannot be written is logged by the store itself.
#[derive(Debug, Default)]
pub(crate) struct StoreCondition {
    reading: Episode,
}

impl StoreCondition {
    /// A call ended like this.
    pub(crate) fn note<T>(&self, operation: StoreOperation, ended: &Result<T, Error>) {
        match ended {
            Err(Error::Unreadable(why)) => {
                if self.reading.failed() {
                    tracing::error!(
                        why,
                        "the store cannot be read: requests of users without a token in memory are refused"
                    );
                }
            }
            Ok(_) if matches!(operation, StoreOperation::Load | StoreOperation::Scan) => {
                if let Some(over) = self.reading.worked() {
                    let (seconds, hurt) = (over.seconds(), over.hurt);
                    tracing::warn!(seconds, hurt, "the store can be read again");
                }
            }
            Ok(_) | Err(_) => {}
        }
    }
}

/// How a successful call to the store ended.
pub(crate) trait Ended {
    /// Ok, or lost to another process.
    fn how(&self) -> StoreResult {
        StoreResult::Ok
    }
}

impl Ended for () {}
impl Ended for bool {}
impl Ended for Entry {}
impl Ended for Slot {}
impl Ended for Vec<Principal> {}

impl Ended for Commit {
    fn how(&self) -> StoreResult {
        match self {
            Commit::Committed(_) => StoreResult::Ok,
            Commit::Superseded(_) => StoreResult::Lost,
        }
    }
}

/// As the lease; the entry is counted by itself.
impl Ended for (Lease, Result<Entry, Error>) {
    fn how(&self) -> StoreResult {
        self.0.how()
    }
}

impl Ended for Lease {
    fn how(&self) -> StoreResult {
        match self {
            Lease::Granted { .. } => StoreResult::Ok,
            Lease::Held { .. } => StoreResult::Lost,
        }
    }
}

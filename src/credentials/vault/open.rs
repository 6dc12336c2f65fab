//! Stored pairs are opened, or found to be damaged, or sealed with a key that this process lacks.

use super::Vault;
use super::pair::Pair;
use super::seal;
use crate::credentials::Error;
use crate::metrics::{StoreLabels, StoreOperation, StoreResult};
use crate::principal::Principal;
use crate::store::{self, Entry, Record};

impl Vault {
    /// Opens the pair in `entry`. Returns `None` if there is none, or if that record is damaged. Fails if
    /// its key is not configured: then the pair is good, and must not be replaced.
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

    /// Fails if the record's key is not configured. Such a pair is not refreshed, not replaced by a login,
    /// and not written over.
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

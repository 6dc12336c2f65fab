//! Labels of calls to the store.

use super::{label, labels};

labels!(
    /// Labels of `store_operations_total`.
    StoreLabels {
        /// Which.
        operation: StoreOperation,
        /// How it ended.
        result: StoreResult,
    }
);

label!(
    /// The store's calls.
    StoreOperation {
        /// One entry read.
        Load = "load",
        /// A lease asked for.
        Lease = "lease",
        /// A pair written.
        Commit = "commit",
        /// A fact written.
        Note = "note",
        /// The login budget.
        Budget = "budget",
        /// The keeper's query.
        Scan = "scan",
    }
);

label!(
    /// How a call to the store ended.
    StoreResult {
        /// As asked.
        Ok = "ok",
        /// Held by, or superseded by, another process.
        Lost = "lost",
        /// One damaged record.
        Damaged = "damaged",
        /// One record whose key is not configured.
        UnknownKey = "unknown_key",
        /// The medium failed.
        Failed = "failed",
    }
);

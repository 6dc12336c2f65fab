//! Labels of the configuration.

use super::{label, labels};

labels!(
    /// Labels of `config_reloads_total`.
    ReloadLabels {
        /// What came of it.
        result: ReloadResult,
    }
);

label!(
    /// What came of reading the configuration again.
    ReloadResult {
        /// What it says now is in force, but for what needs a restart.
        Applied = "applied",
        /// It says what it said before.
        Unchanged = "unchanged",
        /// It is invalid or cannot be read: what was in force stays.
        Refused = "refused",
    }
);

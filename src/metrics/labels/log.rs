//! Labels of the log.

use super::{label, labels};

labels!(
    /// Labels of `log_lines_lost_total`.
    LogLabels {
        /// Which part of the log.
        target: LogTarget,
    }
);

label!(
    /// The parts of the log.
    LogTarget {
        /// One line for each request.
        Access = "access",
        /// What operators did.
        Audit = "audit",
        /// Everything else.
        Other = "other",
    }
);

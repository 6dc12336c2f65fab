//! Labels of what passes between a caller and a host: replays, answers that were broken off.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;

use super::{label, labels};

/// The public name of one of the API's hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HostLabel {
    /// From the table of routes, never from a caller.
    pub host: Arc<str>,
}

labels!(
    /// Labels of `replays_total`.
    ReplayLabels {
        /// How it ended.
        result: ReplayResult,
    }
);

label!(
    /// What became of a request that got a 401.
    ReplayResult {
        /// Sent again and answered with something else than a 401.
        Ok = "ok",
        /// Sent again, and a 401 again.
        Rejected = "rejected",
        /// Could not be sent again: content not kept.
        Impossible = "impossible",
        /// The second attempt failed.
        Failed = "failed",
    }
);

labels!(
    /// Labels of `answers_cut_total`.
    CutLabels {
        /// Who was still.
        stalled: Stalled,
        /// Why that was not waited for any longer.
        reason: CutReason,
    }
);

label!(
    /// Who is still while an answer is on its way.
    Stalled {
        /// The API sends nothing.
        Upstream = "upstream",
        /// The caller reads nothing.
        Caller = "caller",
    }
);

label!(
    /// Why an answer is broken off.
    CutReason {
        /// `stall_timeout` is over.
        Timeout = "timeout",
        /// Somebody else needed the connection.
        GaveWay = "gave_way",
    }
);

//! What both grants share: how long a call may take, and how it is counted.

use std::time::Duration;

use super::renewals::Renewal;
use crate::credentials::engine::Engine;
use crate::metrics::{Grant, GrantLabel, RenewalLabels, RenewalResult};

impl Engine {
    /// The deadline of one call to the Auth endpoints, in real time from its start.
    pub(crate) fn call_timeout(&self) -> Duration {
        self.clock.to_real(self.current.now().settings.timeout)
    }

    /// Counts a grant that ended.
    pub(crate) fn count(
        &self,
        renewal: &Renewal,
        grant: Grant,
        result: RenewalResult,
        took: Duration,
    ) {
        let trigger = renewal.ask.trigger;
        self.metrics
            .renewals
            .get_or_create(&RenewalLabels {
                grant,
                trigger,
                result,
            })
            .inc();
        let took = self.clock.to_real(took);
        self.metrics
            .renewal_duration
            .get_or_create(&GrantLabel { grant })
            .observe(took);
    }
}

//! What both grants share: how long a call may take, how it is counted, and what the audit log says of it.

use std::time::Duration;

use super::renewals::Renewal;
use crate::credentials::engine::Engine;
use crate::metrics::{Grant, GrantLabel, RenewalLabels, RenewalResult};

impl Engine {
    /// The deadline of one call to the Auth endpoints, in real time from its start.
    pub(crate) fn call_timeout(&self) -> Duration {
        self.clock.to_real(self.current.now().settings.timeout)
    }

    /// Counts a grant that ended; if it was sent, the audit log has a line for it.
    pub(crate) fn count(
        &self,
        renewal: &Renewal,
        grant: Grant,
        result: RenewalResult,
        took: Duration,
    ) {
        let trigger = renewal.ask.trigger;
        let took = self.clock.to_real(took);
        self.audit(renewal, grant, result, took);
        self.metrics
            .renewals
            .get_or_create(&RenewalLabels {
                grant,
                trigger,
                result,
            })
            .inc();
        self.metrics
            .renewal_duration
            .get_or_create(&GrantLabel { grant })
            .observe(took);
    }

    fn audit(&self, renewal: &Renewal, grant: Grant, result: RenewalResult, took: Duration) {
        let message = match (result, grant) {
            (RenewalResult::Refused, _) => return,
            (RenewalResult::Rejected, _) => "rejection",
            (_, Grant::Login) => "login",
            (_, Grant::Refresh) => "refresh",
        };
        tracing::info!(
            target: "audit",
            principal = %self.vault.log_name(&renewal.principal),
            grant = grant.as_str(),
            trigger = renewal.ask.trigger.as_str(),
            result = result.as_str(),
            duration_ms = took.as_secs_f64() * 1000.0,
            "{message}"
        );
    }
}

//! Sums over the series of families. A family cannot be walked, so that the series of requests, whose routes
//! are not known beforehand, are remembered when they are made.

use std::collections::HashMap;
use std::sync::Mutex;

use prometheus_client::metrics::counter::Counter;

use super::Metrics;
use super::labels::{Grant, RenewalLabels, RenewalResult, RequestLabels, StatusClass};
use super::registrar::Bounded;

/// What has happened since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests that were answered.
    pub requests: u64,
    /// Of them, those that were answered 5xx.
    pub failed: u64,
    /// Refreshes that brought a new pair.
    pub refreshes: u64,
    /// Logins that were sent, whatever came of them.
    pub logins: u64,
    /// Refreshes and logins that brought no new pair, those that were refused included.
    pub renewals_failed: u64,
}

/// The series of requests that were made so far.
#[derive(Debug, Default)]
pub(super) struct RequestSeries(Mutex<HashMap<RequestLabels, Counter>>);

impl RequestSeries {
    /// Remembers a series, once however often.
    pub(super) fn remember(&self, labels: &RequestLabels, counter: &Counter) {
        let mut series = self.0.lock().expect("no code panics under this lock");
        series
            .entry(labels.clone())
            .or_insert_with(|| counter.clone());
    }
}

impl Totals {
    /// What has happened since `before`.
    pub fn since(&self, before: &Totals) -> Totals {
        Totals {
            requests: self.requests.saturating_sub(before.requests),
            failed: self.failed.saturating_sub(before.failed),
            refreshes: self.refreshes.saturating_sub(before.refreshes),
            logins: self.logins.saturating_sub(before.logins),
            renewals_failed: self.renewals_failed.saturating_sub(before.renewals_failed),
        }
    }
}

impl Metrics {
    /// What has happened since the process began. Reads each series once, and takes no lock that a request
    /// waits for.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        let series = self.request_series.0.lock();
        for (labels, counter) in series.expect("no code panics under this lock").iter() {
            totals.requests += counter.get();
            if labels.status_class == StatusClass::ServerError {
                totals.failed += counter.get();
            }
        }
        for labels in RenewalLabels::all() {
            let count = self.renewals.get_or_create(&labels).get();
            match (labels.grant, labels.result) {
                (Grant::Refresh, RenewalResult::Ok) => totals.refreshes += count,
                (Grant::Login, RenewalResult::Ok) => totals.logins += count,
                (Grant::Login, RenewalResult::Rejected)
                | (Grant::Login, RenewalResult::Failed)
                | (Grant::Login, RenewalResult::Limited) => {
                    totals.logins += count;
                    totals.renewals_failed += count;
                }
                (Grant::Login, RenewalResult::Refused) | (Grant::Refresh, _) => {
                    totals.renewals_failed += count;
                }
            }
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::metrics::{Method, Outcome, Tally, Trigger};

    #[test]
    fn requests_and_renewals_are_summed_whatever_their_labels() {
        let metrics = Arc::new(Metrics::new());
        let workers = [Tally::new(metrics.clone()), Tally::new(metrics.clone())];
        for (worker, route) in workers.iter().zip(["/a", "/b"]) {
            for class in [StatusClass::Success, StatusClass::ServerError] {
                for route in [route, "/both"].map(Arc::from) {
                    let (method, outcome) = (Method::Get, Outcome::Forwarded);
                    worker.count(&route, method, class, outcome, Duration::ZERO);
                }
            }
        }
        for (grant, result) in [
            (Grant::Refresh, RenewalResult::Ok),
            (Grant::Refresh, RenewalResult::Rejected),
            (Grant::Login, RenewalResult::Limited),
            (Grant::Login, RenewalResult::Refused),
            (Grant::Login, RenewalResult::Ok),
        ] {
            let trigger = Trigger::Missing;
            let labels = RenewalLabels {
                grant,
                trigger,
                result,
            };
            metrics.renewals.get_or_create(&labels).inc();
        }
        let totals = metrics.totals();
        let expected = Totals {
            requests: 8,
            failed: 4,
            refreshes: 1,
            logins: 2,
            renewals_failed: 3,
        };
        assert_eq!(totals, expected);
        assert_eq!(totals.since(&totals), Totals::default());
    }
}

//! One worker's way to the counters of requests: each child of a family is looked up once, for a
//! family takes a lock and hashes every label at each look-up.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use super::{Histogram, Method, Metrics, Outcome, RequestLabels, RouteLabel, StatusClass};

/// Counts the requests of one worker, in the metrics that all share.
#[derive(Debug)]
pub struct Tally {
    metrics: Arc<Metrics>,
    /// As many as there are sets of labels; a handful in practice.
    found: RefCell<Vec<Found>>,
}

#[derive(Debug)]
struct Found {
    labels: RequestLabels,
    requests: Counter,
    duration: Histogram,
}

impl Tally {
    /// With nothing looked up.
    pub fn new(metrics: Arc<Metrics>) -> Tally {
        Tally {
            metrics,
            found: RefCell::default(),
        }
    }

    /// Counts a request that took this long.
    pub fn count(
        &self,
        route: &Arc<str>,
        method: Method,
        status_class: StatusClass,
        outcome: Outcome,
        duration: Duration,
    ) {
        let mut found = self.found.borrow_mut();
        let known = found.iter().position(|found| {
            let labels = &found.labels;
            labels.method == method
                && labels.status_class == status_class
                && labels.outcome == outcome
                && labels.route == *route
        });
        let place = known.unwrap_or_else(|| {
            let labels = RequestLabels {
                route: route.clone(),
                method,
                status_class,
                outcome,
            };
            found.push(self.find(labels));
            found.len() - 1
        });
        found[place].requests.inc();
        found[place].duration.observe(duration);
    }

    fn find(&self, labels: RequestLabels) -> Found {
        let route = labels.route.clone();
        let requests = self.metrics.requests.get_or_create(&labels).clone();
        self.metrics.request_series.remember(&labels, &requests);
        let duration = self
            .metrics
            .request_duration
            .get_or_create(&RouteLabel { route })
            .clone();
        Found {
            labels,
            requests,
            duration,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Format;

    #[test]
    fn two_workers_count_into_the_same_metrics() {
        let metrics = Arc::new(Metrics::new());
        let workers = [Tally::new(metrics.clone()), Tally::new(metrics.clone())];
        for worker in &workers {
            // A route is what its label says, wherever that lies.
            for route in ["/a", "/b"].map(Arc::from) {
                for (method, class) in [
                    (Method::Get, StatusClass::Success),
                    (Method::Put, StatusClass::Success),
                    (Method::Get, StatusClass::ClientError),
                ] {
                    for outcome in [Outcome::Forwarded, Outcome::Replayed] {
                        worker.count(&route, method, class, outcome, Duration::from_millis(1));
                        worker.count(&route, method, class, outcome, Duration::from_millis(1));
                    }
                }
            }
        }
        let text = metrics.encode(Format::Classic);
        let counted = text
            .lines()
            .filter(|line| line.starts_with("damoov_proxy_requests_total"));
        assert!(counted.clone().all(|line| line.ends_with(" 4")), "{text}");
        assert_eq!(counted.count(), 12);
        assert!(
            workers
                .iter()
                .all(|worker| worker.found.borrow().len() == 12)
        );
        assert!(text.contains("damoov_proxy_request_duration_seconds_count{route=\"/a\"} 24"));
    }
}

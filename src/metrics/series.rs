//! How many series `/metrics` can have at most. Each label is an enum, or as many as the configuration has
//! routes or hosts; the number of callers, users and requests does not matter.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::labels::{HostLabel, Method, Outcome, RequestLabels, RouteLabel, StatusClass};

/// Those of the process, as `process.rs` lists them, and the version.
pub(super) const UNLISTED: usize = 7 + 1;

/// What the configuration decides about the number of series.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The patterns of the route table, and `none`.
    pub routes: usize,
    /// The hosts that routes lead to.
    pub hosts: usize,
}

/// Metrics of which it is known how many series they have at most.
pub(super) trait Extent {
    fn most_series(bounds: Bounds) -> usize;
}

/// Labels of which it is known how many sets there are at most.
pub(super) trait LabelSets {
    fn most(bounds: Bounds) -> usize;
}

impl Extent for Counter {
    fn most_series(_: Bounds) -> usize {
        1
    }
}

impl<N, A> Extent for Gauge<N, A> {
    fn most_series(_: Bounds) -> usize {
        1
    }
}

impl<L: LabelSets, M: Extent> Extent for Family<L, M> {
    fn most_series(bounds: Bounds) -> usize {
        L::most(bounds) * M::most_series(bounds)
    }
}

impl LabelSets for RequestLabels {
    fn most(bounds: Bounds) -> usize {
        bounds.routes * Method::ALL.len() * StatusClass::ALL.len() * Outcome::ALL.len()
    }
}

impl LabelSets for RouteLabel {
    fn most(bounds: Bounds) -> usize {
        bounds.routes
    }
}

impl LabelSets for HostLabel {
    fn most(bounds: Bounds) -> usize {
        bounds.hosts
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::metrics::{Format, Metrics};

    #[test]
    fn metrics_of_which_every_set_of_labels_occurs_have_that_many_series() {
        let metrics = Metrics::new();
        let routes: Vec<Arc<str>> = ["/a", "/b", "none"].map(Arc::from).to_vec();
        for route in &routes {
            for &method in Method::ALL {
                for &status_class in StatusClass::ALL {
                    for &outcome in Outcome::ALL {
                        let route = route.clone();
                        let labels = RequestLabels {
                            route,
                            method,
                            status_class,
                            outcome,
                        };
                        metrics.requests.get_or_create(&labels).inc();
                    }
                }
            }
            let route = route.clone();
            let durations = metrics
                .request_duration
                .get_or_create(&RouteLabel { route });
            durations.observe(Duration::ZERO);
        }
        drop(metrics.upstream_duration_of("api.example"));
        let text = metrics.encode(Format::Classic);
        let series = text.lines().filter(|line| !line.starts_with('#'));
        let bounds = Bounds {
            routes: routes.len(),
            hosts: 1,
        };
        assert_eq!(series.count(), Metrics::most_series(bounds));
    }
}

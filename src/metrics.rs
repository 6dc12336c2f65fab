//! Every metric in one struct; labels are enums (or routes of the table), so that they stay
//! bounded. Made once in `main` and handed to the components; not global. Never sees a secret.

mod labels;
mod tally;

pub use labels::{
    Freshness, Grant, GrantLabel, LookupLabels, Method, Outcome, RenewalLabels, RenewalResult,
    ReplayLabels, ReplayResult, RequestLabels, RouteLabel, StatusClass, StoreLabels,
    StoreOperation, StoreResult, Trigger,
};

pub use tally::Tally;

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// All metrics. Cheap to share: every field is an `Arc` inside.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests answered.
    pub requests: Family<RequestLabels, Counter>,
    /// From a request's head to the end of its answer's head.
    pub request_duration: Family<RouteLabel, Histogram, fn() -> Histogram>,
    /// Requests whose answer has not ended.
    pub requests_in_flight: Gauge,
    /// How a request found its credentials in memory.
    pub token_lookups: Family<LookupLabels, Counter>,
    /// Renewals that ended.
    pub renewals: Family<RenewalLabels, Counter>,
    /// From the start of a renewal to its end, waiting included.
    pub renewal_duration: Family<GrantLabel, Histogram, fn() -> Histogram>,
    /// Requests that waited on a renewal somebody else had started.
    pub renewals_joined: Counter,
    /// Requests sent again after a 401.
    pub replays: Family<ReplayLabels, Counter>,
    /// Logins that the budget allows now.
    pub login_budget_remaining: Gauge,
    /// Seconds for which no login may happen.
    pub login_blocked_seconds: Gauge,
    /// Principals that somebody else logs in too.
    pub principals_contested: Gauge,
    /// 1 while a mass rejection of RefreshTokens suspends logins.
    pub logins_suspended: Gauge,
    /// Calls to the store.
    pub store_operations: Family<StoreLabels, Counter>,
    /// Credentials in memory.
    pub tokens_cached: Gauge,
    /// Principals with a pair in the store.
    pub tokens_stored: Gauge,
    /// Content kept for replays.
    pub replay_memory_bytes: Gauge<i64, AtomicI64>,
    /// Connections to the upstream hosts.
    pub upstream_connections: Gauge,
    /// Callers' connections that have switched to WebSocket.
    pub live_connections: Gauge,
    /// Access events dropped because the log takes none.
    pub access_events_lost: Counter,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// Registers everything under the prefix `damoov_proxy_`.
    pub fn new() -> Metrics {
        let mut all = Metrics {
            registry: Registry::with_prefix("damoov_proxy"),
            requests: Family::default(),
            request_duration: Family::new_with_constructor(seconds),
            requests_in_flight: Gauge::default(),
            token_lookups: Family::default(),
            renewals: Family::default(),
            renewal_duration: Family::new_with_constructor(seconds),
            renewals_joined: Counter::default(),
            replays: Family::default(),
            login_budget_remaining: Gauge::default(),
            login_blocked_seconds: Gauge::default(),
            principals_contested: Gauge::default(),
            logins_suspended: Gauge::default(),
            store_operations: Family::default(),
            tokens_cached: Gauge::default(),
            tokens_stored: Gauge::default(),
            replay_memory_bytes: Gauge::default(),
            upstream_connections: Gauge::default(),
            live_connections: Gauge::default(),
            access_events_lost: Counter::default(),
        };
        all.register();
        all
    }

    /// All metrics in Prometheus' text format.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("writing into a String cannot fail");
        out
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("requests", "Requests answered", self.requests.clone());
        r.register_with_unit(
            "request_duration",
            "From a request's head to its answer's head",
            Unit::Seconds,
            self.request_duration.clone(),
        );
        r.register(
            "requests_in_flight",
            "Requests being served",
            self.requests_in_flight.clone(),
        );
        r.register(
            "token_lookups",
            "How requests found credentials",
            self.token_lookups.clone(),
        );
        r.register(
            "renewals",
            "Renewals that ended, by grant",
            self.renewals.clone(),
        );
        r.register_with_unit(
            "renewal_duration",
            "Duration of one grant",
            Unit::Seconds,
            self.renewal_duration.clone(),
        );
        r.register(
            "renewals_joined",
            "Waits on a running renewal",
            self.renewals_joined.clone(),
        );
        r.register("replays", "Requests that got a 401", self.replays.clone());
        r.register(
            "login_budget_remaining",
            "Logins free now",
            self.login_budget_remaining.clone(),
        );
        r.register(
            "login_blocked_seconds",
            "No login for so long",
            self.login_blocked_seconds.clone(),
        );
        r.register(
            "principals_contested",
            "Logged in by others too",
            self.principals_contested.clone(),
        );
        r.register(
            "logins_suspended",
            "1 during a mass rejection",
            self.logins_suspended.clone(),
        );
        r.register(
            "store_operations",
            "Calls to the store",
            self.store_operations.clone(),
        );
        r.register(
            "tokens_cached",
            "Credentials in memory",
            self.tokens_cached.clone(),
        );
        r.register(
            "tokens_stored",
            "Pairs in the store",
            self.tokens_stored.clone(),
        );
        r.register(
            "replay_memory_bytes",
            "Content kept for replays",
            self.replay_memory_bytes.clone(),
        );
        r.register(
            "upstream_connections",
            "Connections upstream",
            self.upstream_connections.clone(),
        );
        r.register(
            "access_events_lost",
            "Access events dropped because the log takes none",
            self.access_events_lost.clone(),
        );
        r.register(
            "live_connections",
            "Callers on WebSocket",
            self.live_connections.clone(),
        );
        r.register(
            "build",
            "The version that runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
    }
}

fn seconds() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_those_of_the_documentation() {
        let metrics = Metrics::new();
        metrics
            .renewals
            .get_or_create(&RenewalLabels {
                grant: Grant::Login,
                trigger: Trigger::Missing,
                result: RenewalResult::Ok,
            })
            .inc();
        metrics
            .request_duration
            .get_or_create(&RouteLabel {
                route: "/trips".into(),
            })
            .observe(0.1);
        let text = metrics.encode();
        for line in [
            "damoov_proxy_renewals_total{grant=\"login\",trigger=\"missing\",result=\"ok\"} 1",
            "damoov_proxy_request_duration_seconds_count{route=\"/trips\"} 1",
            "damoov_proxy_login_budget_remaining 0",
            "damoov_proxy_build_info{version=",
            "damoov_proxy_renewals_joined_total 0",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}

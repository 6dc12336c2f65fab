//! Every metric in one struct. Labels are enums, or routes of the table, so that they stay bounded.
//! It is made once, by `cli::service`, and handed to the components; it is not global. Never sees a
//! secret.

mod exposition;
mod histogram;
mod labels;
mod process;
mod registrar;
mod tally;

pub use exposition::Format;
pub use histogram::Histogram;
pub use labels::{
    AuthEndpoint, CutLabels, CutReason, Doubt, Freshness, Grant, GrantLabel, HostLabel, LogLabels,
    LogTarget, LookupLabels, Method, Outcome, RenewalLabels, RenewalResult, ReplayLabels,
    ReplayResult, RequestLabels, RouteLabel, Stalled, StatusClass, StoreLabels, StoreOperation,
    StoreResult, Trigger, UnreadableLabels,
};
pub use registrar::Registered;
pub use tally::Tally;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use registrar::{Registrar, complete};

/// All metrics. Cheap to share: every field is an `Arc` inside.
#[derive(Debug)]
pub struct Metrics {
    /// Requests answered.
    pub requests: Registered<Family<RequestLabels, Counter>>,
    /// From a request's head to the end of its answer's head.
    pub request_duration: Registered<Family<RouteLabel, Histogram>>,
    /// Requests whose answer has not ended.
    pub requests_in_flight: Registered<Gauge>,
    /// From the moment a request is sent to a host to its answer's head, each attempt.
    pub upstream_duration: Registered<Family<HostLabel, Histogram>>,
    /// How a request found its credentials in memory.
    pub token_lookups: Registered<Family<LookupLabels, Counter>>,
    /// Renewals that ended.
    pub renewals: Registered<Family<RenewalLabels, Counter>>,
    /// From the start of a renewal to its end, waiting included.
    pub renewal_duration: Registered<Family<GrantLabel, Histogram>>,
    /// Requests that waited on a renewal somebody else had started.
    pub renewals_joined: Registered<Counter>,
    /// Answers to logins, refreshes and registrations that could not be read.
    pub auth_answers_unreadable: Registered<Family<UnreadableLabels, Counter>>,
    /// Requests sent again after a 401.
    pub replays: Registered<Family<ReplayLabels, Counter>>,
    /// Logins that the budget allows now.
    pub login_budget_remaining: Registered<Gauge>,
    /// Logins that the budget allows in its tightest window when none has been made.
    pub login_budget_limit: Registered<Gauge>,
    /// Seconds until a principal seen before can log in.
    pub login_budget_next: Registered<Gauge<f64, AtomicU64>>,
    /// Seconds for which no login may happen.
    pub login_blocked_seconds: Registered<Gauge<f64, AtomicU64>>,
    /// Logins that wait for a slot of the budget.
    pub logins_waiting: Registered<Gauge>,
    /// Principals that somebody else logs in too.
    pub principals_contested: Registered<Gauge>,
    /// 1 while a mass rejection of RefreshTokens suspends logins.
    pub logins_suspended: Registered<Gauge>,
    /// Pairs that Damoov rejects while it accepts newer ones.
    pub old_pairs_rejected: Registered<Counter>,
    /// Calls to the store.
    pub store_operations: Registered<Family<StoreLabels, Counter>>,
    /// Credentials in memory.
    pub tokens_cached: Registered<Gauge>,
    /// Principals with a pair in the store.
    pub tokens_stored: Registered<Gauge>,
    /// Content kept for replays.
    pub replay_memory_bytes: Registered<Gauge<i64, AtomicI64>>,
    /// Connections to the upstream hosts.
    pub upstream_connections: Registered<Gauge>,
    /// Answers that were broken off because one side was still.
    pub answers_cut: Registered<Family<CutLabels, Counter>>,
    /// Callers' connections that have switched to WebSocket.
    pub live_connections: Registered<Gauge>,
    /// Access events dropped because the log takes none.
    pub access_events_lost: Registered<Counter>,
    /// Lines of the log that could not be written, those of requests included.
    pub log_lines_lost: Registered<Family<LogLabels, Counter>>,
    /// 1 while `/readyz` answers 200.
    pub ready: Registered<Gauge>,
    registry: Registry,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// Makes and registers everything. The names get the prefix `damoov_proxy_`; those of counters
    /// end in `_total`.
    pub fn new() -> Metrics {
        let mut r = Registrar::new();
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        r.add_constant("build", "The version of this program", version);
        Metrics {
            requests: r.add("requests", "Requests answered", Family::default()),
            request_duration: r.add_seconds(
                "request_duration",
                "Time from a request's head to its answer's head",
                Family::default(),
            ),
            requests_in_flight: r.add(
                "requests_in_flight",
                "Requests that are being served",
                Gauge::default(),
            ),
            upstream_duration: r.add_seconds(
                "upstream_duration",
                "Time from sending a request to a host of the API to its answer's head, each attempt",
                Family::default(),
            ),
            token_lookups: r.add(
                "token_lookups",
                "Requests, by the state of the token that memory held",
                complete(Family::default()),
            ),
            renewals: r.add(
                "renewals",
                "Refreshes and logins that have ended, by trigger and result",
                complete(Family::default()),
            ),
            renewal_duration: r.add_seconds(
                "renewal_duration",
                "Time that a refresh or a login took, waiting included",
                complete(Family::default()),
            ),
            renewals_joined: r.add(
                "renewals_joined",
                "Requests that waited for a renewal which another request had started",
                Counter::default(),
            ),
            auth_answers_unreadable: r.add(
                "auth_answers_unreadable",
                "Answers to logins, refreshes and registrations that could not be read, by reason",
                complete(Family::default()),
            ),
            replays: r.add(
                "replays",
                "Requests that the API answered with 401, by the result of the replay",
                complete(Family::default()),
            ),
            login_budget_remaining: r.add(
                "login_budget_remaining",
                "Logins that the budget allows now",
                Gauge::default(),
            ),
            login_budget_limit: r.add(
                "login_budget_limit",
                "Logins that the tightest window of the budget allows when none has been made",
                Gauge::default(),
            ),
            login_budget_next: r.add_seconds(
                "login_budget_next",
                "Time until a user that has logged in before can log in again; 0 if one can now",
                Gauge::default(),
            ),
            login_blocked_seconds: r.add(
                "login_blocked_seconds",
                "Seconds for which logins stay blocked after a 429 of Damoov; 0 if they are not blocked",
                Gauge::default(),
            ),
            logins_waiting: r.add(
                "logins_waiting",
                "Logins that wait for the budget to allow them",
                Gauge::default(),
            ),
            principals_contested: r.add(
                "principals_contested",
                "Users that another program logs in as well",
                Gauge::default(),
            ),
            logins_suspended: r.add(
                "logins_suspended",
                "1 while logins are suspended because Damoov rejects every RefreshToken",
                Gauge::default(),
            ),
            old_pairs_rejected: r.add(
                "old_pairs_rejected",
                "Rejected refreshes of pairs that are older than one that works, as after a backup was restored",
                Counter::default(),
            ),
            store_operations: r.add(
                "store_operations",
                "Calls to the store, by operation and result",
                complete(Family::default()),
            ),
            tokens_cached: r.add(
                "tokens_cached",
                "Users and accounts whose token is in memory",
                Gauge::default(),
            ),
            tokens_stored: r.add(
                "tokens_stored",
                "Users and accounts with tokens in the store, counted once a minute",
                Gauge::default(),
            ),
            replay_memory_bytes: r.add(
                "replay_memory_bytes",
                "Request content that is kept for replays",
                Gauge::default(),
            ),
            upstream_connections: r.add(
                "upstream_connections",
                "Open connections to the hosts of the API",
                Gauge::default(),
            ),
            answers_cut: r.add(
                "answers_cut",
                "Answers that were broken off because the API sent nothing, or the caller read nothing",
                complete(Family::default()),
            ),
            live_connections: r.add(
                "live_connections",
                "Open WebSocket connections of callers",
                Gauge::default(),
            ),
            access_events_lost: r.add(
                "access_events_lost",
                "Access lines that the log dropped, also counted in log_lines_lost",
                Counter::default(),
            ),
            log_lines_lost: r.add(
                "log_lines_lost",
                "Lines that the log dropped, by target",
                complete(Family::default()),
            ),
            ready: r.add("ready", "1 while /readyz answers 200", Gauge::default()),
            registry: r.into_registry(),
        }
    }

    /// Shows the series of these routes, at 0, before the first request to them.
    pub fn expect<'a>(&self, routes: impl IntoIterator<Item = &'a Arc<str>>) {
        for route in routes {
            for labels in RequestLabels::expected(route) {
                drop(self.requests.get_or_create(&labels));
            }
            let route = route.clone();
            drop(self.request_duration.get_or_create(&RouteLabel { route }));
        }
    }

    /// The durations of one host.
    pub fn upstream_duration_of(&self, host: &str) -> Histogram {
        let host = host.into();
        self.upstream_duration
            .get_or_create(&HostLabel { host })
            .clone()
    }

    /// What counts the lines of this target that the log loses.
    pub fn lost_lines(&self, target: LogTarget) -> Counter {
        let labels = LogLabels { target };
        self.log_lines_lost.get_or_create(&labels).clone()
    }

    /// All metrics as text.
    pub fn encode(&self, format: Format) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("writing into a String cannot fail");
        match format {
            Format::OpenMetrics => out,
            Format::Classic => exposition::classic(&out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
            .observe(Duration::from_millis(100));
        let text = metrics.encode(Format::OpenMetrics);
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

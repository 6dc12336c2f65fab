//! Every metric in one struct. Labels are enums, or routes of the table, so that they stay bounded.
//! It is made once, by the command that serves, and handed to the components; it is not global. Never sees a
//! secret.

mod exposition;
mod histogram;
mod labels;
mod process;
mod registrar;
#[cfg(any(test, feature = "internals"))]
mod series;
mod tally;
mod totals;

pub use exposition::Format;
pub use histogram::Histogram;
pub use labels::{
    AuthEndpoint, CutLabels, CutReason, Doubt, Freshness, Grant, GrantLabel, HostLabel, LogLabels,
    LogTarget, LookupLabels, Method, Outcome, ReloadLabels, ReloadResult, RenewalLabels,
    RenewalResult, ReplayLabels, ReplayResult, RequestLabels, RouteLabel, Stalled, StatusClass,
    StoreLabels, StoreOperation, StoreResult, Trigger, UnreadableLabels,
};
pub use registrar::Registered;
#[cfg(any(test, feature = "internals"))]
pub use series::Bounds;
pub use tally::Tally;
pub use totals::Totals;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use registrar::Registrar;

/// Declares [`Metrics`], and registers what it declares in this order. The word before a name:
///
/// - `plain`: a metric without labels, or a family whose label values are not known beforehand;
/// - `complete`: a family that shows each of its series, at 0, from the first scrape;
/// - `seconds`, `complete_seconds`: the same for durations, whose names get `_seconds`;
/// - `unknown`: a gauge that is −1 until it is known.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $kind:ident $name:ident: $metric:ty;)+) => {
        /// All metrics. Cheap to share: every field is an `Arc` inside.
        #[derive(Debug)]
        pub struct Metrics {
            $($(#[doc = $help])+ pub $name: Registered<$metric>,)+
            /// Those of `requests`, to be summed.
            request_series: totals::RequestSeries,
            /// Encodes them all; shares their values.
            registry: Registry,
        }

        impl Metrics {
            /// Makes and registers everything. The names get the prefix `damoov_proxy_`; those of
            /// counters end in `_total`.
            pub fn new() -> Metrics {
                let mut registrar = Registrar::new();
                let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
                registrar.constant("build", "The version of this program", version);
                Metrics {
                    $($name: registrar.$kind(stringify!($name), concat!($($help),+).trim()),)+
                    request_series: totals::RequestSeries::default(),
                    registry: registrar.into_registry(),
                }
            }

            /// The most series that `/metrics` can have: as if each set of labels had occurred.
            #[cfg(any(test, feature = "internals"))]
            pub fn most_series(bounds: Bounds) -> usize {
                [
                    $(<$metric as series::Extent>::most_series(bounds),)+
                    series::UNLISTED,
                ]
                .into_iter()
                .sum()
            }
        }
    };
}

metrics! {
    /// Requests answered
    plain requests: Family<RequestLabels, Counter>;
    /// Time from a request's head to its answer's head
    seconds request_duration: Family<RouteLabel, Histogram>;
    /// Requests that are being served
    plain requests_in_flight: Gauge;
    /// Time from sending a request to a host of the API to its answer's head, each attempt
    seconds upstream_duration: Family<HostLabel, Histogram>;
    /// Requests, by the state of the token that memory held
    complete token_lookups: Family<LookupLabels, Counter>;
    /// Refreshes and logins that have ended, by trigger and result
    complete renewals: Family<RenewalLabels, Counter>;
    /// Time that a refresh or a login took, waiting included
    complete_seconds renewal_duration: Family<GrantLabel, Histogram>;
    /// Requests that waited for a renewal which another request had started
    plain renewals_joined: Counter;
    /// Answers to logins, refreshes and registrations that could not be read, by reason
    complete auth_answers_unreadable: Family<UnreadableLabels, Counter>;
    /// Requests that the API answered with 401, by the result of the replay
    complete replays: Family<ReplayLabels, Counter>;
    /// Logins that the budget allows now
    plain login_budget_remaining: Gauge;
    /// Logins that the tightest window of the budget allows when none has been made
    plain login_budget_limit: Gauge;
    /// Time until a user that has logged in before can log in again; 0 if one can now
    seconds login_budget_next: Gauge<f64, AtomicU64>;
    /// Seconds for which logins stay blocked after a 429 of Damoov; 0 if they are not blocked
    plain login_blocked_seconds: Gauge<f64, AtomicU64>;
    /// Logins that wait for the budget to allow them
    plain logins_waiting: Gauge;
    /// Users that another program logs in as well
    plain principals_contested: Gauge;
    /// 1 while logins are suspended because Damoov rejects every RefreshToken
    plain logins_suspended: Gauge;
    /// Rejected refreshes of pairs that are older than one that works, as after a backup was restored
    plain old_pairs_rejected: Counter;
    /// Calls to the store, by operation and result
    complete store_operations: Family<StoreLabels, Counter>;
    /// Users and accounts whose token is in memory
    plain tokens_cached: Gauge;
    /// Users and accounts with tokens in the store, counted once a minute
    plain tokens_stored: Gauge;
    /// 1 while the store is not reached: no refresh and no login is started
    plain store_away: Gauge;
    /// New tokens that wait on this machine's disk until the store has them
    plain store_outbox_pairs: Gauge;
    /// Seconds by which the store's clock is ahead of this machine's
    seconds store_clock_offset: Gauge<f64, AtomicU64>;
    /// Processes that share the store now, this one included
    plain store_processes: Gauge;
    /// 1 if a synchronous standby stands behind the store, 0 if none does, -1 if that is not known or means nothing
    unknown store_standby: Gauge;
    /// Tokens that the store had lost, as after a fail-over, and that this process has restored
    plain store_restored: Counter;
    /// Entries of the store that were older than what this process had in memory
    plain store_went_back: Counter;
    /// Request content that is kept for replays
    plain replay_memory_bytes: Gauge<i64, AtomicI64>;
    /// Open connections to the hosts of the API
    plain upstream_connections: Gauge;
    /// Answers that were broken off because the API sent nothing, or the caller read nothing
    complete answers_cut: Family<CutLabels, Counter>;
    /// Open WebSocket connections of callers
    plain live_connections: Gauge;
    /// Access lines that the log dropped, also counted in log_lines_lost
    plain access_events_lost: Counter;
    /// Lines that the log dropped, by target
    complete log_lines_lost: Family<LogLabels, Counter>;
    /// Times that the configuration was read again, by result
    complete config_reloads: Family<ReloadLabels, Counter>;
    /// 1 if the configuration is in force as it was read last, 0 if it was refused
    plain config_last_reload_successful: Gauge;
    /// When the configuration that is in force was read
    seconds config_last_reload_success_timestamp: Gauge<f64, AtomicU64>;
    /// Keys of the configuration that take effect only at a restart
    plain config_restart_needed: Gauge;
    /// 1 while /readyz answers 200
    plain ready: Gauge;
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
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
            "damoov_proxy_store_away 0",
            "damoov_proxy_store_outbox_pairs 0",
            "damoov_proxy_store_clock_offset_seconds 0.0",
            "damoov_proxy_store_processes 0",
            "damoov_proxy_store_standby -1",
            "damoov_proxy_store_restored_total 0",
            "damoov_proxy_store_went_back_total 0",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}

//! Every metric in one struct; labels are enums (or routes of the table), so that they stay
//! bounded. Made once in `main` and handed to the components; not global. Never sees a secret.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
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
}

/// Labels of `requests_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The route's pattern, or `none`.
    pub route: Arc<str>,
    /// The method; `OTHER` for unknown ones.
    pub method: Method,
    /// `2xx` and so on.
    pub status_class: StatusClass,
    /// Who decided the answer.
    pub outcome: Outcome,
}

/// The route's pattern, or `none`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabel {
    /// From the table of routes, never from a caller.
    pub route: Arc<str>,
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// As it stands in labels and logs.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(
                &self,
                encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
            ) -> Result<(), std::fmt::Error> {
                self.as_str().encode(encoder)
            }
        }
    };
}

label!(
    /// Request methods.
    Method {
        /// GET
        Get = "GET",
        /// HEAD
        Head = "HEAD",
        /// POST
        Post = "POST",
        /// PUT
        Put = "PUT",
        /// PATCH
        Patch = "PATCH",
        /// DELETE
        Delete = "DELETE",
        /// OPTIONS
        Options = "OPTIONS",
        /// Anything else.
        Other = "OTHER",
    }
);

impl From<&http::Method> for Method {
    fn from(method: &http::Method) -> Method {
        match method.as_str() {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "PATCH" => Method::Patch,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        }
    }
}

label!(
    /// The hundreds of a status.
    StatusClass {
        /// 100 to 199
        Informational = "1xx",
        /// 200 to 299
        Success = "2xx",
        /// 300 to 399
        Redirection = "3xx",
        /// 400 to 499
        ClientError = "4xx",
        /// 500 to 599
        ServerError = "5xx",
    }
);

impl From<http::StatusCode> for StatusClass {
    fn from(status: http::StatusCode) -> StatusClass {
        match status.as_u16() / 100 {
            1 => StatusClass::Informational,
            2 => StatusClass::Success,
            3 => StatusClass::Redirection,
            4 => StatusClass::ClientError,
            _ => StatusClass::ServerError,
        }
    }
}

label!(
    /// Who decided a request's answer.
    Outcome {
        /// The API's answer to the first attempt.
        Forwarded = "forwarded",
        /// The API's answer to a replay.
        Replayed = "replayed",
        /// Refused for what the caller sent.
        Caller = "caller_error",
        /// The upstream failed.
        Upstream = "upstream_error",
        /// No credentials could be had.
        Auth = "auth_error",
        /// The store failed.
        Store = "store_error",
        /// The proxy itself failed or refused.
        Proxy = "proxy_error",
        /// The caller left before an answer.
        Abandoned = "abandoned",
    }
);

/// Labels of `token_lookups_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LookupLabels {
    /// What was found.
    pub freshness: Freshness,
}

label!(
    /// The state of credentials at a lookup (RFC 9111's words).
    Freshness {
        /// Used as they are.
        Fresh = "fresh",
        /// Used, with a renewal in the background.
        Stale = "stale",
        /// In memory, expired or rejected.
        Expired = "expired",
        /// Not in memory.
        Absent = "absent",
    }
);

/// Labels of `renewals_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RenewalLabels {
    /// By which grant.
    pub grant: Grant,
    /// What asked for it.
    pub trigger: Trigger,
    /// How it ended.
    pub result: RenewalResult,
}

/// Labels of `renewal_duration_seconds`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct GrantLabel {
    /// By which grant.
    pub grant: Grant,
}

label!(
    /// The two grants.
    Grant {
        /// With the RefreshToken.
        Refresh = "refresh",
        /// With DeviceToken and InstanceKey, or email and password.
        Login = "login",
    }
);

label!(
    /// What asked for a renewal.
    Trigger {
        /// A stale token in use.
        Ahead = "ahead",
        /// A 401.
        Rejected = "rejected",
        /// No usable token.
        Missing = "missing",
        /// An idle pair growing old.
        Keep = "keep",
        /// An operator.
        Asked = "asked",
    }
);

label!(
    /// How one grant ended.
    RenewalResult {
        /// New credentials, committed.
        Ok = "ok",
        /// Damoov definitely refused.
        Rejected = "rejected",
        /// No usable answer.
        Failed = "failed",
        /// 429.
        Limited = "limited",
        /// Not tried: budget, block, contested, suspended, breaker or negative cache.
        Refused = "refused",
    }
);

/// Labels of `replays_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReplayLabels {
    /// How it ended.
    pub result: ReplayResult,
}

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

/// Labels of `store_operations_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StoreLabels {
    /// Which.
    pub operation: StoreOperation,
    /// How it ended.
    pub result: StoreResult,
}

label!(
    /// The store's calls.
    StoreOperation {
        /// One entry read.
        Load = "load",
        /// A lease asked for.
        Lease = "lease",
        /// A pair written.
        Commit = "commit",
        /// A fact written.
        Note = "note",
        /// The login budget.
        Budget = "budget",
        /// The keeper's query.
        Scan = "scan",
    }
);

label!(
    /// How a call to the store ended.
    StoreResult {
        /// As asked.
        Ok = "ok",
        /// Held by, or superseded by, another process.
        Lost = "lost",
        /// One damaged record.
        Damaged = "damaged",
        /// The medium failed.
        Failed = "failed",
    }
);

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

//! The labels: enums whose values are known beforehand, and the patterns of the route table.

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};

use super::registrar::Bounded;

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

/// The public name of one of the API's hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HostLabel {
    /// From the table of routes, never from a caller.
    pub host: Arc<str>,
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// Each value.
            pub const ALL: &[$name] = &[$($name::$variant),+];

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
        /// The proxy's own answer to a login or a refresh.
        Answered = "answered",
        /// The proxy's own permission for a web page to call.
        Preflight = "preflight",
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
        /// The guard against mass rejections, which probes the API with a login.
        Probe = "asked",
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

/// Labels of `auth_answers_unreadable_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct UnreadableLabels {
    /// Which endpoint answered.
    pub endpoint: AuthEndpoint,
    /// What is wrong with the answer.
    pub reason: Doubt,
}

label!(
    /// The calls whose answers carry tokens.
    AuthEndpoint {
        /// `/v1/Auth/Login`
        Login = "login",
        /// `/v1/Auth/RefreshToken`
        Refresh = "refresh",
        /// `/v1/Registration/create`
        Registration = "registration",
    }
);

label!(
    /// Why an answer with tokens cannot be read.
    Doubt {
        /// Where it ends is ambiguous.
        Framing = "framing",
        /// Its Content-Encoding is unknown or damaged.
        Coding = "coding",
        /// More than 64 KiB, compressed or decoded.
        TooLong = "too_long",
        /// It is not the API's JSON.
        NotJson = "not_json",
        /// A name stands twice in an object.
        NameTwice = "name_twice",
        /// JSON that is neither tokens nor a rejection.
        Unexpected = "unexpected",
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
        /// One record whose key is not configured.
        UnknownKey = "unknown_key",
        /// The medium failed.
        Failed = "failed",
    }
);

/// Labels of `answers_cut_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CutLabels {
    /// Who was still.
    pub stalled: Stalled,
    /// Why that was not waited for any longer.
    pub reason: CutReason,
}

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

/// Labels of `log_lines_lost_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LogLabels {
    /// Which part of the log.
    pub target: LogTarget,
}

label!(
    /// The parts of the log.
    LogTarget {
        /// One line for each request.
        Access = "access",
        /// What operators did.
        Audit = "audit",
        /// Everything else.
        Other = "other",
    }
);

/// One label: each of its values.
macro_rules! bounded {
    ($($labels:ident { $field:ident: $label:ident }),+ $(,)?) => {
        $(impl Bounded for $labels {
            fn all() -> Vec<$labels> {
                $label::ALL.iter().map(|value| $labels { $field: *value }).collect()
            }
        })+
    };
}

bounded!(
    LookupLabels {
        freshness: Freshness
    },
    GrantLabel { grant: Grant },
    ReplayLabels {
        result: ReplayResult
    },
    LogLabels { target: LogTarget },
);

impl Bounded for RenewalLabels {
    fn all() -> Vec<RenewalLabels> {
        let mut all = Vec::new();
        for &grant in Grant::ALL {
            for &trigger in Trigger::ALL {
                all.extend(RenewalResult::ALL.iter().map(|&result| RenewalLabels {
                    grant,
                    trigger,
                    result,
                }));
            }
        }
        all
    }
}

impl Bounded for CutLabels {
    fn all() -> Vec<CutLabels> {
        let of = |&stalled| {
            CutReason::ALL
                .iter()
                .map(move |&reason| CutLabels { stalled, reason })
        };
        Stalled::ALL.iter().flat_map(of).collect()
    }
}

impl Bounded for UnreadableLabels {
    fn all() -> Vec<UnreadableLabels> {
        let of = |&endpoint| {
            Doubt::ALL
                .iter()
                .map(move |&reason| UnreadableLabels { endpoint, reason })
        };
        AuthEndpoint::ALL.iter().flat_map(of).collect()
    }
}

impl Bounded for StoreLabels {
    fn all() -> Vec<StoreLabels> {
        let of = |&operation| {
            StoreResult::ALL
                .iter()
                .map(move |&result| StoreLabels { operation, result })
        };
        StoreOperation::ALL.iter().flat_map(of).collect()
    }
}

/// How requests end: the answers that are usual, and each kind that an alert may watch.
const ENDINGS: [(StatusClass, Outcome); 9] = [
    (StatusClass::Success, Outcome::Forwarded),
    (StatusClass::ServerError, Outcome::Forwarded),
    (StatusClass::Success, Outcome::Replayed),
    (StatusClass::ClientError, Outcome::Caller),
    (StatusClass::ServerError, Outcome::Upstream),
    (StatusClass::ServerError, Outcome::Auth),
    (StatusClass::ServerError, Outcome::Store),
    (StatusClass::ServerError, Outcome::Proxy),
    (StatusClass::ClientError, Outcome::Abandoned),
];

impl RequestLabels {
    /// The series of `route` that are shown before its first request. All that can occur are too
    /// many: others appear with their first request.
    pub(super) fn expected(route: &Arc<str>) -> impl Iterator<Item = RequestLabels> {
        let with = move |method| {
            let labels = move |(status_class, outcome)| RequestLabels {
                route: route.clone(),
                method,
                status_class,
                outcome,
            };
            ENDINGS.into_iter().map(labels)
        };
        [Method::Get, Method::Post].into_iter().flat_map(with)
    }
}

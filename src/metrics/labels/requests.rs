//! Labels of requests: which route, how it ended.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;

use super::label;

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
    pub(in crate::metrics) fn expected(route: &Arc<str>) -> impl Iterator<Item = RequestLabels> {
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

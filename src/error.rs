//! Every way in which the path of a request can fail, and the answer that the caller gets for it:
//! one table, [`Error::refusal`]. Knows how failures are worded; logs nothing.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::caller;
use crate::content_coding;
use crate::credentials;
use crate::damoov::auth_requests;
use crate::damoov::envelope;
use crate::damoov::routes::Suggestion;
use crate::head::Rejection;
use crate::naming;
use crate::replay;
use crate::upstream;

/// Why a request got no answer of the API.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The head is not one that is served.
    #[error(transparent)]
    Head(#[from] Rejection),
    /// No route has this path and method; this one would, where routes can be added.
    #[error("no route has this path and method{}", would_serve(.0.as_deref()))]
    RouteUnknown(Option<Box<Suggestion>>),
    /// Nobody is named, or badly.
    #[error(transparent)]
    Naming(#[from] naming::Error),
    /// A call to an Auth endpoint has content that is none of such a call.
    #[error(transparent)]
    AuthContent(#[from] auth_requests::Unread),
    /// The password of a login is not the one that is configured, or is not compared.
    #[error(transparent)]
    Password(#[from] credentials::PasswordError),
    /// A refresh of tokens that the proxy did not hand out.
    #[error("the token was not handed out by this proxy; log in through it")]
    TokensForeign,
    /// More content than this call may have.
    #[error("the content of this call may be at most 64 KiB long")]
    ContentTooLarge,
    /// Content that must be understood, and cannot be decoded.
    #[error("the content cannot be read: {0}")]
    ContentUnreadable(content_coding::Unreadable),
    /// A request to `[admin]` that changes something does not say that no web page of another origin sent it.
    #[error("a request that changes something needs the header `X-Damoov-Proxy: 1`")]
    MarkMissing,
    /// Nothing is known of the principal that a request to `[admin]` names.
    #[error("nothing is known of this principal: name a DeviceToken, or account:NAME")]
    PrincipalUnknown,
    /// There are as many event streams as there may be.
    #[error("there are 32 event streams already; close a dashboard")]
    StreamsExhausted,
    /// The store is yet to be opened.
    #[error("the store is being opened; try again")]
    Starting,
    /// The process is about to end.
    #[error("the process is about to end")]
    Draining,
    /// The caller's content did not come.
    #[error(transparent)]
    Content(#[from] replay::Failure),
    /// The caller may not have the credentials.
    #[error(transparent)]
    Caller(#[from] caller::Error),
    /// There are no credentials.
    #[error(transparent)]
    Credentials(#[from] credentials::Error),
    /// The API gave no answer.
    #[error(transparent)]
    Upstream(#[from] upstream::Failed),
}

impl From<content_coding::Unreadable> for Error {
    fn from(error: content_coding::Unreadable) -> Error {
        use content_coding::Unreadable;
        match error {
            Unreadable::TooLong => Error::ContentTooLarge,
            Unreadable::CodingUnknown | Unreadable::Damaged => Error::ContentUnreadable(error),
        }
    }
}

/// Whose failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The request.
    Caller,
    /// The API's host.
    Upstream,
    /// The Auth endpoints.
    Auth,
    /// The token store.
    Store,
    /// The proxy, its configuration or its limits.
    Proxy,
}

/// What a caller is told. The sentence is the error's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the answer.
    pub status: StatusCode,
    /// The stable code word, as the README lists them.
    pub code: &'static str,
    /// Whose failure it is.
    pub source: Source,
    /// The error type of RFC 9209 §2.3.
    proxy_error: &'static str,
    /// `Retry-After`; every 503 has one.
    retry_after: Option<Duration>,
}

/// How long to wait where nothing says when it gets better.
const SOON: Duration = Duration::from_secs(1);
const STORE_RECHECK: Duration = Duration::from_secs(5);
const STREAMS_RECHECK: Duration = Duration::from_secs(5);

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// Every method that is forwarded.
pub(crate) const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

impl Error {
    /// The one place that decides how a failure is answered.
    pub fn refusal(&self) -> Refusal {
        use credentials::PasswordError as Password;
        use naming::Error as Name;
        match self {
            Error::Head(rejection) => match rejection {
                Rejection::Framing
                | Rejection::Host
                | Rejection::FieldName
                | Rejection::Handshake => of_request(400, "bad_request"),
                Rejection::Path => of_request(400, "path_invalid"),
                Rejection::Misdirected => of_request(421, "misdirected"),
                Rejection::Origin => of_request(403, "origin_forbidden"),
                Rejection::Method => of_request(405, "method_unknown"),
                Rejection::Expectation => of_request(417, "expectation_unknown"),
                Rejection::Upgrade => of_request(501, "upgrade_unknown"),
                Rejection::TargetTooLong => of_request(414, "target_too_long"),
                Rejection::TooManyFields => of_request(431, "head_too_large"),
            },
            Error::RouteUnknown(_) => of_request(404, "route_unknown"),
            Error::Naming(naming) => match naming {
                Name::DeviceTokenMissing => of_request(400, "device_token_missing"),
                Name::DeviceTokenInvalid => of_request(400, "device_token_invalid"),
                Name::InstanceIdInvalid => of_request(400, "instance_unknown"),
                Name::AccountUnknown | Name::AccountMissing | Name::AccountWanted => {
                    of_request(400, "account_unknown")
                }
                Name::BearerForeign | Name::BearerVoid => of_request(401, "token_invalid"),
                Name::BearerOurs => of_request(400, "bad_request"),
                Name::Conflict => of_request(400, "principal_conflict"),
            },
            Error::AuthContent(_) => of_request(400, "bad_request"),
            Error::Password(error) => match error {
                Password::NotConfigured => of_request(403, "login_rejected"),
                Password::Wrong => of_request(401, "password_wrong"),
                Password::TooManyWrong => Refusal {
                    retry_after: Some(SOON),
                    ..of_request(429, "caller_limited")
                },
            },
            Error::TokensForeign => of_request(401, "token_invalid"),
            Error::ContentTooLarge => of_request(413, "content_too_large"),
            Error::ContentUnreadable(_) => of_request(400, "bad_request"),
            Error::MarkMissing => of_request(403, "caller_forbidden"),
            Error::PrincipalUnknown => of_request(404, "principal_unknown"),
            Error::StreamsExhausted => own(503, "overloaded", STREAMS_RECHECK),
            Error::Starting => own(503, "store_unavailable", SOON),
            Error::Draining => own(503, "draining", SOON),
            Error::Content(failure) => match failure {
                replay::Failure::Idle => of_request(408, "content_timeout"),
                replay::Failure::Cut | replay::Failure::Taken => of_request(400, "bad_request"),
            },
            Error::Caller(error) => of_caller(error),
            Error::Credentials(error) => of_credentials(error),
            Error::Upstream(failed) => of_upstream(&failed.error),
        }
    }

    /// The answer, in the API's envelope.
    pub fn answer(&self) -> Response<Bytes> {
        let refusal = self.refusal();
        let content = envelope::error(refusal.status, refusal.code, &self.to_string());
        let mut answer = Response::new(Bytes::from(content));
        *answer.status_mut() = refusal.status;
        let headers = answer.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        let proxy_status = format!(
            "damoov-proxy; error={}; details=\"{}\"",
            refusal.proxy_error, refusal.code
        );
        headers.insert(
            PROXY_STATUS,
            HeaderValue::from_str(&proxy_status).expect("both words are of the table above"),
        );
        if let Some(after) = refusal.retry_after {
            headers.insert(header::RETRY_AFTER, whole_seconds(after).into());
        }
        if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static(METHODS));
        }
        if refusal.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"damoov-proxy\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if self.ends_connection() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// Whether nothing that follows on the caller's connection may be read as a request.
    fn ends_connection(&self) -> bool {
        matches!(self, Error::Head(Rejection::Framing) | Error::Content(_))
    }
}

fn would_serve(suggestion: Option<&Suggestion>) -> String {
    suggestion.map_or_else(String::new, |suggestion| {
        format!("; if the host is right, this one would:\n{suggestion}")
    })
}

fn of_caller(error: &caller::Error) -> Refusal {
    match error {
        caller::Error::InstanceUnknown => of_request(400, "instance_unknown"),
    }
}

fn of_credentials(error: &credentials::Error) -> Refusal {
    use credentials::Error as Auth;
    match error {
        Auth::InstanceUnknown | Auth::InstanceGone => of_request(400, "instance_unknown"),
        Auth::AccountUnknown => of_request(400, "account_unknown"),
        Auth::InstanceMismatch => of_request(403, "instance_mismatch"),
        Auth::LoginRejected => auth(403, "login_rejected", "http_request_denied"),
        Auth::BudgetExhausted { retry_after } => {
            unavailable("login_budget_exhausted", *retry_after)
        }
        Auth::LoginBlocked { retry_after } => unavailable("login_blocked", *retry_after),
        Auth::Contested { retry_after } => unavailable("login_contested", *retry_after),
        Auth::Suspended { retry_after } => unavailable("login_suspended", *retry_after),
        Auth::StoreUnavailable(_) => Refusal {
            source: Source::Store,
            ..unavailable("store_unavailable", STORE_RECHECK)
        },
        Auth::Unreachable(_) => auth(502, "auth_unreachable", "destination_unavailable"),
        Auth::BadResponse => auth(502, "auth_bad_response", "http_protocol_error"),
        Auth::Timeout => auth(504, "auth_timeout", "http_response_timeout"),
        Auth::WaitedTooLong => auth(504, "credentials_timeout", "proxy_internal_response"),
        Auth::Closing => unavailable("draining", SOON),
    }
}

fn of_upstream(error: &upstream::Error) -> Refusal {
    use upstream::Error as Api;
    match error {
        Api::Busy => Refusal {
            source: Source::Proxy,
            retry_after: Some(SOON),
            ..api(503, "overloaded", "connection_limit_reached")
        },
        Api::ConnectTimeout(_) => api(504, "upstream_timeout", "connection_timeout"),
        Api::ResponseTimeout => api(504, "upstream_timeout", "http_response_timeout"),
        Api::Unreachable(_) => api(502, "upstream_unreachable", "destination_unavailable"),
        Api::Broken(_) => api(502, "upstream_bad_response", "http_response_incomplete"),
        Api::Framing | Api::Unreadable | Api::Switched => {
            api(502, "upstream_bad_response", "http_protocol_error")
        }
    }
}

/// Rounded up, so that nobody comes too early; at least 1.
fn whole_seconds(duration: Duration) -> u64 {
    duration
        .as_millis()
        .div_ceil(1000)
        .clamp(1, u64::MAX.into()) as u64
}

fn refusal(status: u16, code: &'static str, source: Source, proxy_error: &'static str) -> Refusal {
    Refusal {
        status: StatusCode::from_u16(status).expect("the table holds valid statuses"),
        code,
        source,
        proxy_error,
        retry_after: None,
    }
}

fn of_request(status: u16, code: &'static str) -> Refusal {
    refusal(status, code, Source::Caller, "http_request_error")
}

fn api(status: u16, code: &'static str, proxy_error: &'static str) -> Refusal {
    refusal(status, code, Source::Upstream, proxy_error)
}

fn own(status: u16, code: &'static str, retry_after: Duration) -> Refusal {
    Refusal {
        retry_after: Some(retry_after),
        ..refusal(status, code, Source::Proxy, "proxy_internal_response")
    }
}

fn auth(status: u16, code: &'static str, proxy_error: &'static str) -> Refusal {
    refusal(status, code, Source::Auth, proxy_error)
}

fn unavailable(code: &'static str, retry_after: Duration) -> Refusal {
    Refusal {
        retry_after: Some(retry_after),
        ..auth(503, code, "destination_unavailable")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::damoov;
    use std::io;

    const AFTER: Duration = Duration::from_millis(1_001);

    fn at(error: upstream::Error) -> Error {
        upstream::Failed::at("api.example", error).into()
    }

    /// One of each.
    fn all() -> Vec<(Error, u16, &'static str)> {
        use credentials::Error as Auth;
        use credentials::PasswordError as Password;
        use damoov::auth_requests::Unread;
        use naming::Error as Name;
        use upstream::Error as Api;
        let retry_after = AFTER;
        let unreachable = || io::Error::from(io::ErrorKind::ConnectionRefused);
        vec![
            (Rejection::Framing.into(), 400, "bad_request"),
            (Rejection::Host.into(), 400, "bad_request"),
            (Rejection::FieldName.into(), 400, "bad_request"),
            (Rejection::Path.into(), 400, "path_invalid"),
            (Rejection::Misdirected.into(), 421, "misdirected"),
            (Rejection::Origin.into(), 403, "origin_forbidden"),
            (Rejection::Method.into(), 405, "method_unknown"),
            (Rejection::Expectation.into(), 417, "expectation_unknown"),
            (Rejection::Upgrade.into(), 501, "upgrade_unknown"),
            (Rejection::Handshake.into(), 400, "bad_request"),
            (Rejection::TargetTooLong.into(), 414, "target_too_long"),
            (Rejection::TooManyFields.into(), 431, "head_too_large"),
            (Error::RouteUnknown(None), 404, "route_unknown"),
            (Name::DeviceTokenMissing.into(), 400, "device_token_missing"),
            (Name::DeviceTokenInvalid.into(), 400, "device_token_invalid"),
            (Name::InstanceIdInvalid.into(), 400, "instance_unknown"),
            (Name::AccountUnknown.into(), 400, "account_unknown"),
            (Name::AccountMissing.into(), 400, "account_unknown"),
            (Name::AccountWanted.into(), 400, "account_unknown"),
            (Name::BearerForeign.into(), 401, "token_invalid"),
            (Name::BearerOurs.into(), 400, "bad_request"),
            (Name::Conflict.into(), 400, "principal_conflict"),
            (Unread::Login.into(), 400, "bad_request"),
            (Password::NotConfigured.into(), 403, "login_rejected"),
            (Password::Wrong.into(), 401, "password_wrong"),
            (Password::TooManyWrong.into(), 429, "caller_limited"),
            (Name::BearerVoid.into(), 401, "token_invalid"),
            (Error::TokensForeign, 401, "token_invalid"),
            (Error::ContentTooLarge, 413, "content_too_large"),
            (Error::MarkMissing, 403, "caller_forbidden"),
            (Error::PrincipalUnknown, 404, "principal_unknown"),
            (Error::StreamsExhausted, 503, "overloaded"),
            (Error::Starting, 503, "store_unavailable"),
            (Error::Draining, 503, "draining"),
            (
                content_coding::Unreadable::Damaged.into(),
                400,
                "bad_request",
            ),
            (replay::Failure::Idle.into(), 408, "content_timeout"),
            (replay::Failure::Cut.into(), 400, "bad_request"),
            (
                caller::Error::InstanceUnknown.into(),
                400,
                "instance_unknown",
            ),
            (Auth::InstanceUnknown.into(), 400, "instance_unknown"),
            (Auth::InstanceGone.into(), 400, "instance_unknown"),
            (Auth::AccountUnknown.into(), 400, "account_unknown"),
            (Auth::InstanceMismatch.into(), 403, "instance_mismatch"),
            (Auth::LoginRejected.into(), 403, "login_rejected"),
            (
                Auth::BudgetExhausted { retry_after }.into(),
                503,
                "login_budget_exhausted",
            ),
            (
                Auth::LoginBlocked { retry_after }.into(),
                503,
                "login_blocked",
            ),
            (
                Auth::Contested { retry_after }.into(),
                503,
                "login_contested",
            ),
            (
                Auth::Suspended { retry_after }.into(),
                503,
                "login_suspended",
            ),
            (
                Auth::StoreUnavailable(crate::store::Error::Closed).into(),
                503,
                "store_unavailable",
            ),
            (
                Auth::Unreachable("why".into()).into(),
                502,
                "auth_unreachable",
            ),
            (Auth::BadResponse.into(), 502, "auth_bad_response"),
            (Auth::Timeout.into(), 504, "auth_timeout"),
            (Auth::WaitedTooLong.into(), 504, "credentials_timeout"),
            (at(Api::Busy), 503, "overloaded"),
            (at(Api::ConnectTimeout(None)), 504, "upstream_timeout"),
            (at(Api::ResponseTimeout), 504, "upstream_timeout"),
            (
                at(Api::Unreachable(unreachable())),
                502,
                "upstream_unreachable",
            ),
            (at(Api::Framing), 502, "upstream_bad_response"),
            (at(Api::Unreadable), 502, "upstream_bad_response"),
            (at(Api::Switched), 502, "upstream_bad_response"),
        ]
    }

    #[test]
    fn every_failure_is_answered_by_its_row_of_the_table_in_the_apis_envelope() {
        for (error, status, code) in all() {
            let answer = error.answer();
            assert_eq!(answer.status(), status, "{error:?}");
            let envelope: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
            assert_eq!(envelope["Errors"][0]["Key"], code, "{error:?}");
            assert_eq!(envelope["Errors"][0]["Message"], error.to_string());
            assert_eq!(envelope["Status"], status);
            assert!(envelope["Result"].is_null());
            let proxy_status = answer.headers()[&PROXY_STATUS].to_str().unwrap();
            assert!(proxy_status.starts_with("damoov-proxy; error="));
            assert!(proxy_status.ends_with(&format!("; details=\"{code}\"")));
            assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
        }
    }

    #[test]
    fn every_503_and_429_and_nothing_else_says_when_to_come_back() {
        for (error, status, _) in all() {
            let answer = error.answer();
            let after = answer.headers().get(header::RETRY_AFTER);
            assert_eq!(after.is_some(), matches!(status, 429 | 503), "{error:?}");
        }
    }

    #[test]
    fn retry_after_is_never_too_early() {
        let answer = Error::from(credentials::Error::LoginBlocked { retry_after: AFTER }).answer();
        assert_eq!(answer.headers()[header::RETRY_AFTER], "2");
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_secs(7)), 7);
    }

    #[test]
    fn a_401_is_about_the_callers_own_token_or_password_and_challenges_it() {
        for (error, status, code) in all() {
            let is_callers = matches!(code, "token_invalid" | "password_wrong");
            assert_eq!(status == 401, is_callers, "{error:?}");
            let answer = error.answer();
            let challenged = answer.headers().contains_key(header::WWW_AUTHENTICATE);
            assert_eq!(challenged, status == 401, "{error:?}");
        }
    }

    #[test]
    fn what_leaves_the_connection_in_doubt_closes_it() {
        for (error, ..) in all() {
            let closes = error.answer().headers().contains_key(header::CONNECTION);
            let in_doubt = matches!(error, Error::Head(Rejection::Framing) | Error::Content(_));
            assert_eq!(closes, in_doubt, "{error:?}");
        }
    }
}

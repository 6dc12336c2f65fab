//! What a browser is told about calls from pages of an allowed origin (the Fetch standard, "CORS
//! protocol"): preflights, and the fields of every other answer. Knows neither principals nor tokens.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use super::answer::Received;
use super::record::Record;
use crate::damoov::auth_requests::Endpoint;
use crate::damoov::routes::{Credential, Route};
use crate::error::{Error, METHODS};
use crate::head::{self, Seen, Settings};
use crate::headers;

const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");
/// What a page may read of an answer besides what every page may.
const EXPOSED: HeaderValue = HeaderValue::from_static("Proxy-Status, Retry-After");
/// How long a browser may remember a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
/// What the answer to a preflight depends on, beside the origin.
const PREFLIGHT_VARIES: HeaderValue = HeaderValue::from_static(
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers, \
     Access-Control-Request-Private-Network",
);
const ORIGIN: HeaderValue = HeaderValue::from_static("Origin");

/// Which page asks, and so what the fields of its answer say.
pub(super) enum Page {
    /// No origins are configured, or the page's is none of them: nothing is said.
    Unknown,
    /// No page, as far as the request says; a browser may keep the answer for one.
    Absent,
    /// One of an allowed origin, as its browser writes it. Boxed: most requests have none.
    Allowed(Box<HeaderValue>),
}

impl Page {
    /// The page that a request comes from.
    pub(super) fn of(headers: &HeaderMap, seen: Seen, settings: &Settings) -> Page {
        if settings.allowed_origins.is_empty() {
            return Page::Unknown;
        }
        if !seen.origin || !headers.contains_key(header::ORIGIN) {
            return Page::Absent;
        }
        match head::allowed_origin(headers, settings) {
            Some(origin) => Page::Allowed(Box::new(origin.clone())),
            None => Page::Unknown,
        }
    }

    /// Lets the page read an answer.
    pub(super) fn permit(&self, answer: &mut HeaderMap) {
        match self {
            Page::Unknown => {}
            Page::Absent => vary(answer),
            Page::Allowed(origin) => {
                vary(answer);
                answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, (**origin).clone());
                answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            }
        }
    }
}

/// Answers a preflight, which names nobody: it says what may be sent, not by whom.
pub(super) fn answer_preflight(
    path: &str,
    headers: &HeaderMap,
    record: &mut Record<'_>,
) -> Result<Received, Error> {
    let rules = record.rules;
    let routes = &rules.routes;
    let asked = requested_method(headers);
    let found = asked.and_then(|method| routes.find(path, &method));
    let route = found.or_else(|| routes.of_path(path).next());
    let route = route.ok_or_else(|| rules.unknown(path))?;
    record.route = Some(route);
    if route.credential == Credential::Answer && Endpoint::at(path).is_none() {
        return Err(rules.unknown(path));
    }
    let all = routes.of_path(path).map(|route| &**route);
    Ok(Received::permission(permission(headers, all)))
}

/// Whether a request that has an Origin asks for permission to send another one.
pub(super) fn is_preflight(head: &Parts) -> bool {
    let asks = || {
        head.headers.contains_key(header::ORIGIN)
            && head
                .headers
                .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    };
    head.method == Method::OPTIONS && asks()
}

/// The method that a preflight is about; `None` if it is malformed.
fn requested_method(headers: &HeaderMap) -> Option<Method> {
    let requested = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(requested.as_bytes()).ok()
}

/// The permission to call a path that these routes serve, with the fields that were asked for and
/// have a chance: what the proxy would drop or refuse is not promised.
fn permission<'r>(request: &HeaderMap, routes: impl Iterator<Item = &'r Route>) -> Response<()> {
    let mut answer = Response::new(());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods(routes));
    if let Some(names) = allowed_fields(request) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    let asks_for_private_network = request
        .get(REQUEST_PRIVATE_NETWORK)
        .is_some_and(|value| value == "true");
    if asks_for_private_network {
        headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
    headers.insert(header::VARY, PREFLIGHT_VARIES);
    answer
}

/// The methods that any of the routes takes.
fn methods<'r>(routes: impl Iterator<Item = &'r Route>) -> HeaderValue {
    let mut all: Vec<&str> = Vec::new();
    for route in routes {
        let taken = route.taken_methods();
        if taken.is_empty() {
            return HeaderValue::from_static(METHODS);
        }
        for method in taken.iter().map(Method::as_str) {
            if !all.contains(&method) {
                all.push(method);
            }
        }
    }
    HeaderValue::from_str(&all.join(", ")).expect("methods are tokens")
}

/// Of the fields asked for, those that are forwarded or that the proxy knows.
fn allowed_fields(request: &HeaderMap) -> Option<HeaderValue> {
    let lines = headers::lines(request, &header::ACCESS_CONTROL_REQUEST_HEADERS);
    let names = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let allowed: Vec<String> = names
        .filter_map(|name| str::from_utf8(name.trim_ascii()).ok())
        .map(str::to_ascii_lowercase)
        .filter(|name| is_allowed(name))
        .collect();
    let list = HeaderValue::from_str(&allowed.join(", "));
    list.ok().filter(|_| !allowed.is_empty())
}

/// `name` is in lower case. A `*` would be every field there is.
fn is_allowed(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    !name.is_empty()
        && name.bytes().all(is_plain)
        && !head::reads_like_ours(name)
        && (headers::is_forwarded(name) || headers::is_understood(name))
}

/// Says on one line that the answer depends on the origin, too.
fn vary(answer: &mut HeaderMap) {
    let lines: Vec<&[u8]> = headers::lines(answer, &header::VARY)
        .map(HeaderValue::as_bytes)
        .collect();
    let names = |line: &[u8], wanted: &[u8]| {
        line.split(|byte| *byte == b',')
            .any(|name| name.trim_ascii().eq_ignore_ascii_case(wanted))
    };
    if lines
        .iter()
        .any(|line| names(line, b"origin") || names(line, b"*"))
    {
        return;
    }
    let said = match lines.is_empty() {
        true => ORIGIN,
        false => {
            let all = [&lines[..], &[b"Origin"]].concat().join(&b", "[..]);
            HeaderValue::from_bytes(&all).expect("each part was a value")
        }
    };
    answer.insert(header::VARY, said);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::damoov::routes::Replay;

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn route(methods: &[Method]) -> Route {
        Route {
            path: "/x".into(),
            host: "api.example".to_owned(),
            credential: Credential::User,
            methods: methods.to_vec(),
            replay: Replay::On401,
            response_timeout: None,
        }
    }

    fn allowed(asked: &[&str]) -> Option<String> {
        let lines: Vec<_> = asked
            .iter()
            .map(|line| ("access-control-request-headers", *line))
            .collect();
        allowed_fields(&map(&lines)).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn fields_that_are_dropped_or_refused_are_not_promised() {
        for (asked, expected) in [
            (&["devicetoken"][..], Some("devicetoken")),
            (
                &["Authorization,Content-Type", "InstanceId , x-own"],
                Some("authorization, content-type, instanceid, x-own"),
            ),
            (
                &["instancekey, proxy-authorization, x-damoov-proxy-key"],
                Some("instancekey, proxy-authorization, x-damoov-proxy-key"),
            ),
            (
                &["cookie, host, connection, te, x-forwarded-for, x-real-ip, x-own"],
                Some("x-own"),
            ),
            (&["device_token, *, x y, a:b, \"q\", ,"], None),
            (
                &["transfer-encoding, content-length, upgrade, expect"],
                None,
            ),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(allowed(asked).as_deref(), expected, "{asked:?}");
        }
    }

    #[test]
    fn methods_are_those_of_all_routes_of_the_path() {
        let of = |lists: &[&[Method]]| {
            let routes: Vec<_> = lists.iter().map(|list| route(list)).collect();
            methods(routes.iter()).to_str().unwrap().to_owned()
        };
        assert_eq!(of(&[&[Method::GET]]), "GET");
        assert_eq!(
            of(&[&[Method::GET, Method::PUT], &[Method::PUT, Method::POST]]),
            "GET, PUT, POST"
        );
        assert_eq!(of(&[&[Method::GET], &[]]), METHODS);
    }

    #[test]
    fn what_an_answer_depends_on_stands_on_one_line_once() {
        for (before, after) in [
            (&[][..], "Origin"),
            (&["Accept-Encoding"], "Accept-Encoding, Origin"),
            (&["A", "B, c"], "A, B, c, Origin"),
            (&["a, origin"], "a, origin"),
            (&["*"], "*"),
        ] {
            let lines: Vec<_> = before.iter().map(|line| ("vary", *line)).collect();
            let mut answer = map(&lines);
            vary(&mut answer);
            let said: Vec<_> = answer.get_all("vary").iter().collect();
            assert_eq!(said, [after], "{before:?}");
        }
    }
}

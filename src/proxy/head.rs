//! The checks of a request head before any route is chosen (RFC 9110, RFC 9112). Pure; knows
//! neither routes nor principals.
//!
//! hyper 1.12 is a lenient parser. Its server has already refused, without an answer of ours: folded
//! lines, bare CR, NUL, spaces around and bytes beyond ASCII in field names; a Content-Length that
//! is not all digits or differs from another; Transfer-Encoding that does not end in `chunked` or
//! comes with HTTP/1.0; more fields or a larger head than it was told to take. It has normalised:
//! equal Content-Lengths are one (the server tells that there were several), a Content-Length beside
//! Transfer-Encoding is gone and the connection will be closed, a fragment is cut off the target.
//! Left to us is everything below; what hyper refuses too is checked again where that costs nothing.

mod seen;

pub use seen::Seen;
pub(super) use seen::reads_like_ours;

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Version};

use crate::damoov::routes::decoded;
use crate::headers;

/// The longest path and query, in bytes.
const TARGET_LIMIT: usize = 8 * 1024;
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// The most field lines of a head.
const FIELD_LIMIT: usize = 64;

/// What is served, besides what always is. Part of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Host values besides IP addresses, localhost and `*.telematicssdk.com`; with a port they mean
    /// that port alone.
    pub hosts: Vec<String>,
    /// Origins whose pages may call, as browsers write them: `https://app.example`.
    pub allowed_origins: Vec<String>,
}

/// A request target that passed the checks. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(PathAndQuery);

/// Why a request goes no further. Each variant names its code word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// `bad_request`: where the content ends is not beyond doubt. The connection must be closed.
    #[error("send one plain Content-Length, or Transfer-Encoding: chunked")]
    Framing,
    /// `bad_request`
    #[error("send exactly one well-formed Host")]
    Host,
    /// `bad_request`
    #[error("a field name with `_` reads like one that the proxy sets or checks")]
    FieldName,
    /// `path_invalid`
    #[error(
        "the path must be plain: no dot segments, `//`, `;`, `\\`, escaped slashes or controls"
    )]
    Path,
    /// `misdirected`, 421.
    #[error("this host is not served here; list it under `hosts`")]
    Misdirected,
    /// `origin_forbidden`, 403.
    #[error("web pages may call only from an origin listed under `allowed_origins`")]
    Origin,
    /// `method_unknown`, 405.
    #[error("use GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS")]
    Method,
    /// `expectation_unknown`, 417.
    #[error("only `Expect: 100-continue` is understood")]
    Expectation,
    /// `upgrade_unknown`, 501.
    #[error("WebSocket is not served here")]
    Upgrade,
    /// `bad_request`: a WebSocket handshake that is none.
    #[error(
        "a WebSocket handshake is a GET without content, with Connection: upgrade, one \
         Sec-WebSocket-Key and Sec-WebSocket-Version: 13"
    )]
    Handshake,
    /// `target_too_long`, 414.
    #[error("the path and query may have 8 KiB")]
    TargetTooLong,
    /// `head_too_large`, 431.
    #[error("a request may have 64 header fields")]
    TooManyFields,
}

/// Checks a request head that has `seen`. Allocates nothing. Framing comes first: where it is in
/// doubt, nothing that follows on the connection may be read as a request.
pub fn check(head: &Parts, seen: Seen, settings: &Settings) -> Result<Target, Rejection> {
    let framing_is_plain = || {
        headers::framing_is_plain(&head.headers, head.version)
            && head.extensions.get::<headers::SeveralLengths>().is_none()
    };
    require(!seen.framing || framing_is_plain(), Rejection::Framing)?;
    require(head.headers.len() <= FIELD_LIMIT, Rejection::TooManyFields)?;
    check_method(&head.method)?;
    check_host(head, settings)?;
    if seen.origin {
        check_origin(&head.headers, settings)?;
    }
    require(!seen.disguise, Rejection::FieldName)?;
    if seen.expectation {
        check_expectation(&head.headers)?;
    }
    // Absent in the authority-form, which only CONNECT may use.
    let target = head.uri.path_and_query().ok_or(Rejection::Path)?;
    check_target(target)?;
    Ok(Target(target.clone()))
}

impl Target {
    /// Starts with `/`; free of everything that [`Rejection::Path`] lists, also once percent-decoded.
    pub fn path(&self) -> &str {
        self.0.path()
    }

    /// What follows the `?`: visible ASCII, otherwise as the caller wrote it.
    pub fn query(&self) -> Option<&str> {
        self.0.query()
    }

    /// What is sent upstream when `path`, the end of [`Target::path`] or `/`, is what remains of it
    /// without a naming prefix. Allocates only where there was a prefix.
    pub fn forwarded(&self, path: &str) -> PathAndQuery {
        if path == self.path() {
            return self.0.clone();
        }
        let target = match self.query() {
            Some(query) => [path, "?", query].concat(),
            None => path.to_owned(),
        };
        PathAndQuery::try_from(target).expect("each character was checked where it came from")
    }
}

fn require(holds: bool, otherwise: Rejection) -> Result<(), Rejection> {
    if holds { Ok(()) } else { Err(otherwise) }
}

fn check_method(method: &Method) -> Result<(), Rejection> {
    match *method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::PATCH
        | Method::DELETE
        | Method::OPTIONS => Ok(()),
        _ => Err(Rejection::Method),
    }
}

/// Against DNS rebinding: a name that an attacker points at the loopback is not served. The same
/// holds for an authority in the target, although the upstream never comes from either.
fn check_host(head: &Parts, settings: &Settings) -> Result<(), Rejection> {
    let mut hosts = headers::lines(&head.headers, &header::HOST);
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            check_authority(host.to_str().map_err(|_| Rejection::Host)?, settings)?;
        }
        (Some(_), Some(_)) => return Err(Rejection::Host),
        // HTTP/1.0 need not have one.
        (None, _) if head.version == Version::HTTP_11 => return Err(Rejection::Host),
        (None, _) => {}
    }
    match head.uri.authority() {
        Some(authority) => check_authority(authority.as_str(), settings),
        None => Ok(()),
    }
}

fn check_authority(authority: &str, settings: &Settings) -> Result<(), Rejection> {
    let (host, is_ip_address) = host_of(authority).ok_or(Rejection::Host)?;
    let is = |served: &str| served.eq_ignore_ascii_case(host);
    let served = is_ip_address
        || is("localhost")
        || is_subdomain(host, ".telematicssdk.com")
        || settings
            .hosts
            .iter()
            .any(|served| is(served) || served.eq_ignore_ascii_case(authority));
    require(served, Rejection::Misdirected)
}

/// The host of `host[:port]`, and whether it is an IP address; `None` if it is malformed, or
/// where something precedes it.
fn host_of(authority: &str) -> Option<(&str, bool)> {
    // The colons of an IPv6 address stand within brackets.
    let host_end = match authority.as_bytes() {
        [b'[', ..] => authority.rfind(']')? + 1,
        name => name
            .iter()
            .position(|byte| *byte == b':')
            .unwrap_or(name.len()),
    };
    let (host, port) = authority.split_at(host_end);
    let port_is_good = match port.strip_prefix(':') {
        // `parse` would take a sign.
        Some(digits) => !digits.starts_with('+') && digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let is_ip_address = is_ip_address(host);
    let host_is_good = is_ip_address || (!host.is_empty() && host.bytes().all(is_name));
    (port_is_good && host_is_good).then_some((host, is_ip_address))
}

fn is_ip_address(host: &str) -> bool {
    let bracketed = host.strip_prefix('[').and_then(|v6| v6.strip_suffix(']'));
    match bracketed {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok(),
    }
}

fn is_subdomain(host: &str, parent: &str) -> bool {
    host.len() > parent.len()
        && host.as_bytes()[host.len() - parent.len()..].eq_ignore_ascii_case(parent.as_bytes())
}

/// A browser says from which page it calls; where it says only how far away that page is, the user
/// must have typed the address.
fn check_origin(headers: &HeaderMap, settings: &Settings) -> Result<(), Rejection> {
    let allowed = if headers.contains_key(header::ORIGIN) {
        allowed_origin(headers, settings).is_some()
    } else {
        let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
        sites.all(|site| site == "none")
    };
    require(allowed, Rejection::Origin)
}

/// The origin of the page that calls, if there is one and its pages may.
pub(super) fn allowed_origin<'h>(
    headers: &'h HeaderMap,
    settings: &Settings,
) -> Option<&'h HeaderValue> {
    let mut origins = headers::lines(headers, &header::ORIGIN);
    let origin = origins.next().filter(|_| origins.next().is_none())?;
    let mut allowed = settings.allowed_origins.iter();
    allowed
        .any(|allowed| is_same_origin(allowed.as_bytes(), origin.as_bytes()))
        .then_some(origin)
}

/// Schemes and hosts have no case, and the port of a scheme may be left out (RFC 6454 §4, §6).
fn is_same_origin(one: &[u8], other: &[u8]) -> bool {
    without_default_port(one).eq_ignore_ascii_case(without_default_port(other))
}

fn without_default_port(origin: &[u8]) -> &[u8] {
    let begins = |scheme: &[u8]| {
        let beginning = origin.get(..scheme.len());
        beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(scheme))
    };
    let port: &[u8] = if begins(b"https://") {
        b":443"
    } else if begins(b"http://") {
        b":80"
    } else {
        b""
    };
    origin.strip_suffix(port).unwrap_or(origin)
}

fn check_expectation(headers: &HeaderMap) -> Result<(), Rejection> {
    let mut expectations = headers.get_all(header::EXPECT).iter();
    let known = expectations.all(|e| e.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    require(known, Rejection::Expectation)
}

/// Whether the request is a good WebSocket handshake (RFC 6455 §4.2.1). A caller that offers another
/// protocol is content with HTTP/1.1 and gets it; one that asks for WebSocket is not, and gets it
/// where `is_live` says that its route has it. Asked once the route is known.
pub fn asks_for_websocket(head: &Parts, seen: Seen, is_live: bool) -> Result<bool, Rejection> {
    if !seen.upgrade || !headers::names_websocket(&head.headers) {
        return Ok(false);
    }
    require(is_live, Rejection::Upgrade)?;
    let is_one_key = |key: &HeaderValue| BASE64.decode(key).is_ok_and(|key| key.len() == 16);
    let mut keys = head.headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let mut versions = head.headers.get_all(header::SEC_WEBSOCKET_VERSION).iter();
    let is_good = head.method == Method::GET
        && head.version == Version::HTTP_11
        && headers::wants_upgrade(&head.headers)
        && keys.next().is_some_and(is_one_key)
        && keys.next().is_none()
        && versions.next().is_some_and(|version| version == "13")
        && versions.next().is_none()
        && !has_content(&head.headers);
    require(is_good, Rejection::Handshake)?;
    Ok(true)
}

fn has_content(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    headers.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

fn check_target(target: &PathAndQuery) -> Result<(), Rejection> {
    require(
        target.as_str().len() <= TARGET_LIMIT,
        Rejection::TargetTooLong,
    )?;
    let query = target.query().unwrap_or_default();
    let plain = is_plain_path(target.path()) && query.bytes().all(|byte| byte.is_ascii_graphic());
    require(plain, Rejection::Path)
}

/// Whether every server reads the same segments in this path (RFC 3986 §3.3, without `;`, which
/// some take for the start of parameters).
fn is_plain_path(path: &str) -> bool {
    let Some(segments) = path.strip_prefix('/') else {
        return false;
    };
    let (mut before, mut is_good, mut has_oddities) = (b'/', true, false);
    for byte in segments.bytes() {
        let kind = KINDS[usize::from(byte)];
        is_good &= kind != Kind::Bad && (byte, before) != (b'/', b'/');
        has_oddities |= kind == Kind::Odd;
        before = byte;
    }
    // `/` alone has one segment, which is empty.
    is_good && (!has_oddities || segments.split('/').all(is_plain_segment))
}

/// What a byte of a path tells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing good.
    Bad,
    /// A character of a segment, or what ends one.
    Plain,
    /// It depends on its neighbours.
    Odd,
}

const KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Bad; 256];
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() {
            kinds[byte] = Kind::Plain;
        }
        byte += 1;
    }
    let mut others = b"/-_~!$&'()*+,=:@".as_slice();
    while let [other, rest @ ..] = others {
        kinds[*other as usize] = Kind::Plain;
        others = rest;
    }
    kinds[b'.' as usize] = Kind::Odd;
    kinds[b'%' as usize] = Kind::Odd;
    kinds
};

/// Whether the dots and escapes of a segment hide nothing.
fn is_plain_segment(segment: &str) -> bool {
    !matches!(segment, "." | "..") && (!segment.contains('%') || has_plain_escapes(segment))
}

/// Whether the escapes of a segment are whole, and hide nothing that is not plain.
fn has_plain_escapes(segment: &str) -> bool {
    let mut pieces = segment.split('%').skip(1);
    let are_whole = pieces.all(|piece| {
        let digits = piece.as_bytes();
        digits.len() >= 2 && digits[..2].iter().all(u8::is_ascii_hexdigit)
    });
    are_whole
        && !decoded(segment).any(|byte| byte.is_ascii_control() || b"/\\".contains(&byte))
        && !decoded(segment).eq(*b".")
        && !decoded(segment).eq(*b"..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, Uri};
    use proptest::prelude::*;

    const GOOD_HOST: (&str, &str) = ("host", "127.0.0.1:8080");

    fn head(uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::new(());
        *request.uri_mut() = uri.parse().unwrap();
        for (name, value) in fields {
            request.headers_mut().append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        request.into_parts().0
    }

    fn checked(head: &Parts) -> Result<Target, Rejection> {
        let settings = Settings {
            hosts: vec!["Proxy.Internal".to_owned(), "gateway:8080".to_owned()],
            allowed_origins: vec!["https://app.example".to_owned()],
        };
        check(head, Seen::of(&head.headers), &settings)
    }

    fn asks_for(head: &Parts, is_live: bool) -> Result<bool, Rejection> {
        asks_for_websocket(head, Seen::of(&head.headers), is_live)
    }

    /// The verdict on a good request with these fields added.
    fn with(fields: &[(&str, &str)]) -> Result<(), Rejection> {
        let fields = [&[GOOD_HOST], fields].concat();
        checked(&head("/x", &fields)).map(drop)
    }

    #[test]
    fn a_good_head_gives_its_path_and_query_as_sent() {
        let target = checked(&head("/~a/V3/x%20y/?q=%zz;a//..&b", &[GOOD_HOST])).unwrap();
        assert_eq!(target.path(), "/~a/V3/x%20y/");
        assert_eq!(target.query(), Some("q=%zz;a//..&b"));
    }

    #[test]
    fn what_is_forwarded_loses_the_naming_prefix_alone() {
        for (target, path, forwarded) in [
            ("/A/b?q=1", "/A/b", "/A/b?q=1"),
            ("/~x/A/b?q=1", "/A/b", "/A/b?q=1"),
            ("/~x/A/b", "/A/b", "/A/b"),
            ("/~x?q={1}", "/", "/?q={1}"),
            ("/~x/A?", "/A", "/A?"),
        ] {
            let checked = checked(&head(target, &[GOOD_HOST])).unwrap();
            assert_eq!(checked.forwarded(path).as_str(), forwarded);
        }
    }

    #[test]
    fn http_1_1_takes_exactly_one_well_formed_host() {
        for hosts in [
            &[][..],
            &["localhost", "localhost"],
            &[""],
            &[":8080"],
            &["localhost:"],
            &["localhost:x"],
            &["localhost:+80"],
            &["localhost:65536"],
            &["localhost:80:80"],
            &["user@localhost"],
            &["localhost, localhost"],
            &["localhost/x"],
            &["loc\u{e4}lhost"],
            &["[::1"],
            &["::1"],
            &["[::1]x"],
            &["[localhost]"],
            &["a]:80"],
        ] {
            let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            let verdict = checked(&head("/x", &fields));
            assert_eq!(verdict, Err(Rejection::Host), "{hosts:?}");
        }
        let mut old = head("/x", &[]);
        old.version = Version::HTTP_10;
        assert!(checked(&old).is_ok());
    }

    #[test]
    fn only_names_that_cannot_be_rebound_or_are_configured_are_served() {
        for (host, expected) in [
            ("127.0.0.1", Ok(())),
            ("10.1.2.3:8080", Ok(())),
            ("[::1]:8080", Ok(())),
            ("[::1]", Ok(())),
            ("LocalHost:1", Ok(())),
            ("API.telematicssdk.com", Ok(())),
            ("proxy.internal", Ok(())),
            ("proxy.internal:9999", Ok(())),
            ("Gateway:8080", Ok(())),
            ("gateway:8081", Err(Rejection::Misdirected)),
            ("gateway", Err(Rejection::Misdirected)),
            ("telematicssdk.com", Err(Rejection::Misdirected)),
            (".telematicssdk.com", Err(Rejection::Misdirected)),
            ("eviltelematicssdk.com", Err(Rejection::Misdirected)),
            (
                "api.telematicssdk.com.evil.example",
                Err(Rejection::Misdirected),
            ),
            ("127.0.0.1.evil.example", Err(Rejection::Misdirected)),
            ("127.1", Err(Rejection::Misdirected)),
        ] {
            let by_host = checked(&head("/x", &[("host", host)])).map(drop);
            assert_eq!(by_host, expected, "{host}");
            let absolute = head(&format!("http://{host}/x"), &[GOOD_HOST]);
            assert_eq!(checked(&absolute).map(drop), expected, "{host}");
        }
    }

    #[test]
    fn a_good_target_does_not_excuse_a_bad_host_nor_the_other_way_round() {
        let bad_host = head("http://localhost/x", &[("host", "evil.example")]);
        assert_eq!(checked(&bad_host), Err(Rejection::Misdirected));
        let credentials = head("http://user:x@localhost/x", &[GOOD_HOST]);
        assert_eq!(checked(&credentials), Err(Rejection::Host));
        let authority = head("evil.example:443", &[GOOD_HOST]);
        assert_eq!(checked(&authority), Err(Rejection::Misdirected));
        let authority = head("localhost:443", &[GOOD_HOST]);
        assert_eq!(checked(&authority), Err(Rejection::Path));
    }

    #[test]
    fn content_length_is_one_plain_number_below_2_to_the_63() {
        for length in ["0", "1", "10", "9223372036854775807"] {
            assert_eq!(with(&[("content-length", length)]), Ok(()), "{length}");
        }
        for length in [
            "",
            "00",
            "001",
            "+1",
            "-1",
            "0x1",
            "1 ",
            "1, 1",
            "1,2",
            "\u{b9}",
            "9223372036854775808",
            "99999999999999999999999",
        ] {
            let verdict = with(&[("content-length", length)]);
            assert_eq!(verdict, Err(Rejection::Framing), "{length:?}");
        }
        assert_eq!(
            with(&[("content-length", "1"), ("content-length", "2")]),
            Err(Rejection::Framing)
        );
    }

    #[test]
    fn transfer_encoding_is_chunked_once_and_alone() {
        for coding in ["chunked", "Chunked"] {
            assert_eq!(with(&[("transfer-encoding", coding)]), Ok(()));
        }
        for codings in [
            &["gzip, chunked"][..],
            &["chunked, chunked"],
            &[",chunked"],
            &["chunked,"],
            &["chunked;x"],
            &["identity"],
            &[""],
            &["chunked", "chunked"],
            &["gzip", "chunked"],
        ] {
            let fields: Vec<_> = codings.iter().map(|c| ("transfer-encoding", *c)).collect();
            assert_eq!(with(&fields), Err(Rejection::Framing), "{codings:?}");
        }
        assert_eq!(
            with(&[("transfer-encoding", "chunked"), ("content-length", "1")]),
            Err(Rejection::Framing)
        );
        let mut old = head("/x", &[GOOD_HOST, ("transfer-encoding", "chunked")]);
        old.version = Version::HTTP_10;
        assert_eq!(checked(&old), Err(Rejection::Framing));
    }

    #[test]
    fn a_path_that_servers_could_read_differently_is_refused() {
        for path in [
            "/.",
            "/..",
            "/a/./b",
            "/a/../b",
            "/a/..",
            "/%2e",
            "/%2E%2e/b",
            "/a/.%2e/b",
            "/a/%2e./b",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a%00b",
            "/a%0ab",
            "/a%0D",
            "/a%1fb",
            "/a%7fb",
            "/a\\b",
            "//a",
            "/a//b",
            "/a//",
            "/a;b",
            "/a;b=c/d",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%2/b",
            "/a%%2541",
            "/\u{e4}",
            "/a\"b",
            "/a{b}",
            "/a|b",
            "*",
        ] {
            assert!(!is_plain_path(path), "{path}");
            // The `http` crate refuses some of these itself.
            if let Ok(uri) = path.parse() {
                let mut request = head("/", &[GOOD_HOST]);
                request.uri = uri;
                assert_eq!(checked(&request), Err(Rejection::Path), "{path}");
            }
        }
        let query = head("/x?\u{e4}", &[GOOD_HOST]);
        assert_eq!(checked(&query), Err(Rejection::Path));
        for path in [
            "/", "/...", "/a.b/", "/.a", "/a%20b", "/%C3%A4", "/%7Ex", "/a@b:c,d",
        ] {
            assert!(checked(&head(path, &[GOOD_HOST])).is_ok(), "{path}");
        }
    }

    #[test]
    fn underscores_cannot_disguise_a_field_of_ours() {
        for name in [
            "Device_Token",
            "DeviceToken_",
            "Instance_Id",
            "instance_key",
            "_Authorization",
            "X_Damoov-Proxy_Key",
            "content_length",
            "Transfer_Encoding",
            "HOST_",
            "Proxy_Authorization",
            "Cookie_",
            "X_Forwarded_For",
            "X-Forwarded_Whatever",
            "X_Real_IP",
            "User_Device_Token",
        ] {
            assert_eq!(with(&[(name, "x")]), Err(Rejection::FieldName), "{name}");
        }
        for name in [
            "x_own",
            "device_tokens",
            "hosts_",
            "DeviceToken",
            "X-Forwarded-For",
        ] {
            assert_eq!(with(&[(name, "x")]), Ok(()), "{name}");
        }
    }

    #[test]
    fn only_the_expectation_to_continue_is_met() {
        assert_eq!(with(&[("expect", "100-Continue")]), Ok(()));
        for value in ["", "200-ok", "100-continue, x", "100-continue=1"] {
            assert_eq!(with(&[("expect", value)]), Err(Rejection::Expectation));
        }
        let twice = [("expect", "100-continue"), ("expect", "x")];
        assert_eq!(with(&twice), Err(Rejection::Expectation));
    }

    #[test]
    fn methods_beyond_the_common_ones_are_unknown() {
        for (method, expected) in [
            ("GET", Ok(())),
            ("HEAD", Ok(())),
            ("POST", Ok(())),
            ("PUT", Ok(())),
            ("PATCH", Ok(())),
            ("DELETE", Ok(())),
            ("OPTIONS", Ok(())),
            ("TRACE", Err(Rejection::Method)),
            ("CONNECT", Err(Rejection::Method)),
            ("get", Err(Rejection::Method)),
            ("BREW", Err(Rejection::Method)),
        ] {
            let mut request = head("/x", &[GOOD_HOST]);
            request.method = method.parse().unwrap();
            assert_eq!(checked(&request).map(drop), expected, "{method}");
        }
    }

    /// A good handshake but for the fields named here, which are as given instead.
    fn handshake(instead: &[(&'static str, &'static str)]) -> Parts {
        let mut fields = vec![
            GOOD_HOST,
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
        ];
        fields.retain(|(name, _)| instead.iter().all(|(other, _)| other != name));
        fields.extend(instead.iter().filter(|(_, value)| !value.is_empty()));
        head("/x", &fields)
    }

    #[test]
    fn an_upgrade_is_ignored_unless_it_asks_for_websocket_which_one_route_has() {
        for value in ["h2c", "TLS/1.0", "websockets"] {
            let head = handshake(&[("upgrade", value)]);
            assert_eq!(asks_for(&head, true), Ok(false), "{value}");
            assert_eq!(asks_for(&head, false), Ok(false), "{value}");
        }
        for value in ["websocket", "WebSocket", "h2c, websocket/13"] {
            let head = handshake(&[("upgrade", value)]);
            assert_eq!(asks_for(&head, true), Ok(true), "{value}");
            let elsewhere = asks_for(&head, false);
            assert_eq!(elsewhere, Err(Rejection::Upgrade), "{value}");
        }
        let lines = handshake(&[("upgrade", "h2c"), ("upgrade", "websocket")]);
        assert_eq!(asks_for(&lines, true), Ok(true));
    }

    #[test]
    fn a_handshake_that_is_not_rfc_6455s_is_refused() {
        let bad = |head: &Parts| assert_eq!(asks_for(head, true), Err(Rejection::Handshake));
        for instead in [
            &[("connection", "")][..],
            &[("connection", "close")],
            &[("sec-websocket-key", "")],
            &[("sec-websocket-key", "short")],
            &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ")],
            &[
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ],
            &[("sec-websocket-version", "")],
            &[("sec-websocket-version", "8")],
            &[
                ("sec-websocket-version", "13"),
                ("sec-websocket-version", "13"),
            ],
            &[("content-length", "1")],
            &[("transfer-encoding", "chunked")],
        ] {
            bad(&handshake(instead));
        }
        let mut post = handshake(&[]);
        post.method = Method::POST;
        bad(&post);
        let mut old = handshake(&[]);
        old.version = Version::HTTP_10;
        bad(&old);
        assert_eq!(
            asks_for(&handshake(&[("content-length", "0")]), true),
            Ok(true)
        );
    }

    #[test]
    fn a_page_may_call_only_from_an_allowed_origin() {
        let allowed = ("origin", "https://app.example");
        for fields in [
            &[allowed][..],
            &[allowed, ("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "none")],
            &[("origin", "HTTPS://App.Example")],
            &[("origin", "https://app.example:443")],
        ] {
            assert_eq!(with(fields), Ok(()), "{fields:?}");
        }
        for fields in [
            &[("origin", "https://evil.example")][..],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "https://app.example.evil")],
            &[("origin", "http://app.example")],
            &[("origin", "https://app.example:80")],
            &[("origin", "https://app.example:8443")],
            &[("origin", "https://app.example/")],
            &[("origin", "app.example")],
            &[("origin", "*")],
            &[allowed, allowed],
            &[allowed, ("origin", "https://evil.example")],
            &[("origin", "null"), ("sec-fetch-site", "none")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none"), ("sec-fetch-site", "same-site")],
        ] {
            assert_eq!(with(fields), Err(Rejection::Origin), "{fields:?}");
        }
    }

    #[test]
    fn the_limits_are_8_kib_of_target_and_64_fields() {
        let target = |length: usize| format!("/{}", "x".repeat(length - 1));
        assert!(checked(&head(&target(8192), &[GOOD_HOST])).is_ok());
        let verdict = checked(&head(&target(8193), &[GOOD_HOST]));
        assert_eq!(verdict, Err(Rejection::TargetTooLong));
        assert_eq!(with(&[("x", "y"); 63]), Ok(()));
        assert_eq!(with(&[("x", "y"); 64]), Err(Rejection::TooManyFields));
    }

    proptest! {
        #[test]
        fn a_path_that_passes_has_no_dot_segment_once_decoded(
            path in proptest::collection::vec(
                proptest::sample::select(vec![
                    "/", ".", "%2e", "%2E", "%2f", "%5c", "%25", "%", "2e", "a", "\\", ";", "~",
                ]),
                0..12,
            ),
        ) {
            let path = format!("/{}", path.concat());
            if let Ok(target) = checked(&head(&path, &[GOOD_HOST])) {
                let plain: Vec<u8> = decoded(target.path()).collect();
                let mut segments = plain.split(|byte| *byte == b'/');
                prop_assert!(segments.all(|segment| segment != b"." && segment != b".."));
                prop_assert_eq!(target.path().matches('/').count(),
                    plain.iter().filter(|byte| **byte == b'/').count());
            }
        }

        #[test]
        fn no_head_makes_the_checks_panic(
            path in "/[\\x21-\\x7e]{0,30}",
            query in "[\\x21-\\x7e]{0,30}",
            name in "[a-z_-]{1,20}",
            host in "[\\x20-\\x7e\u{e4}]{0,20}",
            value in "[\\x20-\\x7e\u{e4}]{0,20}",
        ) {
            if let Ok(uri) = format!("{path}?{query}").parse::<Uri>() {
                let mut request = head("/", &[("host", &host), (&name, &value)]);
                request.uri = uri.clone();
                let _ = checked(&request);
                // A good head around it, so that the target is reached.
                let mut request = head("/", &[GOOD_HOST]);
                request.uri = uri;
                if let Ok(target) = checked(&request) {
                    target.forwarded("/");
                }
            }
        }
    }
}

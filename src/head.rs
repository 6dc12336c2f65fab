//! The checks of a request head before any route is chosen (RFC 9110, RFC 9112). Pure; knows
//! neither routes nor principals.
//!
//! hyper 1.12 is a lenient parser. Its server has already refused, without an answer of ours: folded
//! lines, bare CR, NUL, spaces around and bytes beyond ASCII in field names; a Content-Length that
//! is not all digits or differs from another; Transfer-Encoding that does not end in `chunked` or
//! comes with HTTP/1.0; more fields or a larger head than it was told to take. It has normalised:
//! equal Content-Lengths are one (the server tells that there were several), a Content-Length beside
//! Transfer-Encoding is gone and the connection will be closed, a fragment is cut off the target.
//! Left to us is everything below; what hyper refuses too is checked again if that costs nothing.

mod seen;

pub use seen::Seen;
pub(crate) use seen::reads_like_ours;

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Version};

use crate::headers;
use crate::percent::decoded;

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
    #[error("a field name with `_` can be confused with one that the proxy sets or checks")]
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
    #[error("path and query may be at most 8 KiB long")]
    TargetTooLong,
    /// `head_too_large`, 431.
    #[error("a request may have at most 64 header fields")]
    TooManyFields,
}

/// Checks a request head that has `seen`. Allocates nothing. Framing comes first: if it is in
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
    /// without a naming prefix. Allocates only if there was a prefix.
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
/// if something precedes it.
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

/// A browser says from which page it calls; if it says only how far away that page is, the user
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
pub(crate) fn allowed_origin<'h>(
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
/// if `is_live` says that its route has it. Asked once the route is known.
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
mod tests;

//! Pure edits of header maps: hop-by-hop fields (RFC 9110 §7.6.1), Via, authorization; and whether
//! a map leaves no doubt about framing. Everything happens in place. Order matters in one point:
//! what is ours is set after the map was cleaned, so that no `Connection` of a caller can take it
//! away again.

use http::Version;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// What becomes of the caller's own Authorization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// Removed: the proxy attaches its own, or none.
    Dropped,
    /// Sent on, on `passthrough` routes.
    Kept,
}

/// What the fields of a message say of where its content ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Neither a length nor a coding: the content of an answer ends with its connection, and a
    /// request has none (RFC 9112 §6.3).
    CloseDelimited,
    /// After this many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
}

/// Among the extensions of a request whose head has several Content-Lengths, of which only the first
/// is shown.
#[derive(Clone, Copy, Debug)]
pub struct SeveralLengths;

/// What `Proxy-Status` (RFC 9209) tells about an answer of the API that is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It is the answer to the request as first sent.
    None,
    /// The request waited for a renewal before it was sent.
    Before,
    /// The request was sent twice, with newer credentials the second time.
    Replayed,
}

/// Fields that end at each hop. Those a message's own `Connection` nominates come on top.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// What a caller may send and the API never sees. Host, framing and Expect are set anew for each
/// attempt, credentials are the proxy's own, and the caller's address is not passed on.
fn is_not_for_upstream(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "content-length"
            | "expect"
            | "cookie"
            | "proxy-authorization"
            | "x-damoov-proxy-key"
            | "forwarded"
            | "x-real-ip"
            | "instanceid"
            | "instancekey"
    ) || name.starts_with("x-forwarded-")
}

/// Whether a field of this name, in lower case, goes upstream as the caller wrote it, whatever the
/// route. Authorization is forwarded on some routes only.
pub fn is_forwarded(name: &str) -> bool {
    !is_hop_by_hop(name) && !is_not_for_upstream(name)
}

/// Whether the proxy takes something from a field of this name, in lower case, that does not go
/// upstream as it is; or expects it of clients of the API, and sends its own.
pub fn is_understood(name: &str) -> bool {
    matches!(
        name,
        "instanceid" | "instancekey" | "x-damoov-proxy-key" | "proxy-authorization"
    )
}

const INSTANCE_ID: HeaderName = HeaderName::from_static("instanceid");
const INSTANCE_KEY: HeaderName = HeaderName::from_static("instancekey");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const VIA: HeaderValue = HeaderValue::from_static("1.1 damoov-proxy");

/// Makes a caller's fields fit to be sent upstream; DeviceToken and UserDeviceToken belong to the
/// API and stay.
pub fn clean_request(headers: &mut HeaderMap, authorization: Authorization) {
    remove_nominated(headers);
    let drops_authorization = authorization == Authorization::Dropped;
    remove_where(headers, |name| {
        is_hop_by_hop(name)
            || is_not_for_upstream(name)
            || (drops_authorization && name == "authorization")
    });
    headers.append(header::VIA, VIA);
}

/// Makes the fields of an upstream answer fit for the caller. Content-Length stays: it is all that
/// an answer to HEAD says about its content. Which pages may read it is not the API's to say.
pub fn clean_answer(headers: &mut HeaderMap, renewal: Renewal) {
    remove_nominated(headers);
    remove_where(headers, |name| {
        is_hop_by_hop(name) || name == "set-cookie" || name.starts_with("access-control-")
    });
    headers.append(header::VIA, VIA);
    set_proxy_status(headers, renewal);
}

/// Sets `Proxy-Status`.
pub fn set_proxy_status(headers: &mut HeaderMap, renewal: Renewal) {
    headers.insert(
        PROXY_STATUS,
        HeaderValue::from_static(match renewal {
            Renewal::None => "damoov-proxy",
            Renewal::Before => "damoov-proxy; details=\"renewed\"",
            Renewal::Replayed => "damoov-proxy; details=\"replayed\"",
        }),
    );
}

/// Sets the JWT of a request that was cleaned. `bearer` is the whole value, marked sensitive.
pub fn attach_authorization(headers: &mut HeaderMap, bearer: HeaderValue) {
    headers.insert(header::AUTHORIZATION, bearer);
}

/// Whether WebSocket is among the protocols that `Upgrade` offers or has chosen, in any version.
pub fn names_websocket(headers: &HeaderMap) -> bool {
    list(headers, &header::UPGRADE).any(|protocol| {
        let name_end = protocol.iter().position(|byte| *byte == b'/');
        let name = &protocol[..name_end.unwrap_or(protocol.len())];
        name.trim_ascii().eq_ignore_ascii_case(b"websocket")
    })
}

/// Whether `Connection` says that `Upgrade` is meant for this hop.
pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    list(headers, &header::CONNECTION).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// Whether `Connection` says that the connection ends after this message.
pub fn wants_close(headers: &HeaderMap) -> bool {
    list(headers, &header::CONNECTION).any(|option| option.eq_ignore_ascii_case(b"close"))
}

/// Sets what both halves of a WebSocket handshake say (RFC 6455 §4), on a head that was cleaned.
pub fn attach_upgrade(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// Sets what an `instance` route asks for on a request that was cleaned. The `key` is marked
/// sensitive.
pub fn attach_instance(headers: &mut HeaderMap, id: HeaderValue, key: HeaderValue) {
    headers.insert(INSTANCE_ID, id);
    headers.insert(INSTANCE_KEY, key);
}

/// Sets the instance that a login is about.
pub fn attach_instance_id(headers: &mut HeaderMap, id: HeaderValue) {
    headers.insert(INSTANCE_ID, id);
}

/// The bearer token of a request (RFC 6750 §2.1); an empty one if there are several
/// authorizations, because it is not defined which one counts.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut lines = lines(headers, &header::AUTHORIZATION);
    let line = lines.next()?;
    if lines.next().is_some() {
        return Some("");
    }
    let (scheme, token) = line.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_ascii())
}

/// What the fields say of where the content ends; `None` if another reader could read it differently
/// (RFC 9112 §6): at most one plain Content-Length, or `chunked` once, never both.
pub fn framing(headers: &HeaderMap, version: Version) -> Option<Framing> {
    let mut lengths = lines(headers, &header::CONTENT_LENGTH);
    let mut codings = lines(headers, &header::TRANSFER_ENCODING);
    let framing = match (lengths.next(), codings.next()) {
        (None, None) => Framing::CloseDelimited,
        (Some(length), None) => Framing::Length(plain_length(length.as_bytes())?),
        (None, Some(coding)) => {
            let is_plain =
                version == Version::HTTP_11 && coding.as_bytes().eq_ignore_ascii_case(b"chunked");
            is_plain.then_some(Framing::Chunked)?
        }
        (Some(_), Some(_)) => return None,
    };
    (lengths.next().is_none() && codings.next().is_none()).then_some(framing)
}

/// Whether every reader finds the same end of the content.
pub fn framing_is_plain(headers: &HeaderMap, version: Version) -> bool {
    framing(headers, version).is_some()
}

/// The values of all lines of a field. A head has few: to look at each name takes less than to hash
/// the one.
pub fn lines<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'h HeaderValue> {
    let named = headers.iter().filter(move |(known, _)| *known == name);
    named.map(|(_, value)| value)
}

/// The elements of a field that is a list, on however many lines.
pub fn list<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    lines(headers, name).flat_map(|line| {
        line.as_bytes()
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
    })
}

/// Digits without a leading zero, below 2^63.
fn plain_length(text: &[u8]) -> Option<u64> {
    let is_plain = matches!(text, [b'0'] | [b'1'..=b'9', ..]);
    let mut digits = text.iter();
    let length = digits.try_fold(0_i64, |length, digit| match digit {
        b'0'..=b'9' => length.checked_mul(10)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    });
    length.filter(|_| is_plain)?.try_into().ok()
}

/// Removes every field whose name `unwanted` says so of: one look at each name, not one look-up for
/// each name that might be there.
fn remove_where(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let find = |headers: &HeaderMap| {
        let mut names = headers.keys();
        names.find(|name| unwanted(name.as_str())).cloned()
    };
    while let Some(name) = find(headers) {
        headers.remove(name);
    }
}

/// `Connection` itself stays, whatever it says: its later lines are still to be read.
fn remove_nominated(headers: &mut HeaderMap) {
    // What a connection says of itself names no field that would stay otherwise.
    let is_usual = |option: &[u8]| {
        [&b"keep-alive"[..], b"close"]
            .iter()
            .any(|usual| option.eq_ignore_ascii_case(usual))
    };
    if list(headers, &header::CONNECTION).all(is_usual) {
        return;
    }
    let mut lines = 0;
    while let Some(line) = headers.get_all(header::CONNECTION).iter().nth(lines) {
        // A clone shares the bytes; it lets the map change while the line is read.
        let line = line.clone();
        for name in nominated(&line) {
            headers.remove(name);
        }
        lines += 1;
    }
}

/// The fields that one line of `Connection` nominates. What is no field name finds no field.
fn nominated(line: &HeaderValue) -> impl Iterator<Item = &str> {
    line.as_bytes()
        .split(|byte| *byte == b',')
        .filter_map(|name| str::from_utf8(name.trim_ascii()).ok())
        .filter(|name| !name.eq_ignore_ascii_case("connection"))
}

#[cfg(test)]
mod tests;

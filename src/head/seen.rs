//! One look at the names of a head's fields, before any of them is asked for.

use http::HeaderMap;

/// Which of the fields that the path asks about a request has: most have none of them, and a look at
/// each name there is costs less than a look-up of each that might be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Content-Length or Transfer-Encoding.
    pub(crate) framing: bool,
    /// Origin or Sec-Fetch-Site.
    pub(crate) origin: bool,
    /// Expect.
    pub(crate) expectation: bool,
    /// Upgrade.
    pub(crate) upgrade: bool,
    /// Authorization.
    pub(crate) authorization: bool,
    /// Traceparent.
    pub(crate) trace: bool,
    /// A name that reads like one that the proxy sets or checks.
    pub(crate) disguise: bool,
}

impl Seen {
    /// Looks once at each name.
    pub fn of(headers: &HeaderMap) -> Seen {
        let mut seen = Seen {
            framing: false,
            origin: false,
            expectation: false,
            upgrade: false,
            authorization: false,
            trace: false,
            disguise: false,
        };
        for name in headers.keys() {
            match name.as_str() {
                "content-length" | "transfer-encoding" => seen.framing = true,
                "origin" | "sec-fetch-site" => seen.origin = true,
                "expect" => seen.expectation = true,
                "upgrade" => seen.upgrade = true,
                "authorization" => seen.authorization = true,
                "traceparent" => seen.trace = true,
                other => seen.disguise |= reads_like_ours(other),
            }
        }
        seen
    }
}

/// Servers behind CGI-like interfaces read `_` as `-`, others drop it: such a name could pass our
/// checks as a stranger and arrive as one of these.
pub(crate) fn reads_like_ours(name: &str) -> bool {
    const GUARDED: [&str; 20] = [
        "authorization",
        "connection",
        "contentlength",
        "cookie",
        "devicetoken",
        "expect",
        "forwarded",
        "host",
        "http2settings",
        "instanceid",
        "instancekey",
        "keepalive",
        "proxyauthorization",
        "proxyconnection",
        "te",
        "trailer",
        "transferencoding",
        "upgrade",
        "userdevicetoken",
        "xdamoovproxykey",
    ];
    // X-Forwarded-* is a family, and X-Real-IP travels with it.
    const GUARDED_FAMILIES: [&str; 2] = ["xforwarded", "xrealip"];
    let bare = || name.bytes().filter(|b| !b"-_".contains(b));
    name.contains('_')
        && (GUARDED.iter().any(|ours| bare().eq(ours.bytes()))
            || GUARDED_FAMILIES
                .iter()
                .any(|ours| bare().take(ours.len()).eq(ours.bytes())))
}

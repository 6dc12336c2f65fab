//! Connections to the API's hosts: names, TLS, deadlines. Knows no tokens. Callers' requests go
//! through the [`pool`] of their worker, calls to the Auth endpoints through a pool of their own
//! (`calls`), a WebSocket through a connection of its own ([`switch`]).
//! HTTP/1.1 is spoken, alone: one connection carries one exchange, so that no slow reader uses up the
//! flow control of others, no limit of streams caps a worker, no GOAWAY has to be interpreted, and a
//! connection's age follows DNS. It is spoken in `http1`, because a client with tasks of its own costs
//! each request two more hops; WebSocket handshakes are hyper's.

mod calls;
mod connect;
mod dial;
mod examination;
mod failure;
#[cfg(test)]
mod fixture;
mod hosts;
mod http1;
pub mod pool;
mod stream;
pub mod switch;
mod target;
mod trust;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::{InvalidUri, PathAndQuery};
use http::{HeaderMap, Method};
use rustls::pki_types::InvalidDnsNameError;

pub(crate) use self::calls::{CallFailure, Calls};
pub use self::dial::Dial;
#[cfg(any(test, feature = "internals"))]
pub use self::dial::{Dialed, Network};
pub use self::examination::{Examination, Step};
pub(crate) use self::failure::Condition;
pub use self::failure::Failed;
pub use self::hosts::Hosts;
pub use self::target::{Target, Targets};

/// A connection carries no request after this, whether it was idle or busy until then: the name of
/// its host is asked for again, and a change in DNS is followed.
const MAX_AGE: Duration = Duration::from_secs(300);

/// Idle connections are looked at four times in this: one that is due stays open for at most a quarter
/// of it longer.
const SWEEP: Duration = Duration::from_secs(8);

/// Part of the configuration: `[upstream]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The look-up of the name, TCP and TLS, over all its addresses together.
    pub connect_timeout: Duration,
    /// From the last content byte written to the answer's head, each attempt.
    pub response_timeout: Duration,
    /// Between two pieces of an answer, and of what a caller reads of it.
    pub stall_timeout: Duration,
    /// An idle connection is closed after this.
    pub idle_timeout: Duration,
    /// Connections to one host, over all workers; at least the number of workers.
    pub max_connections: usize,
    /// PEM certificates trusted besides the platform's.
    pub ca_file: Option<PathBuf>,
    /// Where hosts are really reached: tests, private gateways.
    pub redirects: Redirects,
}

/// Which hosts are reached elsewhere. By default none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirects {
    /// Keyed by lower-case public name.
    pub hosts: HashMap<String, Redirect>,
    /// Every host that is not among these.
    pub all_others: Option<Redirect>,
}

impl Redirects {
    /// Where `host`, a public name in lower case, is reached instead; `None` if it is not redirected.
    pub fn of(&self, host: &str) -> Option<&Redirect> {
        self.hosts.get(host).or(self.all_others.as_ref())
    }
}

/// Redirects of these hosts alone.
impl<const N: usize> From<[(String, Redirect); N]> for Redirects {
    fn from(hosts: [(String, Redirect); N]) -> Redirects {
        Redirects {
            hosts: hosts.into(),
            all_others: None,
        }
    }
}

/// Where a host is reached instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// `host` or `host:port`; also the Host that is sent.
    pub authority: String,
}

/// Plain text or TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Only where `[upstream]` says so.
    Http,
    /// With verified certificates, always.
    Https,
}

/// As it stands in a URL.
impl std::fmt::Display for Scheme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        })
    }
}

/// A request as it goes upstream, except for what the connection decides: Host and framing are set
/// anew for every attempt.
#[derive(Clone, Debug)]
pub struct Head {
    /// As the caller sent it.
    pub method: Method,
    /// Checked; as the caller wrote it, without a naming prefix.
    pub target: PathAndQuery,
    /// Cleaned: neither hop-by-hop fields nor Host, Content-Length, Transfer-Encoding.
    pub headers: HeaderMap,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// `ca_file` cannot be read, or holds no certificate.
    #[error("the certificates in {path} cannot be used", path = .path.display())]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// A certificate that no signature can be checked against.
    #[error("a certificate in {path} cannot be used", path = .path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// A host or redirect is no `host` or `host:port`.
    #[error("{0:?} is not a host, with or without a port")]
    Authority(String, #[source] InvalidUri),
    /// A host cannot stand in a certificate.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    Name(String, #[source] InvalidDnsNameError),
}

/// Why a request got no answer from upstream.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection became free in time.
    #[error("all connections to the host are in use")]
    Busy,
    /// Name, TCP or TLS took too long; and what failed before, if anything did.
    #[error("connecting took too long")]
    ConnectTimeout(#[source] Option<io::Error>),
    /// Name, TCP or TLS failed.
    #[error("the host cannot be reached")]
    Unreachable(#[source] io::Error),
    /// The head of the answer did not come in time.
    #[error("the answer did not come in time")]
    ResponseTimeout,
    /// The connection broke before an answer, or what came is not HTTP.
    #[error("there was no complete answer")]
    Broken(#[source] Broken),
    /// Where the content of the answer ends is not beyond doubt.
    #[error("the answer's framing is ambiguous")]
    Framing,
    /// Too long, or no JSON, where what it says must be known.
    #[error("the answer cannot be read")]
    Unreadable,
    /// A 101 that was not asked for.
    #[error("the host switched protocols without being asked")]
    Switched,
}

impl Error {
    /// Whether no byte of the request was written to a socket, so that it can safely be sent again.
    pub fn is_unsent(&self) -> bool {
        match self {
            Error::Busy | Error::ConnectTimeout(_) | Error::Unreachable(_) => true,
            Error::ResponseTimeout
            | Error::Broken(_)
            | Error::Framing
            | Error::Unreadable
            | Error::Switched => false,
        }
    }
}

/// What broke, before an answer or in the middle of it.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The connection ended before the answer did.
    #[error("the connection ended early")]
    Cut,
    /// Reading failed.
    #[error("reading failed")]
    Read(#[source] io::Error),
    /// Writing failed.
    #[error("writing failed")]
    Write(#[source] io::Error),
    /// The API was still for `stall_timeout`.
    #[error("the answer stopped")]
    Stalled,
    /// It was still, and another request needed the connection.
    #[error("the answer gave way to another request")]
    GaveWay,
    /// The request's own content failed, or is not as long as announced.
    #[error("the content of the request is incomplete")]
    Content,
    /// The head is not HTTP's.
    #[error("the head of the answer is malformed")]
    Head(#[source] httparse::Error),
    /// The head, or all interim answers before it, are longer than 64 KiB.
    #[error("the head of the answer is too long")]
    HeadTooLong,
    /// The chunks of the content are malformed, or have 16 KiB of extensions and trailers.
    #[error("the chunks of the answer are malformed")]
    Chunks,
    /// It is a frame of HTTP/2: the host speaks nothing else.
    #[error("the host speaks HTTP/2; the proxy speaks HTTP/1.1 only")]
    Http2,
    /// What hyper says of handshakes.
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
}

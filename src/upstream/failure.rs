//! What is said of a request that got no answer: to its caller, which host it was and why; in the log,
//! when a host begins to fail, and when that is over. Knows no requests.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use rustls::{AlertDescription, CertificateError, PeerMisbehaved};

use super::{Broken, Error};
use crate::stalls::Side;
use crate::telemetry::episode::{Chain, Episode};
use crate::telemetry::seldom::Seldom;

/// The log reports a host that fails now and then once, until it has not failed for this long.
const QUIET: Duration = Duration::from_secs(10);

/// Why a request got no answer, and from whom. Its sentence is for callers.
#[derive(Debug)]
pub struct Failed {
    /// `host` or `host:port`, as it was dialed.
    host: Box<str>,
    /// Why.
    pub error: Error,
}

/// How the connections to one host fare, over all workers.
#[derive(Debug)]
pub(crate) struct Condition {
    /// Its public name.
    name: Box<str>,
    /// `host` or `host:port`, as it is dialed.
    dialed: Box<str>,
    /// Connections of requests that are open, counted by the workers' pools.
    pub(super) open: AtomicU64,
    connecting: Episode,
    answering: Episode,
    full: Episode,
    giving_way: Seldom,
}

/// What keeps a host from being reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectFailure {
    /// Its name cannot be resolved.
    Name,
    /// No process listens there.
    Refused,
    /// It took too long.
    Late,
    /// Its certificate is not signed by a trusted authority.
    Untrusted,
    /// Its certificate has expired, or is not valid yet.
    Expired,
    /// Its certificate is another host's.
    Foreign,
    /// It offers HTTP/2 alone.
    Http2,
    /// Something else about TLS.
    Tls,
    /// The network.
    Network,
}

/// The name of a host cannot be resolved.
#[derive(Debug, thiserror::Error)]
#[error("the name cannot be resolved")]
pub(super) struct Unresolved(#[source] pub(super) io::Error);

impl Failed {
    /// Of a host that was dialed as `host`.
    pub fn at(host: &str, error: Error) -> Failed {
        Failed {
            host: host.into(),
            error,
        }
    }
}

impl Failed {
    /// What an operator can do about it.
    pub fn advice(&self) -> &'static str {
        match &self.error {
            Error::Unreachable(cause) => ConnectFailure::of(cause).advice(),
            Error::ConnectTimeout(_) => ConnectFailure::Late.advice(),
            Error::Broken(Broken::Http2) => ConnectFailure::Http2.advice(),
            Error::Busy
            | Error::ResponseTimeout
            | Error::Broken(_)
            | Error::Framing
            | Error::Unreadable
            | Error::Switched => {
                "ask Damoov, or whoever runs the gateway in between, whether the host is well"
            }
        }
    }
}

impl StdError for Failed {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failed { host, error } = self;
        match error {
            Error::Busy => write!(f, "all connections to {host} are in use"),
            Error::ConnectTimeout(_) => write!(f, "connecting to {host} took too long"),
            Error::Unreachable(cause) => f.write_str(&ConnectFailure::of(cause).says(host)),
            Error::ResponseTimeout => write!(f, "{host} did not answer in time"),
            Error::Broken(Broken::Http2) => f.write_str(&ConnectFailure::Http2.says(host)),
            Error::Broken(_) => write!(f, "{host} did not give a complete answer"),
            Error::Framing => write!(f, "the framing of the answer of {host} is ambiguous"),
            Error::Unreadable => write!(f, "the answer of {host} cannot be read"),
            Error::Switched => write!(f, "{host} switched protocols without being asked"),
        }
    }
}

impl Condition {
    pub(crate) fn of(name: &str, dialed: &str) -> Condition {
        Condition {
            name: name.into(),
            dialed: dialed.into(),
            open: AtomicU64::new(0),
            connecting: Episode::new(),
            answering: Episode::ending_after(QUIET),
            full: Episode::ending_after(QUIET),
            giving_way: Seldom::new(),
        }
    }

    /// The public name of the host.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A request got no answer. Logs it if it is the first one of its episode.
    pub(crate) fn failed(&self, error: Error) -> Failed {
        let failed = Failed::at(&self.dialed, error);
        let (host, cause) = (&*self.name, Chain(&failed));
        match &failed.error {
            // The caller's doing.
            Error::Broken(Broken::Content) => {}
            Error::Unreachable(_) | Error::ConnectTimeout(_) => self.unreachable(&cause),
            Error::Busy => {
                if self.full.failed() {
                    tracing::warn!(
                        host,
                        "all connections to a host of the API are in use: requests are refused"
                    );
                }
            }
            Error::ResponseTimeout
            | Error::Broken(_)
            | Error::Framing
            | Error::Unreadable
            | Error::Switched => self.unanswered(&cause),
        }
        tracing::debug!(host, %cause, "a request got no answer");
        failed
    }

    /// No connection could be opened.
    pub(crate) fn unreachable(&self, cause: &dyn fmt::Display) {
        if self.connecting.failed() {
            let host = &*self.name;
            tracing::warn!(host, %cause, "a host of the API cannot be reached");
        }
    }

    /// There was a connection, but no answer that could be used.
    pub(crate) fn unanswered(&self, cause: &dyn fmt::Display) {
        if self.answering.failed() {
            let host = &*self.name;
            tracing::warn!(host, %cause, "a host of the API does not answer as it should");
        }
    }

    /// All connections were in use, and an answer was broken off because this side had been still for
    /// longest.
    pub(crate) fn gave_way(&self, side: Side) {
        let host = &*self.name;
        let still = match side {
            Side::Upstream => "the API",
            Side::Caller => "its caller",
        };
        if let Some(answers) = self.giving_way.happened() {
            tracing::warn!(
                host,
                still,
                answers,
                "all connections to a host of the API are in use: answers that have stalled are broken off"
            );
        }
        tracing::debug!(host, still, "an answer gave way to another request");
    }

    /// A connection was opened.
    pub(crate) fn reached(&self) {
        if let Some(over) = self.connecting.worked() {
            let (host, seconds, hurt) = (&*self.name, over.seconds(), over.hurt);
            tracing::warn!(
                host,
                seconds,
                hurt,
                "a host of the API can be reached again"
            );
        }
    }

    /// An answer came.
    pub(crate) fn answered(&self) {
        if self.answering.is_failing() || self.full.is_failing() {
            self.answers_again();
        }
    }

    #[cold]
    fn answers_again(&self) {
        let host = &*self.name;
        if let Some(over) = self.answering.worked() {
            let (seconds, hurt) = (over.seconds(), over.hurt);
            tracing::warn!(host, seconds, hurt, "a host of the API answers again");
        }
        if let Some(over) = self.full.worked() {
            let (seconds, hurt) = (over.seconds(), over.hurt);
            tracing::warn!(
                host,
                seconds,
                hurt,
                "connections to a host of the API are free again"
            );
        }
    }

    /// The public name and since when, if no connection can be opened.
    pub(crate) fn unreachable_now(&self) -> Option<(&str, SystemTime)> {
        Some((&self.name, self.connecting.since()?))
    }
}

impl ConnectFailure {
    /// What the error, or a cause of it, says about it.
    pub(super) fn of(error: &(dyn StdError + 'static)) -> ConnectFailure {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(found) = ConnectFailure::named_by(error) {
                return found;
            }
            // What an `io::Error` wraps is not among its causes.
            let inner = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref);
            cause = match inner {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        ConnectFailure::Network
    }

    fn named_by(error: &(dyn StdError + 'static)) -> Option<ConnectFailure> {
        if error.is::<Unresolved>() {
            return Some(ConnectFailure::Name);
        }
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(ConnectFailure::of_tls(tls));
        }
        match error.downcast_ref::<io::Error>()?.kind() {
            io::ErrorKind::ConnectionRefused => Some(ConnectFailure::Refused),
            io::ErrorKind::TimedOut => Some(ConnectFailure::Late),
            _ => None,
        }
    }

    fn of_tls(error: &rustls::Error) -> ConnectFailure {
        let certificate = match error {
            rustls::Error::InvalidCertificate(certificate) => certificate,
            // HTTP/1.1 alone was offered (RFC 7301 §3.2).
            rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
            | rustls::Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol) =>
            {
                return ConnectFailure::Http2;
            }
            _ => return ConnectFailure::Tls,
        };
        match certificate {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => ConnectFailure::Expired,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                ConnectFailure::Foreign
            }
            _ => ConnectFailure::Untrusted,
        }
    }

    /// How much it tells of a host, of whose addresses several failed: the further an attempt came,
    /// the more.
    pub(super) fn tells(self) -> u8 {
        match self {
            ConnectFailure::Name | ConnectFailure::Network => 0,
            ConnectFailure::Late => 1,
            ConnectFailure::Refused => 2,
            ConnectFailure::Tls => 3,
            ConnectFailure::Http2 => 4,
            ConnectFailure::Untrusted | ConnectFailure::Expired | ConnectFailure::Foreign => 5,
        }
    }

    /// What an operator can do about it.
    fn advice(self) -> &'static str {
        match self {
            ConnectFailure::Name => {
                "check this machine's resolver (/etc/resolv.conf, a pod's dnsPolicy), and that DNS passes \
                 the firewall"
            }
            ConnectFailure::Refused => {
                "nothing listens there: check [upstream.hosts] if the host is redirected, else what the \
                 name resolves to"
            }
            ConnectFailure::Late | ConnectFailure::Network => {
                "let this machine reach that port (firewall, NetworkPolicy, route); HTTPS_PROXY is not \
                 followed"
            }
            ConnectFailure::Untrusted => {
                "if a gateway of your own ends TLS, put its authority into [upstream] ca_file; else \
                 somebody listens in between"
            }
            ConnectFailure::Expired => {
                "check the clock of this machine; if it is right, ask whoever runs the host for a new \
                 certificate"
            }
            ConnectFailure::Foreign => {
                "another host answers to this name: check DNS and [upstream.hosts]"
            }
            ConnectFailure::Http2 | ConnectFailure::Tls => {
                "the host or a gateway in between must speak TLS 1.2 or 1.3, and HTTP/1.1 inside"
            }
        }
    }

    /// The sentence about `host`, which is `host` or `host:port`.
    pub(super) fn says(self, host: &str) -> String {
        match self {
            ConnectFailure::Name => {
                let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
                format!("the name {name} was not found")
            }
            ConnectFailure::Refused => format!("{host} refused the connection"),
            ConnectFailure::Late => format!("{host} did not answer in time"),
            ConnectFailure::Untrusted => format!("the certificate of {host} is not trusted"),
            ConnectFailure::Expired => {
                format!("the certificate of {host} has expired or is not valid yet")
            }
            ConnectFailure::Foreign => format!("the certificate of {host} belongs to another host"),
            ConnectFailure::Http2 => {
                format!("{host} does not speak HTTP/1.1, which is all that the proxy speaks")
            }
            ConnectFailure::Tls => format!("{host} and the proxy cannot agree on TLS"),
            ConnectFailure::Network => format!("{host} cannot be reached over the network"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(error: io::Error) -> String {
        Failed::at("api.example:81", Error::Unreachable(error)).to_string()
    }

    #[test]
    fn a_sentence_for_callers_names_host_and_cause() {
        let tls = |error| io::Error::other(rustls::Error::InvalidCertificate(error));
        for (error, sentence) in [
            (
                io::Error::other(Unresolved(io::Error::other("no such name"))),
                "the name api.example was not found",
            ),
            (
                io::ErrorKind::ConnectionRefused.into(),
                "api.example:81 refused the connection",
            ),
            (
                io::ErrorKind::TimedOut.into(),
                "api.example:81 did not answer in time",
            ),
            (
                tls(CertificateError::UnknownIssuer),
                "the certificate of api.example:81 is not trusted",
            ),
            (
                tls(CertificateError::Expired),
                "the certificate of api.example:81 has expired or is not valid yet",
            ),
            (
                tls(CertificateError::NotValidForName),
                "the certificate of api.example:81 belongs to another host",
            ),
            (
                io::Error::other(rustls::Error::AlertReceived(
                    AlertDescription::NoApplicationProtocol,
                )),
                "api.example:81 does not speak HTTP/1.1, which is all that the proxy speaks",
            ),
            (
                io::Error::other(rustls::Error::DecryptError),
                "api.example:81 and the proxy cannot agree on TLS",
            ),
            (
                io::ErrorKind::NetworkUnreachable.into(),
                "api.example:81 cannot be reached over the network",
            ),
        ] {
            assert_eq!(says(error), sentence);
        }
    }

    #[test]
    fn a_cause_is_found_however_deep_it_lies() {
        #[derive(Debug, thiserror::Error)]
        #[error("it failed")]
        struct Outer(#[source] io::Error);
        let tls = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let error = io::Error::other(Outer(io::Error::other(tls)));
        assert_eq!(ConnectFailure::of(&error), ConnectFailure::Untrusted);
        assert_eq!(ConnectFailure::of(&fmt::Error), ConnectFailure::Network);
    }
}

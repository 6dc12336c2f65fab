//! One host of the API and how it is reached. Opens no connection.

use std::ops::Index;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use http::HeaderValue;
use http::uri::Authority;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::{Condition, Dial, Error, Failed, Scheme};

/// A host and how it is reached, checked once when it is made.
#[derive(Clone, Debug)]
pub struct Target {
    pub(super) id: TargetId,
    /// Plain text or TLS.
    pub scheme: Scheme,
    /// `host` or `host:port`.
    pub authority: Authority,
    /// The authority as the Host field.
    pub host: HeaderValue,
    /// The name that the certificate must have.
    pub(super) name: ServerName<'static>,
    /// Whose certificates are trusted; `http/1.1` alone is offered by ALPN.
    pub(super) tls: Arc<ClientConfig>,
    /// How its connections are opened, before TLS.
    pub(super) dial: Dial,
    /// How its connections fare; shared by all workers, and kept when the same target is made again.
    pub(super) condition: Arc<Condition>,
}

/// Two targets have the same id if they are the same host, reached in the same way: the same public
/// name, scheme, authority and trusted certificates. A pool keeps the connections of such a target
/// when the configuration is read again. Unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TargetId(pub(super) u64);

impl Target {
    /// Reports that a request got no answer because of `error`, which is logged once an episode.
    pub fn failed(&self, error: Error) -> Failed {
        self.condition.failed(error)
    }

    /// How many connections of requests are open to it.
    pub fn connections(&self) -> u64 {
        self.condition.open.load(Ordering::Relaxed)
    }

    /// The public name and since when, if no connection can be opened.
    pub fn unreachable(&self) -> Option<(&str, SystemTime)> {
        self.condition.unreachable_now()
    }
}

/// The hosts of all routes by their public names; a handful, so that a list is searched faster than
/// a map.
#[derive(Clone, Debug, Default)]
pub struct Targets(pub(super) Vec<(Box<str>, Target)>);

impl Targets {
    /// The target of this public name.
    pub fn get(&self, name: &str) -> Option<&Target> {
        let mut targets = self.0.iter();
        targets
            .find(|(known, _)| **known == *name)
            .map(|(_, target)| target)
    }

    /// Each target once, with its public name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Target)> {
        self.0.iter().map(|(name, target)| (&**name, target))
    }
}

/// The target of a public name that these were made with.
impl Index<&str> for Targets {
    type Output = Target;

    fn index(&self, name: &str) -> &Target {
        self.get(name)
            .expect("these were made with the host of every route")
    }
}

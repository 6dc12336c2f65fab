//! Connections to the API's hosts: names, TLS, deadlines. Knows no tokens.

pub mod pool;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

/// Part of the configuration: `[upstream]`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// TCP connect and TLS handshake together.
    pub connect_timeout: Duration,
    /// From the last content byte written to the answer's head, each attempt.
    pub response_timeout: Duration,
    /// An idle connection is closed after this.
    pub idle_timeout: Duration,
    /// Connections to one host, over all workers; at least the number of workers.
    pub max_connections: usize,
    /// PEM certificates trusted besides the platform's.
    pub ca_file: Option<PathBuf>,
    /// Where a host is really reached: tests, private gateways. Keyed by lower-case public name.
    pub redirects: HashMap<String, Redirect>,
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
    /// Only where `[upstream.hosts]` says so.
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

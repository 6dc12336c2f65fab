//! Listeners, handing connections to workers, limits, drain. Never looks inside a request.

pub mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Part of the configuration: where and how callers are served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// At least one.
    pub listeners: Vec<Listener>,
    /// Connections from callers, over all workers.
    pub max_connections: usize,
    /// How long answers may take to end after SIGTERM.
    pub drain_timeout: Duration,
    /// Worker threads; at least 1.
    pub threads: usize,
}

/// One place to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listener {
    /// A TCP address; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix {
        /// Where; a stale socket there is replaced.
        path: PathBuf,
        /// Its file mode.
        mode: u32,
        /// The group that owns it, by name.
        group: Option<String>,
    },
}

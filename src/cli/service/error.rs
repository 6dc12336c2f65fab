//! Why a proxy cannot start.

use crate::cli::opening::StoreError;
use crate::{server, upstream};

/// Why a proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be used as it is; exit code 78.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Certificates or hosts.
    #[error(transparent)]
    Upstream(#[from] upstream::Invalid),
    /// Listening for callers.
    #[error(transparent)]
    Listen(#[from] server::Error),
    /// Listening for health checks, or for the dashboard.
    #[error("{section} cannot be served")]
    Aside {
        /// The table of the configuration.
        section: &'static str,
        /// Why.
        source: server::Error,
    },
}

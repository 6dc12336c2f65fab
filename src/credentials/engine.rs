//! What every renewal works with, in three parts, each of which says what its methods may touch.
//!
//! ```text
//!   renewals ──▶ guards ──▶ vault
//!       └───────────────────▲
//! ```
//!
//! The [`vault`] knows nothing of what a login costs; the [`guards`](super::guards) know
//! nothing of how a pair is renewed; a [`renewal`](super::renewal) uses both.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::closing::{Closer, ClosingWatch};
use super::guards::Guards;
use super::renewal::renewals::Renewals;
use super::renewal::token_endpoint::TokenEndpoint;
use super::renewal::unreadable::UnreadableAnswers;
use super::settings::{Current, Settings};
use super::vault::seal::Ring;
use super::vault::{self, Vault};
use crate::clock::Clock;
use crate::directory::Directory;
use crate::metrics::Metrics;
use crate::store::{RunId, Store};
use crate::upstream::{self, Hosts};

/// The engine of a process. It does nothing by itself: [`Provider::start`](super::Provider::start) runs
/// its background tasks.
pub(crate) struct Engine {
    /// What is kept.
    pub(crate) vault: Vault,
    /// What holds a login back.
    pub(crate) guards: Guards,
    /// The renewals that run now. Behind an `Arc`, because each must leave the list at its end, even in
    /// a panic.
    pub(crate) renewals: Arc<Renewals>,
    /// The only way to the Auth endpoints.
    pub(crate) endpoint: TokenEndpoint,
    /// The numbers and the directory: read at the time of use.
    pub(crate) current: Current,
    /// Once it has begun, no renewal may wait for anything but its own calls.
    pub(crate) closer: Closer,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    /// Where renewals run. No caller's runtime: a caller's hang-up, or its worker's end, cancels none.
    pub(crate) runtime: Handle,
}

/// What a [`Provider`](super::Provider) is made of.
pub struct Parts<'a> {
    /// Its part of the configuration.
    pub settings: Settings,
    /// Who can be logged in, with what.
    pub directory: Arc<Directory>,
    /// Where pairs are kept.
    pub store: Arc<dyn Store>,
    /// This process run, as the store knows it.
    pub run: RunId,
    /// What seals them.
    pub ring: Ring,
    /// How the Auth endpoints are reached.
    pub upstream: &'a upstream::Settings,
    /// Whom to trust there.
    pub hosts: &'a Hosts,
    /// The one clock.
    pub clock: Clock,
    /// The one set of metrics.
    pub metrics: Arc<Metrics>,
    /// The runtime that renewals run on; it must outlive the callers'.
    pub runtime: Handle,
}

impl Engine {
    pub(crate) fn new(parts: Parts<'_>) -> Arc<Engine> {
        let Parts {
            settings,
            directory,
            store,
            run,
            ring,
            upstream,
            hosts,
            clock,
            metrics,
            runtime,
        } = parts;
        let current = Current::new(settings, directory);
        let closer = Closer::new();
        let guards = Guards::new(&current, &store, closer.watch(), clock, &metrics);
        let vault = Vault::new(vault::Parts {
            store,
            ring,
            run,
            current: current.clone(),
            closing: closer.watch(),
            clock,
            metrics: metrics.clone(),
        });
        Arc::new(Engine {
            vault,
            guards,
            renewals: Renewals::new(),
            endpoint: TokenEndpoint::new(upstream, hosts, UnreadableAnswers::new(&metrics)),
            current,
            closer,
            clock,
            metrics,
            runtime,
        })
    }

    /// Sees how far the end of the process has come.
    pub(crate) fn closing(&self) -> ClosingWatch {
        self.closer.watch()
    }

    /// Runs `work` on the background runtime to its end, even if its caller hangs up; a shutdown
    /// waits for it.
    pub(crate) fn spawn_to_completion<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let under_way = self.renewals.under_way();
        self.runtime.spawn(async move {
            let _under_way = under_way;
            work.await
        })
    }
}

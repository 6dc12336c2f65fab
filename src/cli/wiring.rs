//! Makes all the components of a proxy and wires them together: the one place where all of them meet.
//! Listens nowhere; that is [`service`](super::service)'s.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::opening::OpenStore;
use super::output::say;
use crate::clock::Clock;
use crate::config::Settings;
use crate::credentials::{self, Background, Provider, Renewer};
use crate::damoov::routes::Table;
use crate::handed_out::HandedOut;
use crate::head;
use crate::metrics::Metrics;
use crate::proxy::{self, Proxy, Rules, rules};
use crate::telemetry::access::AccessLog;
use crate::upstream::{self, Hosts};

/// What the components stand on.
pub struct Foundation {
    /// The open store, and the keys to it.
    pub store: OpenStore,
    /// How the API is reached.
    pub hosts: Hosts,
    /// What everything is counted in.
    pub metrics: Arc<Metrics>,
    /// Where requests are recorded.
    pub access: AccessLog,
}

/// A proxy that nobody can call yet.
pub struct Wired {
    /// Gives out credentials.
    pub provider: Provider,
    /// Knows the tokens that callers were given.
    pub handed_out: Arc<HandedOut>,
    /// Answers requests.
    pub proxy: Arc<Proxy>,
    /// What runs besides requests; to be ended after them.
    pub background: Background,
}

/// Wires a proxy, and starts its engine on the current runtime.
///
/// # Errors
///
/// The host of a route cannot be reached under its name.
pub fn wire(settings: Settings, foundation: Foundation) -> Result<Wired, upstream::Invalid> {
    let Foundation {
        store: OpenStore { store, ring, run },
        hosts,
        metrics,
        access,
    } = foundation;
    let rules = rules(&settings, &hosts)?;
    let clock = Clock::from_environment();
    let token_keys = ring.token_keys();
    let (provider, background) = Provider::start(credentials::Parts {
        settings: settings.credentials,
        directory: settings.directory,
        store,
        run,
        ring,
        upstream: &settings.upstream,
        hosts: &hosts,
        clock,
        metrics: metrics.clone(),
        runtime: Handle::current(),
    });
    let handed_out = Arc::new(HandedOut::new(token_keys, provider.clone(), clock));
    let proxy = Proxy::new(proxy::Parts {
        rules,
        provider: provider.clone(),
        handed_out: handed_out.clone(),
        replay_memory: settings.replay.memory,
        metrics,
        access,
    });
    Ok(Wired {
        provider,
        handed_out,
        proxy: Arc::new(proxy),
        background,
    })
}

/// For how long the store is told again what it does not take before a command ends.
const PATIENCE: Duration = Duration::from_secs(30);
/// A command waits for one renewal for as long as its calls may take: this many calls, with the pauses
/// between them.
const CALLS: u32 = 4;

/// What renews pairs for a command, on the current runtime.
///
/// # Errors
///
/// The settings of the API's hosts are of no use.
pub(super) fn renewer(open: OpenStore, settings: Settings) -> Result<Renewer, upstream::Invalid> {
    let OpenStore { store, ring, run } = open;
    let hosts = Hosts::new(&settings.upstream)?;
    let credentials = settings.credentials;
    Ok(Renewer::new(credentials::Parts {
        settings: credentials::Settings {
            wait: credentials.wait.max(credentials.timeout * CALLS),
            // What is renewed is not asked for again.
            max_cached: 0,
            ..credentials
        },
        directory: settings.directory,
        store,
        run,
        ring,
        upstream: &settings.upstream,
        hosts: &hosts,
        clock: Clock::from_environment(),
        metrics: Arc::new(Metrics::new()),
        runtime: Handle::current(),
    }))
}

/// To be awaited before the command ends: as [`Renewer::finish`]. What was lost is said.
pub(super) async fn finish(renewer: &Renewer) {
    if let Err(untold) = renewer.finish(PATIENCE).await {
        say(&format!("warning: {untold}"));
    }
}

/// The rules that requests are answered by.
///
/// # Errors
///
/// The host of a route cannot be reached under its name.
pub fn rules(settings: &Settings, hosts: &Hosts) -> Result<Rules, upstream::Invalid> {
    Rules::new(rules::Parts {
        head: head(settings),
        routes: Table::new(settings.routes.clone(), settings.default_host.clone()),
        directory: settings.directory.clone(),
        auth_endpoints: settings.auth_endpoints,
        in_band_401: settings.in_band_401,
        replay_limit: settings.replay.limit,
        hosts,
        upstream: &settings.upstream,
        workers: settings.server.threads,
    })
}

/// What heads are checked by, for callers and for probes alike.
pub(super) fn head(settings: &Settings) -> head::Settings {
    head::Settings {
        hosts: settings.hosts.clone(),
        allowed_origins: settings.allowed_origins.clone(),
    }
}

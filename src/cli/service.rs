//! Wires the components into a proxy that serves: the one place where all of them meet. Used by
//! `run` and by `demo`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::opening::{OpenStore, StoreError, open_store};
use crate::admin;
use crate::auth_endpoints::AuthEndpoints;
use crate::auth_endpoints::handed_out::HandedOut;
use crate::clock::Clock;
use crate::config::Settings;
use crate::credentials::{self, Background, Provider};
use crate::damoov::routes::Table;
use crate::metrics::Metrics;
use crate::principal::naming;
use crate::proxy::{self, Path, Proxy, head};
use crate::server::{self, Bound, Stage};
use crate::telemetry;
use crate::telemetry::access::AccessLog;
use crate::upstream::{self, Hosts};

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
    /// Listening for health checks.
    #[error("cannot listen on {address} for [status]")]
    Status {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Refuses what a proxy with these settings would refuse before it listens, the store apart.
pub fn check(settings: &Settings) -> Result<(), Error> {
    let routes = Table::new(settings.routes.clone(), settings.default_host.clone());
    Hosts::new(&settings.upstream)?.targets(routes.hosts())?;
    server::check_groups(&settings.server.listeners)?;
    Ok(())
}

/// A proxy that listens and has yet to accept.
pub struct Service {
    bound: Bound,
    status: Option<(TcpListener, admin::Status<Provider>)>,
    proxy: Arc<Proxy>,
    background: Background,
    stage: watch::Receiver<Stage>,
}

impl Service {
    /// Opens the store, starts the engine on the current runtime, and listens. `stage` will say
    /// when to stop; `log` gets a line for each request.
    pub async fn open(
        settings: Settings,
        stage: watch::Receiver<Stage>,
        log: &telemetry::Lines,
    ) -> Result<Service, Error> {
        let metrics = Arc::new(Metrics::new());
        log.count_into(metrics.lost_lines());
        let hosts = Hosts::new(&settings.upstream)?;
        let OpenStore { store, ring, run } = open_store(&settings.store).await?;
        let head = head::Settings {
            hosts: settings.hosts,
            allowed_origins: settings.allowed_origins,
        };
        let names = names(&settings.credentials);
        let clock = Clock::from_environment();
        let token_keys = ring.token_keys();
        let (provider, background) = Provider::start(credentials::Parts {
            settings: settings.credentials,
            store,
            run,
            ring,
            upstream: &settings.upstream,
            hosts: &hosts,
            clock,
            metrics: metrics.clone(),
            runtime: Handle::current(),
        });
        let status = match settings.status {
            None => None,
            Some(address) => {
                let listener = admin::bind(address)
                    .await
                    .map_err(|source| Error::Status { address, source })?;
                let status = admin::Status {
                    head: head.clone(),
                    engine: provider.clone(),
                    metrics: metrics.clone(),
                    stage: stage.clone(),
                };
                Some((listener, status))
            }
        };
        let own = settings.auth_endpoints;
        let handed_out = HandedOut::new(token_keys, own.hand_out, provider.clone(), clock);
        let handed_out = Arc::new(handed_out);
        let proxy = Proxy::new(proxy::Parts {
            auth_endpoints: AuthEndpoints::new(
                provider.clone(),
                handed_out.clone(),
                own.forward_unknown_logins,
            ),
            handed_out,
            head,
            routes: Table::new(settings.routes, settings.default_host),
            names,
            provider,
            hosts,
            upstream: settings.upstream,
            replay: settings.replay,
            in_band_401: settings.in_band_401,
            workers: settings.server.threads,
            metrics,
            access: AccessLog::new(log),
        })?;
        let bound = server::bind(settings.server)?;
        Ok(Service {
            bound,
            status,
            proxy: Arc::new(proxy),
            background,
            stage,
        })
    }

    /// The TCP addresses that callers are served on.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.bound.local_addrs()
    }

    /// Where health and metrics are served.
    pub fn status_addr(&self) -> Option<SocketAddr> {
        self.status
            .as_ref()
            .and_then(|(listener, _)| listener.local_addr().ok())
    }

    /// Serves until the stage says otherwise; renewals under way end before this returns.
    pub async fn serve(self) -> io::Result<()> {
        let Service {
            bound,
            status,
            proxy,
            background,
            stage,
        } = self;
        let status = status.map(|(listener, status)| tokio::spawn(admin::serve(listener, status)));
        let served = server::serve(bound, move || Path::new(proxy.clone()), stage).await;
        background.finish().await;
        if let Some(status) = status {
            status.abort();
        }
        served
    }
}

fn names(settings: &credentials::Settings) -> naming::Names {
    let accounts = &settings.accounts;
    let default = accounts.iter().find(|account| account.default);
    let instances = settings.instances.iter();
    naming::Names {
        accounts: accounts.iter().map(|a| a.name.clone()).collect(),
        default_account: default.map(|account| account.name.clone()),
        instances: instances.map(|i| (i.name.clone(), i.id)).collect(),
    }
}

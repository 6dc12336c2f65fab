//! A proxy that listens: for callers, for probes, and for the end. What answers them is wired in
//! [`wiring`]. Used by `run` and by `demo`.

mod error;

use std::io;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use self::error::Error;
use super::disk::Disk;
use super::key_watch::KeyWatch;
use super::opening::{OpenStore, StoreError, open_to_serve};
use super::reloading::{Components, Reloading, Start};
use super::running::Running;
use super::wiring::{self, Foundation, Wired, wire};
use crate::admin::{self, Answers, Serves};
use crate::config::{self, Settings};
use crate::credentials::Background;
use crate::metrics::{LogTarget, Metrics};
use crate::proxy::{Forwarder, Proxy};
use crate::server::{
    self, Bound, Drained, Ending, Inherited, Listener, Pulse, Socket, Stage, Times,
};
use crate::telemetry;
use crate::telemetry::access::AccessLog;
use crate::upstream::Hosts;

/// Refuses what a proxy with these settings would refuse before it listens, except for the store.
pub fn check(settings: &Settings) -> Result<(), Error> {
    wiring::rules(settings, &Hosts::new(&settings.upstream)?)?;
    let listeners = settings.server.listeners.iter();
    server::check_groups(listeners.chain(&settings.status).chain(&settings.admin))?;
    Ok(())
}

/// A proxy that listens and has yet to accept.
pub struct Service {
    bound: Bound,
    /// `[status]` and `[admin]`.
    asides: Vec<AsideTask>,
    /// What those tell.
    answers: Arc<Answers<Running>>,
    proxy: Arc<Proxy>,
    background: Background,
    /// Of a store that others share.
    keys: Option<KeyWatch>,
    ending: Ending,
    times: watch::Receiver<Times>,
    reloading: Reloading,
}

/// How everything ended that was under way at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Of callers.
    pub drained: Drained,
    /// Users whose new tokens could not be stored.
    pub pairs_lost: u64,
}

/// A listener beside that of the callers, which answers until this is dropped.
struct AsideTask(JoinHandle<()>);

impl Drop for AsideTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Service {
    /// Listens, answers probes, opens the store and starts the engine, on the current runtime, in
    /// this order; from then on reads its configuration again as `start` says. Each of the `inherited`
    /// sockets must be one of those that the settings name. `ending` says when to stop. Returns `None` if
    /// it says so before the store is open. `log` gets a line for each request.
    pub async fn open(
        settings: Settings,
        mut inherited: Inherited,
        start: Start,
        mut ending: Ending,
        log: &telemetry::Lines,
    ) -> Result<Option<Service>, Error> {
        let metrics = Arc::new(Metrics::new());
        log.count_into(lost_lines(&metrics));
        let hosts = Hosts::new(&settings.upstream)?;
        let bound = server::bind(settings.server.clone(), &mut inherited)?;
        let engine = Arc::new(OnceLock::new());
        let head = Arc::new(ArcSwap::from_pointee(wiring::head(&settings)));
        let answers = Answers::new(admin::Status {
            head: head.clone(),
            reloads: start.reloads.clone(),
            metrics: metrics.clone(),
            started: SystemTime::now(),
            stage: ending.stage.clone(),
            log: log.health(),
            recent: log.recent().clone(),
            engine: engine.clone(),
        });
        let mut asides = Vec::new();
        for (listener, serves) in [
            (&settings.status, Serves::Health),
            (&settings.admin, Serves::Everything),
        ] {
            if let Some(listener) = listener {
                let socket = open_aside(listener, serves, &mut inherited)?;
                asides.push(serve_aside(socket, serves, &answers));
            }
        }
        inherited.none_left().map_err(server::Error::from)?;
        let opening = async {
            let store = open_store_aside(settings.store.clone()).await?;
            Ok::<_, StoreError>((store, Disk::of(settings.store.path.clone()).await))
        };
        let (store, disk) = tokio::select! {
            biased;
            () = ending.begins() => return Ok(None),
            opened = opening => opened?,
        };
        let shared = settings.store.postgres.is_some();
        let keys = shared.then(|| KeyWatch::start(&store.store, store.ring.clone()));
        let in_force = Arc::new(ArcSwap::from_pointee(settings.clone()));
        let foundation = Foundation {
            store,
            hosts: hosts.clone(),
            metrics: metrics.clone(),
            access: AccessLog::new(log),
        };
        let Wired {
            provider,
            proxy,
            background,
            ..
        } = wire(settings.clone(), foundation)?;
        let running = Running {
            provider: provider.clone(),
            proxy: proxy.clone(),
            connections: bound.connections(),
            disk,
            in_force: in_force.clone(),
        };
        // Nothing else sets it.
        let _ = engine.set(running);
        let times = start.times.subscribe();
        let components = Components {
            provider,
            proxy: proxy.clone(),
            head,
            in_force,
            hosts,
            metrics,
        };
        Ok(Some(Service {
            bound,
            asides,
            answers,
            proxy,
            background,
            keys,
            ending,
            times,
            reloading: Reloading::start(start, settings, components),
        }))
    }

    /// The TCP addresses that callers are served on.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.bound.local_addrs()
    }

    /// Where callers are served, in words.
    pub fn places(&self) -> String {
        self.bound.places()
    }

    /// What `[status]` and `[admin]` tell, whether they are listened on or not.
    pub(super) fn answers(&self) -> Arc<Answers<Running>> {
        self.answers.clone()
    }

    /// What is to be done.
    pub fn stage(&self) -> watch::Receiver<Stage> {
        self.ending.stage.clone()
    }

    /// Whether the workers live, once they serve.
    pub fn pulse(&self) -> Pulse {
        self.bound.pulse()
    }

    /// Serves until the end has come; renewals under way end before this returns, and probes are
    /// answered until then.
    pub async fn serve(self) -> io::Result<Served> {
        let Service {
            bound,
            asides,
            answers: _,
            proxy,
            background,
            keys,
            mut ending,
            times,
            reloading,
        } = self;
        let stage = ending.stage.clone();
        let new_handler = move || Forwarder::new(proxy.clone());
        let serving = server::serve(bound, new_handler, times.clone(), stage);
        let drain_ends = async {
            let draining = |stage: &Stage| *stage >= Stage::Draining;
            ending.begins().await;
            // From here on nothing changes any more.
            drop(reloading);
            let _ = ending.stage.wait_for(draining).await;
            Instant::now() + times.borrow().drain_timeout
        };
        let mut serving = pin!(serving);
        let (drained, drain_ends) = tokio::select! {
            // Before the end it can only have failed.
            drained = &mut serving => (drained, Instant::now()),
            drain_ends = drain_ends => (serving.await, drain_ends),
        };
        let left = drain_ends.saturating_duration_since(Instant::now());
        drop(keys);
        let pairs_lost = background.finish(left).await;
        drop(asides);
        Ok(Served {
            drained: drained?,
            pairs_lost,
        })
    }
}

/// Listens for `[status]` or `[admin]`.
fn open_aside(
    listener: &Listener,
    serves: Serves,
    inherited: &mut Inherited,
) -> Result<Socket, Error> {
    let section = serves.section();
    let socket =
        Socket::open(listener, inherited).map_err(|source| Error::Aside { section, source })?;
    let address = match socket.address() {
        Some(address) => address.to_string(),
        None => listener.to_string(),
    };
    match serves {
        Serves::Health => tracing::info!(%address, "serving health and metrics"),
        Serves::Everything => tracing::info!(%address, "serving the dashboard"),
    }
    Ok(socket)
}

/// Answers there.
fn serve_aside(socket: Socket, serves: Serves, answers: &Arc<Answers<Running>>) -> AsideTask {
    let serving = admin::serve(socket, serves, answers.clone());
    AsideTask(tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "{} cannot be served", serves.section());
        }
    }))
}

/// Opens the store on a thread of its own: that may take a while, and probes are answered meanwhile.
async fn open_store_aside(settings: config::Store) -> Result<OpenStore, StoreError> {
    let runtime = Handle::current();
    let opening = tokio::task::spawn_blocking(move || runtime.block_on(open_to_serve(&settings)));
    opening
        .await
        .unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

/// Where the log counts the lines that it loses.
fn lost_lines(metrics: &Metrics) -> telemetry::Lost {
    telemetry::Lost {
        access_events: metrics.access_events_lost.clone(),
        access: metrics.lost_lines(LogTarget::Access),
        audit: metrics.lost_lines(LogTarget::Audit),
        other: metrics.lost_lines(LogTarget::Other),
    }
}

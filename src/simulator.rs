//! A faithful Damoov with faults on demand, for the demo, tests, benches and tests of users. Nothing on the
//! path of a request uses it.
//!
#![doc = include_str!("simulator/MANUAL.md")]

mod answer;
mod api;
mod auth;
mod content;
mod control;
mod counts;
mod dispatch;
mod doors;
mod fault;
mod handle;
mod journal;
mod jwt;
mod live;
mod login_limit;
mod management;
mod random;
mod refused;
mod requests;
mod results;
mod server;
mod settings;
#[cfg(test)]
mod tests;
mod tokens;
mod users;
mod world;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub use counts::{Count, Counts, Grants, LoginCall, Outcome};
pub use fault::{Action, Delay, Early, Fault, Garbage, Lost, On, Status, StatusUntil};
pub use handle::Handle;
pub use journal::{Called, End, Entry, Fate, Journal, Tick, Verdict};
pub use login_limit::{LoginLimit, RetryAfter};
pub use requests::Recorded;
pub use settings::{
    ACCOUNT_EMAIL, ACCOUNT_PASSWORD, Account, DeadRefreshToken, ExpiresIn, INSTANCE_ID,
    INSTANCE_KEY, Instance, KnownUsers, Lifetimes, LivePace, PreviousToken, Refresh, Registration,
    RegistrationCredentials, RegistrationShape, Settings,
};
pub use tokens::{Birth, Pair, Serial};

use doors::Doors;
use world::World;

/// What it can do and how it is steered: this page, for the command line.
pub const MANUAL: &str = include_str!("simulator/MANUAL.md");

/// A simulated Damoov that is running. Dropping it stops it too, without waiting.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    doors: Vec<(Arc<str>, SocketAddr)>,
    scheme: &'static str,
    handle: Handle,
    /// Sent or dropped, it ends `serving`.
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Simulator {
    /// Listens and serves on the current runtime. Fails when the address cannot be bound.
    pub async fn start(mut settings: Settings) -> io::Result<Simulator> {
        let listening = Doors::open(settings.listen, &settings.doors)?;
        let (address, doors) = (listening.address()?, listening.named()?);
        let tls = settings.tls.take().map(|config| {
            let mut config = Arc::unwrap_or_clone(config);
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            TlsAcceptor::from(Arc::new(config))
        });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let world = Arc::new(World::new(settings));
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server::serve(listening, tls, Arc::clone(&world), stopped));
        Ok(Simulator {
            address,
            doors,
            scheme,
            handle: Handle(world),
            stop,
            serving,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:<port>`, or `https` with TLS; no slash at the end.
    pub fn base_url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The same for the door of this name; `None` if the settings list no such door.
    pub fn door_url(&self, name: &str) -> Option<String> {
        let (_, address) = self.doors.iter().find(|(known, _)| **known == *name)?;
        Some(format!("{}://{address}", self.scheme))
    }

    /// Its controls.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Drops every connection and waits for the end. A panic inside the simulator comes out here.
    pub async fn shutdown(self) {
        drop(self.stop);
        if let Err(error) = self.serving.await
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

//! A few connections to the server that takes writes: made on demand, kept, and lent for one call each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::connection::Connection;
use super::dialer::{Dialer, Greeting};
use super::errors::{Failure, Within};
use super::presence::Presence;
use super::server_time::ServerTime;
use super::settings::Settings;
use super::tls::UntrustedCa;
use crate::clock::Clock;
use crate::store::Error;

/// The connections of one process.
pub(super) struct Pool {
    dialer: Arc<Dialer>,
    /// One permit for each connection that may be open. Fair: who waits longest is next.
    permits: Arc<Semaphore>,
    idle: Mutex<Idle>,
    /// Whether it is worth while to wait for a connection.
    pub(super) presence: Presence,
    /// The server's clock.
    pub(super) time: Arc<ServerTime>,
    /// When the server was started that was spoken to last: another time is another server, or one
    /// that began anew.
    server: Mutex<Option<i64>>,
    /// When what was acknowledged may have been lost, the last time.
    pub(super) arrivals: watch::Sender<Option<Instant>>,
    /// Counts the transactions that were committed: a server that commits is not away.
    commits: AtomicU64,
}

/// Connections that nobody uses.
#[derive(Default)]
struct Idle {
    /// The one used last is taken first.
    connections: Vec<Connection>,
    /// Counts how often all of them were given up, so that one lent at that time does not come back.
    flushes: u64,
}

/// A connection that is lent. Dropping it closes it.
pub(super) struct Lent {
    connection: Connection,
    pool: Arc<Pool>,
    /// Which connections of the pool it belongs to.
    flushes: u64,
    /// Counts it.
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    /// Opens no connection yet. Must be called on the runtime that is to drive the connections.
    pub(super) fn new(settings: Settings, clock: Clock) -> Result<Arc<Pool>, UntrustedCa> {
        let presence = Presence::new();
        let permits = Arc::new(Semaphore::new(settings.connections));
        let dialer = Arc::new(Dialer::new(settings, presence.suspicion())?);
        Ok(Arc::new(Pool {
            dialer,
            permits,
            idle: Mutex::default(),
            presence,
            time: Arc::new(ServerTime::new(clock)),
            server: Mutex::default(),
            arrivals: watch::Sender::new(None),
            commits: AtomicU64::new(0),
        }))
    }

    /// Lends a connection once one is free, or makes one. The caller that waits longest is served first.
    pub(super) async fn lend(self: &Arc<Self>) -> Result<Lent, Error> {
        let permits = self.permits.clone();
        let permit = permits.acquire_owned().await.map_err(|_| Error::Closed)?;
        let (idle, flushes) = self.take_idle();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        Ok(Lent {
            connection,
            pool: self.clone(),
            flushes,
            _permit: permit,
        })
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let dialled = self.dialer.clone().dial().await.map_err(|failure| {
            self.presence.suspect();
            failure.of_call(Within::Statement)
        })?;
        self.met(dialled.greeting);
        Ok(dialled.connection)
    }

    /// A server has said what it is.
    pub(super) fn met(&self, greeting: Greeting) {
        self.time.learn(greeting.clock);
        let mut server = self.server.lock().expect("no code panics under this lock");
        let other = matches!((*server, greeting.started), (Some(old), Some(new)) if old != new);
        *server = greeting.started.or(*server);
        drop(server);
        if other {
            self.arrived();
        }
    }

    /// The store is back, or it is another server: what was acknowledged before may be gone.
    pub(super) fn arrived(&self) {
        self.arrivals.send_replace(Some(Instant::now()));
    }

    /// How many transactions were committed.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Lends nothing any more.
    pub(super) fn close(&self) {
        self.permits.close();
        self.flush();
    }

    fn take_idle(&self) -> (Option<Connection>, u64) {
        let mut idle = self.idle();
        idle.connections
            .retain(|connection| !connection.has_ended());
        (idle.connections.pop(), idle.flushes)
    }

    fn flush(&self) {
        let mut idle = self.idle();
        idle.flushes += 1;
        idle.connections.clear();
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().expect("no code panics under this lock")
    }
}

impl Lent {
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Lets the next call have it. Nothing may be under way on it.
    pub(super) fn give_back(self) {
        let mut idle = self.pool.idle();
        if idle.flushes == self.flushes && !self.connection.has_ended() {
            idle.connections.push(self.connection);
        }
    }

    /// A transaction was committed on it.
    pub(super) fn note_commit(&self) {
        self.pool.commits.fetch_add(1, Ordering::Relaxed);
    }

    /// Does what follows from a failure, besides what the call is told.
    pub(super) fn note_failure(&self, failure: &Failure) {
        match failure {
            Failure::Refused(refused) if refused.may_be_repeated() || refused.is_of_content() => {
                return;
            }
            Failure::Refused(_) => {}
            // The others lead to the same server.
            Failure::NotThisServer(_) | Failure::Lost(_) => self.pool.flush(),
        }
        self.pool.presence.suspect();
    }

    /// Its server has said what it is.
    pub(super) fn met(&self, greeting: Greeting) {
        self.pool.met(greeting);
    }
}

//! The way to the server, for everybody who has statements: lends sessions, says when the server
//! changed, tells its time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, timeout_at};

use super::pool::Pool;
use super::presence::{Absence, Arrival, Reach};
use super::server_time::ServerTime;
use super::session::Session;
use super::settings::Settings;
use super::tls::UntrustedCa;
use crate::clock::Clock;
use crate::store::Error;

/// How long a call of the store may take. Past it, its connection is dropped and nothing is cancelled.
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(2);

/// Sessions with the server that takes writes.
#[derive(Clone)]
pub(super) struct Link {
    pool: Arc<Pool>,
    /// The server's clock.
    pub(super) time: Arc<ServerTime>,
    while_away: WhileAway,
    /// Held by the one call of this process that takes the writers' lock alone: they do not queue at the server.
    pub(super) alone: Arc<Mutex<()>>,
}

/// What is done about a session while the store is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhileAway {
    /// A short absence is waited for; in a long one calls fail at once.
    Wait,
    /// It is tried all the same, to see whether the store is back.
    Try,
}

impl Link {
    /// Opens no connection yet. Must be called on the runtime that is to drive the connections.
    pub(super) fn new(settings: Settings, clock: Clock) -> Result<Link, UntrustedCa> {
        let pool = Pool::new(settings, clock)?;
        let time = pool.time.clone();
        Ok(Link {
            pool,
            time,
            while_away: WhileAway::Wait,
            alone: Arc::default(),
        })
    }

    /// The same connections, for those who see whether the store is back.
    pub(super) fn probing(&self) -> Link {
        Link {
            while_away: WhileAway::Try,
            ..self.clone()
        }
    }

    /// A session for one call.
    ///
    /// Errors: [`Error::Away`] if there is none by the call's deadline, or at once if the store has been
    /// away for a while.
    pub(super) async fn session(&self) -> Result<Session, Error> {
        self.session_within(CALL_DEADLINE).await
    }

    /// A session for a call that may take `limit`.
    pub(super) async fn session_within(&self, limit: Duration) -> Result<Session, Error> {
        let deadline = Instant::now() + limit;
        let lent = async {
            if self.while_away == WhileAway::Wait {
                self.pool.presence.here().await?;
            }
            self.pool.lend().await
        };
        match timeout_at(deadline, lent).await {
            Ok(lent) => Ok(Session::new(lent?, deadline)),
            Err(_) => Err(self.too_late()),
        }
    }

    fn too_late(&self) -> Error {
        let why = self.absence().map(|absence| absence.why);
        Error::Away(why.unwrap_or_else(|| "no connection was free in time".to_owned()))
    }

    /// Changes whenever the store came back, or was found to be another server.
    pub(super) fn connected(&self) -> Arrival {
        self.pool.arrivals.subscribe()
    }

    /// The server is asked what it is, and what its clock says.
    pub(super) async fn greet(&self) -> Result<(), Error> {
        self.session().await?.greet().await
    }

    /// Why the store is away; `None` while it is here.
    pub(super) fn absence(&self) -> Option<Absence> {
        self.pool.presence.absence()
    }

    /// How many transactions were committed.
    pub(super) fn commits(&self) -> u64 {
        self.pool.commits()
    }

    /// Told when something failed that may mean that the store is away.
    pub(super) fn suspicion(&self) -> Arc<Notify> {
        self.pool.presence.suspicion()
    }

    /// The store was found to be away.
    pub(super) fn leave(&self, why: String, reach: Reach) {
        self.pool.presence.leave(why, reach);
    }

    /// The store was found to be here. The end of an absence is told before any waiting call gets its
    /// session.
    pub(super) fn arrive(&self) {
        if self.absence().is_some() {
            self.pool.arrived();
            self.pool.presence.arrive();
        }
    }

    /// Gives no session any more.
    pub(super) fn close(&self) {
        self.pool.close();
    }
}

#[cfg(test)]
mod tests;

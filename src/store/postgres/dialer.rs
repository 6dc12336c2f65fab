//! Finds, among the configured servers, the one that takes writes, and connects to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::types::Type;

use super::connection::{Connection, Login, Transport};
use super::errors::Failure;
use super::server_time::{Measured, Reading};
use super::settings::Settings;
use super::tls::{Trust, UntrustedCa};
use crate::secret::Secret;

/// Makes connections.
pub(super) struct Dialer {
    settings: Settings,
    trust: Trust,
    /// Drives the connections, whichever runtime asks for one.
    runtime: Handle,
    /// Told when a connection ends by itself.
    ended: Arc<Notify>,
    /// Which server took writes last: it is tried first.
    writer: AtomicUsize,
}

/// A new connection, and what its server said.
pub(super) struct Dialled {
    pub(super) connection: Connection,
    pub(super) greeting: Greeting,
}

/// What a server says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Greeting {
    pub(super) clock: Measured,
    /// When it was started, in microseconds since the Unix epoch: two servers never agree in that.
    /// `None` if it does not say.
    pub(super) started: Option<i64>,
    takes_writes: bool,
}

/// A server that does not answer is not waited for longer than this before the next one is tried
/// beside it.
const STAGGER: Duration = Duration::from_millis(250);

/// How long a server may take to log in and answer.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// `transaction_read_only` is `on` on a standby too.
const STATE: &str = "SELECT current_setting('transaction_read_only') = 'off', \
     (extract(epoch FROM clock_timestamp()) * 1000000)::int8";

/// Apart from [`STATE`], since not every server that speaks the protocol has it.
const STARTED: &str = "SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8";

impl Dialer {
    pub(super) fn new(settings: Settings, ended: Arc<Notify>) -> Result<Dialer, UntrustedCa> {
        Ok(Dialer {
            trust: Trust::read(settings.ca_file.as_deref())?,
            settings,
            runtime: Handle::current(),
            ended,
            writer: AtomicUsize::new(0),
        })
    }

    /// Connects to the server that takes writes. Dropping the future ends its attempts.
    pub(super) async fn dial(self: Arc<Self>) -> Result<Dialled, Failure> {
        let runtime = self.runtime.clone();
        let dialling = runtime.spawn(async move { self.dial_here().await });
        let aborted = AbortOnDrop(dialling.abort_handle());
        let dialled = dialling.await;
        drop(aborted);
        dialled.unwrap_or_else(|error| Err(Failure::lost(&error)))
    }

    async fn dial_here(self: Arc<Self>) -> Result<Dialled, Failure> {
        let password = self.password().await?;
        let servers = self.settings.address.servers.len();
        let first = self.writer.load(Ordering::Relaxed);
        let mut untried = (0..servers).map(|place| (first + place) % servers);
        let mut attempts = JoinSet::new();
        let mut failures = Vec::new();
        loop {
            let started = untried.next();
            if let Some(server) = started {
                attempts.spawn(self.clone().attempt(server, password.clone()));
            }
            tokio::select! {
                ended = attempts.join_next() => match ended {
                    Some(Ok((server, Ok(dialled)))) => {
                        self.writer.store(server, Ordering::Relaxed);
                        return Ok(dialled);
                    }
                    Some(Ok((server, Err(failure)))) => failures.push((server, failure)),
                    Some(Err(ended)) => return Err(Failure::lost(&ended)),
                    None => return Err(self.unreached(failures)),
                },
                () = sleep(STAGGER), if started.is_some() => {}
            }
        }
    }

    /// The password as it is now: a file may have been replaced since the last connection.
    async fn password(&self) -> Result<Option<Secret>, Failure> {
        let password = self.settings.password.clone();
        let read = tokio::task::spawn_blocking(move || password.read()).await;
        match read {
            Ok(Ok(password)) => Ok(password),
            Ok(Err(unusable)) => Err(Failure::lost(&unusable)),
            Err(ended) => Err(Failure::lost(&ended)),
        }
    }

    async fn attempt(
        self: Arc<Self>,
        server: usize,
        password: Option<Secret>,
    ) -> (usize, Result<Dialled, Failure>) {
        let connecting = self.connect(server, password.as_ref());
        let dialled = timeout(GREETING_TIMEOUT, connecting).await;
        (server, dialled.unwrap_or_else(|_| Err(Failure::deadline())))
    }

    async fn connect(&self, server: usize, password: Option<&Secret>) -> Result<Dialled, Failure> {
        let address = &self.settings.address;
        let server = &address.servers[server];
        let login = Login {
            user: &address.user,
            password,
            database: &address.database,
        };
        let transport = match address.is_plain(server) {
            true => Transport::Plain,
            false => Transport::Encrypted(&self.trust),
        };
        let connection = Connection::open(server, login, transport, self.ended.clone()).await?;
        let greeting = greet(&connection).await?;
        match greeting.takes_writes {
            true => Ok(Dialled {
                connection,
                greeting,
            }),
            false => Err(Failure::NotThisServer("it takes no writes".to_owned())),
        }
    }

    /// What an operator should know of servers of which none can be used.
    fn unreached(&self, failures: Vec<(usize, Failure)>) -> Failure {
        let told = failures.into_iter().map(|(server, failure)| {
            let server = &self.settings.address.servers[server];
            format!("{server}: {failure}")
        });
        Failure::Lost(told.collect::<Vec<_>>().join("; "))
    }
}

/// Asks what a server is, and what its clock says.
pub(super) async fn greet(connection: &Connection) -> Result<Greeting, Failure> {
    let client = connection.client();
    let reading = Reading::begin();
    let state = async {
        let row = client.query_typed_one(STATE, &[]).await?;
        Ok((reading.end(row.try_get(1)?), row.try_get(0)?))
    };
    let started = client.query_typed_one(STARTED, &[] as &[(_, Type)]);
    let (state, started) = join(state, started).await;
    let (clock, takes_writes) =
        state.map_err(|error: tokio_postgres::Error| Failure::from(error))?;
    Ok(Greeting {
        clock,
        started: started.ok().and_then(|row| row.try_get(0).ok()),
        takes_writes,
    })
}

/// Ends a task that nobody waits for any more.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

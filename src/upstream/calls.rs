//! Short calls to one host from any thread, on a small pool of their own, so that callers' requests
//! cannot take up their connections. Says exactly which calls were never sent: those of which no byte
//! was written to a socket. Knows no tokens.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::http1::Whole;
use super::stream::Stream;
use super::{Error, Head, MAX_AGE, SWEEP, Settings, Target, connect};

/// Sends calls to one host.
#[derive(Debug)]
pub(crate) struct Calls {
    target: Target,
    /// A reload may change it.
    connect_timeout: Mutex<Duration>,
    /// Shared with the sweeper. Behind a lock because calls come from any thread; it is never held
    /// while a call is under way.
    idle: Arc<Mutex<Idle>>,
    /// The task that closes idle connections, while there are any; aborted when this is dropped. Behind a
    /// lock because whichever call leaves the first idle connection starts it.
    sweeper: Mutex<JoinSet<()>>,
}

/// Connections that carry no call.
#[derive(Debug)]
struct Idle {
    /// The newest last.
    connections: Vec<Connection>,
    timeout: Duration,
    /// Whether a task closes them. It ends when none is left.
    is_swept: bool,
}

#[derive(Debug)]
struct Connection {
    stream: Stream,
    opened: Instant,
    /// Since when it carries no call.
    since: Instant,
}

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum CallFailure {
    /// At the moment at which it could be written it was no longer to be sent.
    Withheld,
    /// No byte of it was written to a socket.
    NotSent(Error),
    /// It was written, in part at least.
    Lost(Error),
}

impl Calls {
    /// Calls of `target`.
    pub(crate) fn new(target: Target, settings: &Settings) -> Calls {
        Calls {
            target,
            connect_timeout: Mutex::new(settings.connect_timeout),
            idle: Arc::new(Mutex::new(Idle {
                connections: Vec::new(),
                timeout: settings.idle_timeout,
                is_swept: false,
            })),
            sweeper: Mutex::default(),
        }
    }

    /// From here on the timeouts are those of `settings`. Connections that are open are kept.
    pub(crate) fn follow(&self, settings: &Settings) {
        *lock(&self.connect_timeout) = settings.connect_timeout;
        self.idle().timeout = settings.idle_timeout;
    }

    /// Whether its calls go to the host of `target`, reached in the same way.
    pub(crate) fn are_to(&self, target: &Target) -> bool {
        self.target.id == target.id
    }

    /// Sends one call, at most once, and reads its answer, the content of which is `None` if it is
    /// longer than `limit`. A connection that turns out to be dead before a byte was written to it is
    /// replaced by another. Right before the first byte is written, `may_send` is asked whether it still
    /// is to be.
    pub(crate) async fn send(
        &self,
        request: &Head,
        content: Bytes,
        limit: usize,
        deadline: Instant,
        may_send: impl Fn() -> bool,
    ) -> Result<Response<Option<Bytes>>, CallFailure> {
        loop {
            let used = self.idle().pop(Instant::now());
            let is_used = used.is_some();
            let mut connection = match used {
                Some(connection) => connection,
                None => self.connect(deadline).await.map_err(CallFailure::NotSent)?,
            };
            if !may_send() {
                self.keep(connection);
                return Err(CallFailure::Withheld);
            }
            let stream = &mut connection.stream;
            let mut whole = Whole::new(stream, request, &self.target.host, content.clone());
            let exchanged = timeout_at(deadline, whole.exchange(limit)).await;
            let is_begun = whole.is_begun();
            let error = match exchanged {
                Ok(Ok((answer, keeps_alive))) => {
                    if keeps_alive {
                        self.keep(connection);
                    }
                    return Ok(answer);
                }
                Ok(Err(_)) if is_used && !is_begun => continue,
                Ok(Err(error)) => error,
                Err(_) => Error::ResponseTimeout,
            };
            return Err(match is_begun {
                true => CallFailure::Lost(error),
                false => CallFailure::NotSent(error),
            });
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<Connection, Error> {
        let now = Instant::now();
        let connect_timeout = *lock(&self.connect_timeout);
        let deadline = deadline.min(now + connect_timeout);
        let stream = connect::open(&self.target, deadline).await?;
        let opened = Instant::now();
        Ok(Connection {
            stream,
            opened,
            since: opened,
        })
    }

    /// Keeps a connection for the next call.
    fn keep(&self, connection: Connection) {
        let mut idle = self.idle();
        let since = Instant::now();
        idle.connections.push(Connection {
            since,
            ..connection
        });
        if !std::mem::replace(&mut idle.is_swept, true) {
            let swept = self.idle.clone();
            let mut sweeper = lock(&self.sweeper);
            while sweeper.try_join_next().is_some() {}
            sweeper.spawn(async move {
                loop {
                    let pause = lock(&swept).timeout.min(SWEEP) / 4;
                    sleep(pause).await;
                    let mut idle = lock(&swept);
                    idle.sweep(Instant::now());
                    if idle.connections.is_empty() {
                        idle.is_swept = false;
                        return;
                    }
                }
            });
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Idle> {
        lock(&self.idle)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no code panics under this lock")
}

impl Idle {
    /// The newest that can still be used. Those above it cannot, and are closed.
    fn pop(&mut self, now: Instant) -> Option<Connection> {
        loop {
            let mut newest = self.connections.pop()?;
            if newest.can_be_used(now, self.timeout) {
                return Some(newest);
            }
        }
    }

    fn sweep(&mut self, now: Instant) {
        let timeout = self.timeout;
        self.connections
            .retain_mut(|connection| connection.can_be_used(now, timeout));
    }
}

impl Connection {
    fn can_be_used(&mut self, now: Instant, idle_timeout: Duration) -> bool {
        now.saturating_duration_since(self.opened) < MAX_AGE
            && now.saturating_duration_since(self.since) < idle_timeout
            && self.stream.is_quiet()
    }
}

#[cfg(test)]
mod tests;

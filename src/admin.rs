//! The `[status]` and `[admin]` listeners: whether the process lives, has started and is ready, and its
//! metrics; on `[admin]` the dashboard and its API as well. Neither shares the listener of requests. They
//! answer before the store is opened: that may take a while, and a probe must be able to tell that it goes
//! on. What they tell comes through [`Engine`] and a few handles: nothing in here knows the components.

mod answers;
mod asked;
mod code;
mod connections;
mod content;
mod dashboard;
mod engine;
mod history;
mod page;
mod readiness;
mod reply;
mod request;
mod sentence;
mod state;
mod stream;
mod time;
mod write_timeout;

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

pub use self::answers::Answers;
pub use self::code::Code;
pub use self::engine::{Engine, Host, Listing, Logins, Renewed, Room, Tokens, Window};

use self::connections::{Connection, Connections};
use self::write_timeout::WriteTimeout;

use crate::head;
use crate::metrics::Metrics;
use crate::reload::Reloads;
use crate::server::{Acceptor, Socket, Stage, Stream};
use crate::telemetry;
use crate::telemetry::episode::{Chain, Episode};
use crate::telemetry::recent::Recent;

/// From the first byte that could come to the last one of a head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long accepting rests when the system is out of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What the listeners tell.
pub struct Status<E> {
    /// Which hosts and origins may ask for metrics; a reload replaces it.
    pub head: Arc<ArcSwap<head::Settings>>,
    /// Every metric.
    pub metrics: Arc<Metrics>,
    /// When the process began.
    pub started: SystemTime,
    /// Whether requests are still taken.
    pub stage: watch::Receiver<Stage>,
    /// What is in force of the configuration, and what is not.
    pub reloads: Reloads,
    /// Whether the log can be written.
    pub log: telemetry::Health,
    /// Its newest events that a person must see.
    pub recent: Recent,
    /// Whether credentials can be renewed, and how many there are; unset until it has started.
    pub engine: Arc<OnceLock<E>>,
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// Health and metrics: `[status]`.
    Health,
    /// Those, the dashboard, and its API: `[admin]`.
    Everything,
}

impl Serves {
    /// The table of the configuration that says where.
    pub fn section(self) -> &'static str {
        match self {
            Serves::Health => "[status]",
            Serves::Everything => "[admin]",
        }
    }
}

/// Answers until it is dropped: while requests drain and renewals end, probes still get to know it.
pub async fn serve(
    socket: Socket,
    serves: Serves,
    answers: Arc<Answers<impl Engine>>,
) -> std::io::Result<()> {
    let acceptor = socket.start()?;
    match serves {
        Serves::Health => accept(&acceptor, serves, &answers).await,
        Serves::Everything => tokio::select! {
            () = accept(&acceptor, serves, &answers) => {}
            () = answers.keep_watch() => {}
        },
    }
    Ok(())
}

/// Accepts connections and serves them.
async fn accept(acceptor: &Acceptor, serves: Serves, answers: &Arc<Answers<impl Engine>>) {
    let failing = Episode::new();
    let mut connections = Connections::default();
    loop {
        tokio::select! {
            accepted = acceptor.accept() => match accepted.and_then(Transport::of) {
                Ok(stream) => {
                    if let Some(over) = failing.worked() {
                        let (seconds, section) = (over.seconds(), serves.section());
                        tracing::warn!(seconds, "connections of {section} are accepted again");
                    }
                    let connection = Connection::default();
                    let asks = Asks { serves, answers: answers.clone(), connection: connection.clone() };
                    connections.take(connection, stream.serve(asks));
                }
                Err(error) => {
                    if failing.failed() {
                        let section = serves.section();
                        tracing::warn!(%error, "cannot accept connections of {section}; pausing after each attempt");
                    }
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            },
            () = connections.one_has_ended() => {}
        }
    }
}

/// A connection, on this runtime.
enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Who answers on a connection, and what.
struct Asks<E> {
    serves: Serves,
    answers: Arc<Answers<E>>,
    connection: Connection,
}

impl Transport {
    fn of(stream: Stream) -> std::io::Result<Transport> {
        Ok(match stream {
            Stream::Tcp(stream, _) => Transport::Tcp(TcpStream::from_std(stream)?),
            Stream::Unix(stream) => Transport::Unix(UnixStream::from_std(stream)?),
        })
    }

    async fn serve(self, asks: Asks<impl Engine>) {
        match self {
            Transport::Tcp(stream) => serve_connection(stream, asks).await,
            Transport::Unix(stream) => serve_connection(stream, asks).await,
        }
    }
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    asks: Asks<impl Engine>,
) {
    let Asks {
        serves,
        answers,
        connection,
    } = asks;
    let service = service_fn(move |request: Request<Incoming>| {
        let answers = answers.clone();
        let answering = connection.answering();
        async move { Ok::<_, Infallible>(answers.answer(serves, request, answering).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(WriteTimeout::new(stream)), service);
    if let Err(error) = connection.await {
        let section = serves.section();
        tracing::debug!(error = %Chain(&error), "a connection of {section} broke");
    }
}

#[cfg(test)]
mod tests;

//! Listeners, handing connections to workers, limits, drain. Never looks inside a request.

mod listen;
pub mod worker;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use self::listen::{Acceptor, Socket};
use self::worker::Worker;

/// Descriptors for everything but callers: upstream connections, the store, logs.
const OTHER_DESCRIPTORS: u64 = 2048;

/// How long accepting rests when the system is out of descriptors or memory.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Part of the configuration: where and how callers are served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// At least one.
    pub listeners: Vec<Listener>,
    /// Connections from callers, over all workers.
    pub max_connections: usize,
    /// How long answers may take to end after SIGTERM.
    pub drain_timeout: Duration,
    /// Worker threads; at least 1.
    pub threads: usize,
}

/// One place to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listener {
    /// A TCP address; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix {
        /// Where; a stale socket there is replaced.
        path: PathBuf,
        /// Its file mode.
        mode: u32,
        /// The group that owns it, by name.
        group: Option<String>,
    },
}

/// Answers requests. Each worker makes its own, on its own thread.
pub trait Handler: 'static {
    /// The content of its answers.
    type Content: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + 'static;

    /// Answers one request. Dropped where the caller leaves before the answer.
    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Response<Self::Content>>;
}

/// What the server is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Accept and answer.
    Serving,
    /// Accept nothing more; end the answers under way.
    Draining,
    /// Stop at once.
    Stopping,
}

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address or path cannot be listened on.
    #[error("cannot listen on {place}")]
    Listen {
        /// The address or path.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// The group of a unix socket does not exist.
    #[error("the group {0:?} does not exist")]
    GroupUnknown(String),
    /// `max_connections` and what the proxy itself needs exceed the hard limit.
    #[error("max_connections needs {needed} file descriptors, the hard limit is {hard}")]
    TooFewDescriptors {
        /// `max_connections` + 2,048.
        needed: u64,
        /// `ulimit -Hn`
        hard: u64,
    },
}

/// Listening, not yet accepting.
#[derive(Debug)]
pub struct Bound {
    settings: Settings,
    sockets: Vec<Socket>,
}

/// Listens on every place of the settings and raises the soft limit of file descriptors.
pub fn bind(settings: Settings) -> Result<Bound, Error> {
    raise_descriptor_limit(settings.max_connections)?;
    let sockets = settings
        .listeners
        .iter()
        .map(Socket::bind)
        .collect::<Result<_, _>>()?;
    Ok(Bound { settings, sockets })
}

impl Bound {
    /// The TCP addresses that are listened on, in the order of the settings.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(Socket::address).collect()
    }
}

/// Serves until `stage` says otherwise, and returns when every worker thread has ended: after the
/// last answer, after `drain_timeout`, or when `stage` says stop.
pub async fn serve<H: Handler>(
    bound: Bound,
    new_handler: impl Fn() -> H + Clone + Send + 'static,
    mut stage: watch::Receiver<Stage>,
) -> io::Result<()> {
    let Bound { settings, sockets } = bound;
    let workers = (0..settings.threads.max(1))
        .map(|number| {
            Worker::start(
                number,
                new_handler.clone(),
                stage.clone(),
                settings.drain_timeout,
            )
        })
        .collect::<io::Result<Vec<_>>>()?;
    let workers = Arc::new(workers);
    let free = Arc::new(Semaphore::new(settings.max_connections));
    let mut accepting = JoinSet::new();
    for socket in sockets {
        accepting.spawn(accept(socket.start()?, workers.clone(), free.clone()));
    }
    // The sender may be gone without having said anything: that means stop, too.
    let _ = stage.wait_for(|stage| *stage > Stage::Serving).await;
    accepting.shutdown().await;
    let workers = Arc::into_inner(workers).expect("the accept loops, which shared it, have ended");
    for worker in workers {
        worker.end().await;
    }
    Ok(())
}

/// Hands every socket to the worker with the fewest connections: a sidecar has few callers with
/// long-lived connections, which a hash over the ports would spread badly.
async fn accept(acceptor: Acceptor, workers: Arc<Vec<Worker>>, free: Arc<Semaphore>) {
    loop {
        let permit = free
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        match acceptor.accept().await {
            Ok(stream) => workers
                .iter()
                .min_by_key(|worker| worker.connections())
                .expect("there is at least one worker")
                .hand(stream, permit),
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; resting");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// The caller gave up while it waited in the backlog.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

fn raise_descriptor_limit(max_connections: usize) -> Result<(), Error> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = (max_connections as u64).saturating_add(OTHER_DESCRIPTORS);
    let limit = getrlimit(Resource::Nofile);
    match limit.maximum {
        Some(hard) if hard < needed => return Err(Error::TooFewDescriptors { needed, hard }),
        _ => {}
    }
    let soft_is_enough = limit.current.is_none_or(|soft| soft >= needed);
    let raised = Rlimit {
        current: Some(needed),
        maximum: limit.maximum,
    };
    if !soft_is_enough && let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of file descriptors");
    }
    Ok(())
}

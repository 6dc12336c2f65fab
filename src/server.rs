//! Listeners, handing connections to workers, limits, drain. Never looks inside a request.

mod accepting;
mod answers;
mod coalesced_writes;
mod inherited;
mod lengths;
mod listen;
mod pulse;
mod stage;
mod timeouts;
mod worker;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

#[cfg(any(test, feature = "internals"))]
pub use self::answers::{Answers, answers};
pub use self::inherited::{Inherited, Refused};
pub use self::listen::{Acceptor, Socket, Stream};
pub use self::pulse::Pulse;
pub use self::stage::{Ending, Stage};
#[cfg(any(test, feature = "internals"))]
pub use self::worker::serve_connection;

use self::accepting::accept;
use self::worker::Worker;
use crate::peer::Peer;
use crate::stalls::Stalls;

/// Descriptors for everything but callers: upstream connections, the store, logs.
const OTHER_DESCRIPTORS: u64 = 2048;

/// Part of the configuration: where and how callers are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// At least one.
    pub listeners: Vec<Listener>,
    /// Connections from callers, over all workers.
    pub max_connections: usize,
    /// Worker threads; at least 1.
    pub threads: usize,
    /// How long callers are waited for, until others are published.
    pub times: Times,
}

/// How long callers are waited for. May change while the server serves: each wait follows those that are
/// in force then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long callers are still accepted after SIGTERM, and told to go elsewhere.
    pub drain_delay: Duration,
    /// How long answers may take to end once no connection is accepted any more.
    pub drain_timeout: Duration,
    /// A caller that takes nothing of what it is given for this long is not waited for.
    pub stall_timeout: Duration,
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

/// An answer, and with a 101 the session that takes its connection over.
pub type Answered<H> = (
    Response<<H as Handler>::Content>,
    Option<<H as Handler>::Session>,
);

/// Answers requests. Each worker makes its own, on its own thread.
pub trait Handler: Sized + 'static {
    /// What takes over connections that switch to another protocol.
    type Session: Session;

    /// The content of its answers.
    type Content: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Unpin + 'static;

    /// Answers one request of `peer`. Dropped if the caller leaves before the answer. The session
    /// begins once its 101 is written.
    fn handle(
        self: Rc<Self>,
        peer: Peer,
        request: Request<Incoming>,
    ) -> impl Future<Output = Answered<Self>> + 'static;

    /// Which sides of an answer that did not end at once are still. The connection notes there how long its
    /// caller leaves the answer unread.
    fn stalls(content: &Self::Content) -> Option<&Rc<Stalls>> {
        let _ = content;
        None
    }

    /// A caller left unread what it was given for `stall_timeout`; its connection is reset.
    fn caller_stalled(&self) {}

    /// Waits for work that outlives its caller. Called once, when nothing is left to answer.
    fn finish(&self) -> impl Future<Output = ()>;
}

/// A caller's end of a connection.
pub trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// Lets the caller see an error, not an end, when this is dropped, if that can be told apart.
    fn abort(&self) {}
}

impl Transport for TcpStream {
    /// By a reset; what the caller has not taken is given up.
    fn abort(&self) {
        // It fails only if there is no connection left to reset.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

impl Transport for UnixStream {}

/// In memory.
#[cfg(any(test, feature = "internals"))]
impl Transport for tokio::io::DuplexStream {}

/// What is spoken on a connection after HTTP.
pub trait Session: 'static {
    /// Has the caller's connection until it returns. `read` is what was read behind the request;
    /// once `draining` ends, this is to end too.
    fn run(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        read: Bytes,
        draining: impl Future<Output = ()>,
    ) -> impl Future<Output = ()>;
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
    /// Inherited sockets cannot be served.
    #[error(transparent)]
    Inherited(#[from] Refused),
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
    pulse: Pulse,
    places: Places,
}

/// The connections of callers, over all workers. Clones are of the same ones.
#[derive(Clone, Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    limit: usize,
    /// Each listener holds a place for the next caller.
    listeners: usize,
}

impl Places {
    fn new(limit: usize, listeners: usize) -> Places {
        Places {
            free: Arc::new(Semaphore::new(limit)),
            limit,
            listeners,
        }
    }

    /// How many are open.
    pub fn taken(&self) -> usize {
        match self.limit - self.free.available_permits() {
            all if all == self.limit => all,
            some => some.saturating_sub(self.listeners),
        }
    }

    /// How many may be.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

/// What became of the answers after the end had begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Answers that ended.
    pub ended: u64,
    /// Answers that were cut off.
    pub cut: u64,
}

/// Whether the groups that are to own unix sockets exist.
pub fn check_groups<'l>(listeners: impl IntoIterator<Item = &'l Listener>) -> Result<(), Error> {
    listeners
        .into_iter()
        .try_for_each(|listener| match listener {
            Listener::Unix {
                group: Some(group), ..
            } => listen::group_id(group).map(drop),
            Listener::Unix { group: None, .. } | Listener::Tcp(_) => Ok(()),
        })
}

/// Listens on every place of the settings, on the inherited sockets of those that have one, and raises the
/// soft limit of file descriptors.
pub fn bind(settings: Settings, inherited: &mut Inherited) -> Result<Bound, Error> {
    raise_descriptor_limit(settings.max_connections)?;
    let sockets = settings
        .listeners
        .iter()
        .map(|listener| Socket::open(listener, inherited))
        .collect::<Result<_, _>>()?;
    Ok(Bound {
        places: Places::new(settings.max_connections, settings.listeners.len()),
        settings,
        sockets,
        pulse: Pulse::default(),
    })
}

impl Bound {
    /// The TCP addresses that are listened on, in the order of the settings.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(Socket::address).collect()
    }

    /// Every place that is listened on, for people.
    pub fn places(&self) -> String {
        let places: Vec<_> = self.sockets.iter().map(Socket::to_string).collect();
        places.join(", ")
    }

    /// The connections of callers, once this is served.
    pub fn connections(&self) -> Places {
        self.places.clone()
    }

    /// Whether the workers live, once this is served.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }
}

/// Serves until `stage` says otherwise, and returns when every worker thread has ended: after the
/// last answer, after `drain_timeout`, or when `stage` says stop. Waits for callers as `times` says.
pub async fn serve<H: Handler>(
    bound: Bound,
    new_handler: impl Fn() -> H + Clone + Send + 'static,
    times: watch::Receiver<Times>,
    mut stage: watch::Receiver<Stage>,
) -> io::Result<Drained> {
    let Bound {
        settings,
        sockets,
        pulse,
        places,
    } = bound;
    let workers = (0..settings.threads.max(1))
        .map(|number| {
            let watched = (stage.clone(), pulse.heart());
            Worker::start(number, new_handler.clone(), watched, times.clone())
        })
        .collect::<io::Result<Vec<_>>>()?;
    let workers = Arc::new(workers);
    let free = places.free;
    let mut accepting = JoinSet::new();
    for socket in sockets {
        let (workers, free) = (workers.clone(), free.clone());
        accepting.spawn(accept(socket.start()?, workers, free, stage.clone()));
    }
    // If the sender is gone without a word, the server drains as well.
    let _ = stage.wait_for(|stage| *stage >= Stage::Draining).await;
    accepting.join_all().await;
    let workers = Arc::into_inner(workers).expect("the accept loops, which shared it, have ended");
    // At once, not one after the other: they all have the same `drain_timeout`.
    let drained = join_all(workers.into_iter().map(Worker::end)).await;
    Ok(Drained {
        ended: drained.iter().map(|drained| drained.ended).sum(),
        cut: drained.iter().map(|drained| drained.cut).sum(),
    })
}

/// How many file descriptors the process may come to need.
pub fn descriptors(max_connections: usize) -> u64 {
    (max_connections as u64).saturating_add(OTHER_DESCRIPTORS)
}

fn raise_descriptor_limit(max_connections: usize) -> Result<(), Error> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = descriptors(max_connections);
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

#[cfg(test)]
mod tests;

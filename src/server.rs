//! Listeners, handing connections to workers, limits, drain. Never looks inside a request.

mod answers;
mod coalesced_writes;
mod lengths;
mod listen;
mod stage;
mod timeouts;
mod worker;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use self::answers::{Answers, answers};
pub use self::stage::{Begun, Ending, Stage};
pub use self::worker::serve_connection;

use self::listen::{Acceptor, Socket, Stream};
use self::worker::{Timeouts, Worker};
use crate::peer::Peer;
use crate::stalls::Stalls;
use crate::telemetry::episode::Episode;

/// Descriptors for everything but callers: upstream connections, the store, logs.
const OTHER_DESCRIPTORS: u64 = 2048;

/// A lack of room that had just been told of is told of again if it lasts this long.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// From a caller's first packet to the last one of its connection's beginning.
const LAST_CONNECTIONS: Duration = Duration::from_millis(50);

/// How long accepting rests when the system is out of descriptors or memory.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Part of the configuration: where and how callers are served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// At least one.
    pub listeners: Vec<Listener>,
    /// Connections from callers, over all workers.
    pub max_connections: usize,
    /// How long callers are still accepted after SIGTERM, and told to go elsewhere.
    pub drain_delay: Duration,
    /// How long answers may take to end once nobody is accepted any more.
    pub drain_timeout: Duration,
    /// Worker threads; at least 1.
    pub threads: usize,
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

    /// Who is still in an answer that did not end at once; its caller's waits are noted there.
    fn stalls(content: &Self::Content) -> Option<&Rc<Stalls>> {
        let _ = content;
        None
    }

    /// A caller left unread what it was given for `stall_timeout`; its connection is reset.
    fn caller_stalled(&self) {}

    /// Ends what goes on after its caller has left. Called once, when nothing is left to answer.
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
impl Transport for DuplexStream {}

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

/// What became of the answers after the end had begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Answers that ended.
    pub ended: u64,
    /// Answers that were cut off.
    pub cut: u64,
}

/// Whether the groups that shall own unix sockets exist.
pub fn check_groups(listeners: &[Listener]) -> Result<(), Error> {
    listeners.iter().try_for_each(|listener| match listener {
        Listener::Unix {
            group: Some(group), ..
        } => listen::group_id(group).map(drop),
        Listener::Unix { group: None, .. } | Listener::Tcp(_) => Ok(()),
    })
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
) -> io::Result<Drained> {
    let Bound { settings, sockets } = bound;
    let workers = (0..settings.threads.max(1))
        .map(|number| {
            Worker::start(
                number,
                new_handler.clone(),
                stage.clone(),
                Timeouts {
                    drain: settings.drain_timeout,
                    stall: settings.stall_timeout,
                },
            )
        })
        .collect::<io::Result<Vec<_>>>()?;
    let workers = Arc::new(workers);
    let free = Arc::new(Semaphore::new(settings.max_connections));
    let mut accepting = JoinSet::new();
    for socket in sockets {
        let (workers, free) = (workers.clone(), free.clone());
        accepting.spawn(accept(socket.start()?, workers, free, stage.clone()));
    }
    // The sender may be gone without having said anything: that means drain, too.
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

/// Hands every socket to the worker with the fewest connections: a sidecar has few callers with
/// long-lived connections, which a hash over the ports would spread badly.
async fn accept(
    acceptor: Acceptor,
    workers: Arc<Vec<Worker>>,
    free: Arc<Semaphore>,
    mut stage: watch::Receiver<Stage>,
) {
    tokio::select! {
        () = accept_all(&acceptor, &workers, &free) => {}
        _ = stage.wait_for(|stage| *stage >= Stage::Draining) => {}
    }
    // Between the last look at who has connected and the end of listening somebody might connect,
    // and be reset.
    match acceptor.turn_away() {
        Ok(()) => {
            let accepting = accept_all(&acceptor, &workers, &free);
            let _ = timeout(LAST_CONNECTIONS, accepting).await;
        }
        Err(error) => tracing::debug!(%error, "callers may still connect"),
    }
    match acceptor.into_backlog() {
        Ok(backlog) => {
            // Those beyond `max_connections` are closed.
            for stream in backlog {
                if let Ok(permit) = free.clone().try_acquire_owned() {
                    hand_to_the_idlest(&workers, stream, permit);
                }
            }
        }
        Err(error) => tracing::warn!(%error, "callers that had just connected are cut off"),
    }
}

async fn accept_all(acceptor: &Acceptor, workers: &[Worker], free: &Arc<Semaphore>) {
    let (full, failing) = (Episode::new(), Episode::new());
    loop {
        let permit = room(free, &full).await;
        match acceptor.accept().await {
            Ok(stream) => {
                if let Some(over) = failing.worked() {
                    let (seconds, tries) = (over.seconds(), over.hurt);
                    tracing::warn!(seconds, tries, "connections are accepted again");
                }
                hand_to_the_idlest(workers, stream, permit);
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                if failing.failed() {
                    tracing::warn!(%error, "cannot accept connections; pausing after each attempt");
                }
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

fn hand_to_the_idlest(workers: &[Worker], stream: Stream, permit: OwnedSemaphorePermit) {
    workers
        .iter()
        .min_by_key(|worker| worker.connections())
        .expect("there is at least one worker")
        .hand(stream, permit);
}

/// Room for one more connection. Tells when there is none, and when there is again.
async fn room(free: &Arc<Semaphore>, full: &Episode) -> OwnedSemaphorePermit {
    if let Ok(permit) = free.clone().try_acquire_owned() {
        return permit;
    }
    let mut acquiring = pin!(free.clone().acquire_owned());
    let permit = loop {
        if full.failed() {
            tracing::warn!("`max_connections` are open: no more are accepted until one closes");
        }
        if let Ok(permit) = timeout(TELL_AGAIN, &mut acquiring).await {
            break permit.expect("the semaphore is never closed");
        }
    };
    if let Some(over) = full.worked() {
        let seconds = over.seconds();
        tracing::warn!(seconds, "there is room for connections again");
    }
    permit
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
mod tests {
    use super::*;
    use http_body_util::Full;
    use std::os::unix::fs::PermissionsExt;
    use std::rc::Rc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpStream, UnixStream};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    const SECOND: Duration = Duration::from_secs(1);

    /// Says which thread answers; waits, or panics, where the path says so.
    struct Porter(Arc<Doors>);

    /// What the tests and the handlers on the workers say to each other.
    #[derive(Default)]
    struct Doors {
        entered: Notify,
        open: Notify,
    }

    impl Handler for Porter {
        type Content = Full<Bytes>;
        type Session = Echo;

        async fn handle(
            self: Rc<Self>,
            _: Peer,
            request: Request<Incoming>,
        ) -> (Response<Full<Bytes>>, Option<Echo>) {
            match request.uri().path() {
                "/wait" => {
                    self.0.entered.notify_one();
                    self.0.open.notified().await;
                }
                "/panic" => panic!("asked for"),
                "/switch" => {
                    let answer = Response::builder()
                        .status(101)
                        .header("connection", "upgrade")
                        .header("upgrade", "echo");
                    return (answer.body(Full::default()).unwrap(), Some(Echo));
                }
                _ => {}
            }
            let name = std::thread::current().name().unwrap().to_owned();
            (Response::new(Full::from(name)), None)
        }

        async fn finish(&self) {}
    }

    /// Says everything again, and goodbye.
    struct Echo;

    impl Session for Echo {
        async fn run(
            self,
            mut stream: impl AsyncRead + AsyncWrite + Unpin,
            read: Bytes,
            draining: impl Future<Output = ()>,
        ) {
            let mut draining = std::pin::pin!(draining);
            stream.write_all(&read).await.unwrap();
            let mut heard = [0; 1024];
            loop {
                let said = tokio::select! {
                    () = &mut draining => break,
                    heard = stream.read(&mut heard) => heard.unwrap(),
                };
                if said == 0 {
                    return;
                }
                stream.write_all(&heard[..said]).await.unwrap();
            }
            stream.write_all(b"goodbye").await.unwrap();
        }
    }

    struct Running {
        bound: Vec<SocketAddr>,
        doors: Arc<Doors>,
        stage: watch::Sender<Stage>,
        serving: JoinHandle<io::Result<Drained>>,
    }

    fn tcp() -> Listener {
        Listener::Tcp("127.0.0.1:0".parse().unwrap())
    }

    fn settings(listener: Listener) -> Settings {
        Settings {
            listeners: vec![listener],
            max_connections: 16,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(60),
            threads: 2,
            stall_timeout: SECOND,
        }
    }

    fn start(settings: Settings) -> Running {
        let bound = bind(settings).unwrap();
        let doors = Arc::new(Doors::default());
        let (stage, watched) = watch::channel(Stage::Serving);
        let addresses = bound.local_addrs();
        let shared = doors.clone();
        let new_handler = move || Porter(shared.clone());
        Running {
            bound: addresses,
            doors,
            stage,
            serving: tokio::spawn(serve(bound, new_handler, watched)),
        }
    }

    impl Running {
        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.bound[0]).await.unwrap()
        }

        async fn end(self, stage: Stage) -> Drained {
            self.stage.send_replace(stage);
            self.serving.await.unwrap().unwrap()
        }
    }

    async fn send(stream: &mut (impl AsyncWrite + Unpin), path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
    }

    /// Head and content of one answer; the content is a thread's name.
    async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> String {
        let mut received = String::new();
        while !received.contains("\r\n\r\nworker-") || received.ends_with('-') {
            let mut piece = [0; 1024];
            let read = stream.read(&mut piece).await.unwrap();
            assert_ne!(read, 0, "closed after {received:?}");
            received.push_str(std::str::from_utf8(&piece[..read]).unwrap());
        }
        received
    }

    async fn rest(stream: &mut TcpStream) -> String {
        let mut rest = String::new();
        // A reset says the same as an orderly end.
        let _ = stream.read_to_string(&mut rest).await;
        rest
    }

    #[tokio::test]
    async fn each_connection_goes_to_the_worker_with_the_fewest_and_stays_there() {
        let running = start(settings(tcp()));
        let (mut one, mut other) = (running.connect().await, running.connect().await);
        let mut names = Vec::new();
        for stream in [&mut one, &mut other] {
            send(stream, "/").await;
            let first = receive(stream).await;
            send(stream, "/").await;
            assert_eq!(
                receive(stream).await[first.len() - 8..],
                first[first.len() - 8..]
            );
            names.push(first[first.len() - 8..].to_owned());
        }
        names.sort();
        assert_eq!(names, ["worker-0", "worker-1"]);
        running.end(Stage::Stopping).await;
    }

    #[tokio::test]
    async fn a_stream_that_is_open_already_is_served_until_its_caller_leaves() {
        let (mut caller, stream) = tokio::io::duplex(4096);
        let (_stage, stage) = watch::channel(Stage::Serving);
        let calling = async {
            send(&mut caller, "/").await;
            send(&mut caller, "/").await;
            let mut answers = String::new();
            while answers.matches("\r\n\r\n").count() < 2 {
                answers.push(char::from(caller.read_u8().await.unwrap()));
            }
            drop(caller);
            answers
        };
        let porter = Rc::new(super::answers(Porter(Arc::default()), SECOND));
        let peer = Peer::Uid(0);
        let (served, answers) =
            tokio::join!(serve_connection(peer, stream, porter, stage), calling);
        served.unwrap();
        assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 2, "{answers}");
    }

    #[tokio::test]
    async fn beyond_max_connections_callers_wait_until_somebody_leaves() {
        let running = start(Settings {
            max_connections: 1,
            ..settings(tcp())
        });
        let mut first = running.connect().await;
        send(&mut first, "/").await;
        receive(&mut first).await;
        let mut second = running.connect().await;
        send(&mut second, "/").await;
        let waiting = tokio::time::timeout(Duration::from_millis(50), receive(&mut second));
        assert!(waiting.await.is_err());
        drop(first);
        receive(&mut second).await;
        running.end(Stage::Stopping).await;
    }

    #[tokio::test]
    async fn a_head_over_16_kib_or_64_fields_is_a_431() {
        let running = start(settings(tcp()));
        let long = format!("A: {}\r\n", "x".repeat(16 * 1024));
        let many = "A: x\r\n".repeat(64);
        for fields in [long, many] {
            let mut stream = running.connect().await;
            let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = rest(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        }
        running.end(Stage::Stopping).await;
    }

    #[tokio::test]
    async fn a_request_that_panics_costs_its_own_connection_alone() {
        let running = start(Settings {
            threads: 1,
            ..settings(tcp())
        });
        let (mut unlucky, mut other) = (running.connect().await, running.connect().await);
        send(&mut unlucky, "/panic").await;
        assert_eq!(rest(&mut unlucky).await, "");
        send(&mut other, "/").await;
        receive(&mut other).await;
        running.end(Stage::Stopping).await;
    }

    #[tokio::test]
    async fn draining_ends_answers_closes_idle_connections_accepts_nobody() {
        let running = start(settings(tcp()));
        let (mut idle, mut busy) = (running.connect().await, running.connect().await);
        send(&mut idle, "/").await;
        receive(&mut idle).await;
        send(&mut busy, "/wait").await;
        running.doors.entered.notified().await;
        running.stage.send_replace(Stage::Draining);
        assert_eq!(rest(&mut idle).await, "");
        assert!(TcpStream::connect(running.bound[0]).await.is_err());
        assert!(!running.serving.is_finished());
        running.doors.open.notify_one();
        let answer = rest(&mut busy).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(
            answer.to_lowercase().contains("connection: close"),
            "{answer}"
        );
        running.serving.await.unwrap().unwrap();
    }

    async fn switch(running: &Running, behind: &[u8]) -> TcpStream {
        let mut stream = running.connect().await;
        let request =
            b"GET /switch HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
        stream.write_all(&[request, behind].concat()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "));
        stream
    }

    #[tokio::test]
    async fn after_a_101_the_session_has_the_connection_and_what_was_read() {
        let running = start(settings(tcp()));
        let mut stream = switch(&running, b"GET / early").await;
        stream.write_all(b" late").await.unwrap();
        let mut heard = [0; 16];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"GET / early late");
        stream.shutdown().await.unwrap();
        assert_eq!(rest(&mut stream).await, "");
        running.end(Stage::Stopping).await;
    }

    #[tokio::test]
    async fn a_session_keeps_its_place_and_is_told_to_end_when_the_server_drains() {
        let running = start(Settings {
            max_connections: 1,
            ..settings(tcp())
        });
        let mut stream = switch(&running, b"").await;
        let mut waiting = running.connect().await;
        send(&mut waiting, "/").await;
        let served = tokio::time::timeout(Duration::from_millis(50), receive(&mut waiting));
        assert!(served.await.is_err(), "there is no room for it");
        running.stage.send_replace(Stage::Draining);
        assert_eq!(rest(&mut stream).await, "goodbye");
        running.serving.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn draining_ends_in_time_and_at_once_when_told_to_stop() {
        for (drain_timeout, then) in [
            (Duration::from_millis(50), Stage::Draining),
            (Duration::from_secs(60), Stage::Stopping),
        ] {
            let running = start(Settings {
                drain_timeout,
                ..settings(tcp())
            });
            let mut busy = running.connect().await;
            send(&mut busy, "/wait").await;
            running.doors.entered.notified().await;
            running.stage.send_replace(Stage::Draining);
            running.end(then).await;
            assert_eq!(rest(&mut busy).await, "");
        }
    }

    #[tokio::test]
    async fn all_workers_share_one_drain_timeout() {
        let drain_timeout = Duration::from_secs(1);
        let running = start(Settings {
            drain_timeout,
            threads: 3,
            ..settings(tcp())
        });
        let mut busy = Vec::new();
        for _ in 0..3 {
            let mut stream = running.connect().await;
            send(&mut stream, "/wait").await;
            running.doors.entered.notified().await;
            busy.push(stream);
        }
        let started = tokio::time::Instant::now();
        running.end(Stage::Draining).await;
        assert!(started.elapsed() < 2 * drain_timeout);
    }

    #[tokio::test]
    async fn a_unix_socket_has_its_mode_replaces_a_stale_one_and_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.sock");
        let listener = || Listener::Unix {
            path: path.clone(),
            mode: 0o660,
            group: None,
        };
        // What a killed process leaves: a socket that nobody listens on.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let running = start(settings(listener()));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let mut stream = UnixStream::connect(&path).await.unwrap();
        send(&mut stream, "/").await;
        receive(&mut stream).await;
        assert!(matches!(
            bind(settings(listener())),
            Err(Error::Listen { .. })
        ));
        running.end(Stage::Stopping).await;
        assert!(!path.exists());
    }

    #[test]
    fn a_file_in_the_place_of_a_unix_socket_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        std::fs::write(&path, "content").unwrap();
        let listener = Listener::Unix {
            path: path.clone(),
            mode: 0o660,
            group: None,
        };
        assert!(matches!(
            bind(settings(listener)),
            Err(Error::Listen { .. })
        ));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "content");
    }

    #[test]
    fn what_the_system_cannot_give_is_refused_at_start() {
        let unknown_group = Listener::Unix {
            path: "/nowhere/proxy.sock".into(),
            mode: 0o660,
            group: Some("no such group".to_owned()),
        };
        assert!(matches!(
            bind(settings(unknown_group)),
            Err(Error::GroupUnknown(_))
        ));
        let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        if let Some(hard) = hard {
            let greedy = Settings {
                max_connections: usize::try_from(hard).unwrap() - 2047,
                ..settings(tcp())
            };
            assert!(matches!(bind(greedy), Err(Error::TooFewDescriptors { .. })));
        }
    }
}

//! The server with a handler of the tests, over real sockets.

mod draining;

use super::*;
use http_body_util::Full;
use std::os::unix::fs::PermissionsExt;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const SECOND: Duration = Duration::from_secs(1);

/// Says which thread answers; waits, or panics, where the path says so.
struct Porter(Arc<Doors>);

/// What the tests and the handlers on the workers say to each other.
#[derive(Default)]
struct Doors {
    entered: Notify,
    open: Notify,
    /// A worker that was asked to hang does so no more.
    goes_on: AtomicBool,
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
            "/hang" => {
                self.0.entered.notify_one();
                while !self.0.goes_on.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
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

/// Listens, and inherits nothing.
fn bind(settings: Settings) -> Result<Bound, Error> {
    super::bind(settings, &mut Inherited::default())
}

struct Running {
    bound: Vec<SocketAddr>,
    pulse: Pulse,
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
        threads: 2,
        times: times(),
    }
}

fn times() -> Times {
    Times {
        drain_delay: Duration::ZERO,
        drain_timeout: Duration::from_secs(60),
        stall_timeout: SECOND,
    }
}

fn start(settings: Settings) -> Running {
    let times = watch::channel(settings.times).1;
    let bound = bind(settings).unwrap();
    let doors = Arc::new(Doors::default());
    let (stage, watched) = watch::channel(Stage::Serving);
    let (addresses, pulse) = (bound.local_addrs(), bound.pulse());
    let shared = doors.clone();
    let new_handler = move || Porter(shared.clone());
    Running {
        bound: addresses,
        pulse,
        doors,
        stage,
        serving: tokio::spawn(serve(bound, new_handler, times, watched)),
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
    let porter = Rc::new(super::answers(
        Porter(Arc::default()),
        watch::channel(times()).1,
    ));
    let peer = Peer::Uid(0);
    let (served, answers) = tokio::join!(serve_connection(peer, stream, porter, stage), calling);
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

#[tokio::test]
async fn one_worker_that_hangs_is_no_sign_of_life_of_all() {
    let running = start(settings(tcp()));
    running.pulse.beat().await;
    let mut caller = TcpStream::connect(running.bound[0]).await.unwrap();
    caller
        .write_all(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    running.doors.entered.notified().await;
    let mut beat = pin!(running.pulse.beat());
    assert!(timeout(SECOND / 4, &mut beat).await.is_err(), "it hangs");
    running.doors.goes_on.store(true, Ordering::SeqCst);
    beat.await;
    running.stage.send(Stage::Draining).unwrap();
    let pulse = running.pulse.clone();
    drop(caller);
    running.serving.await.unwrap().unwrap();
    pulse.beat().await;
}

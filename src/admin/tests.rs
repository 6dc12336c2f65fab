//! What the status listener answers, and to how many connections at a time.

mod api;
mod streams;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Method, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1 as client;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::error::Error;
use crate::server::{Inherited, Listener};
use crate::store;
use crate::telemetry::Log;

/// What its store says, and what it suffers from.
#[derive(Default)]
struct Still {
    unwritable: Option<store::Error>,
    conditions: Vec<(Code, String)>,
    away: Option<store::Away>,
    logins: Logins,
    /// How often something was renewed or forgotten.
    done: AtomicUsize,
}

impl Engine for Still {
    fn writable(&self) -> Result<(), store::Error> {
        self.unwritable.clone().map_or(Ok(()), Err)
    }

    async fn report(&self) {}

    fn away(&self) -> Option<store::Away> {
        self.away.clone()
    }

    fn unreachable(&self) -> Option<(String, std::time::SystemTime)> {
        None
    }

    async fn logins(&self) -> Logins {
        self.logins.clone()
    }

    fn conditions(&self, _: &Logins) -> Vec<(Code, String)> {
        self.conditions.clone()
    }

    fn tokens(&self) -> Tokens {
        Tokens::default()
    }

    fn hosts(&self) -> Vec<Host> {
        Vec::new()
    }

    fn room(&self) -> Vec<Room> {
        Vec::new()
    }

    fn settings(&self) -> Value {
        serde_json::json!({ "listen": "127.0.0.1:8080" })
    }

    async fn budget(&self) -> Result<Value, Error> {
        Ok(serde_json::json!({ "remaining": 4 }))
    }

    async fn principals(&self, after: Option<String>, limit: usize) -> Result<Listing, Error> {
        Ok(Listing {
            principals: vec![serde_json::json!({ "after": after, "limit": limit })],
            next: None,
        })
    }

    async fn explain(&self, who: &str) -> Result<Option<Value>, Error> {
        let known = who == "account:known";
        Ok(known.then(|| serde_json::json!({ "principal": who })))
    }

    async fn renew(&self, who: &str) -> Result<Option<Renewed>, Error> {
        self.done.fetch_add(1, Ordering::Relaxed);
        let renewed = Renewed {
            outcome: "refreshed",
            message: "A refresh brought a new pair.",
        };
        Ok((who == "account:known").then_some(renewed))
    }

    async fn forget(&self, who: &str) -> Result<bool, Error> {
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(who == "account:known")
    }
}

/// What is told of `engine`, what sets it if it is `None`, and what ends it.
struct Scene<E> {
    answers: Arc<Answers<E>>,
    engine: Arc<OnceLock<E>>,
    stage: watch::Sender<Stage>,
    recent: Recent,
}

fn scene<E: Engine>(engine: Option<E>) -> Scene<E> {
    let (sender, stage) = watch::channel(Stage::Serving);
    let started = Arc::new(OnceLock::new());
    if let Some(engine) = engine {
        assert!(started.set(engine).is_ok());
    }
    let log = Log::open(telemetry::Format::Text).unwrap();
    let answers = Answers::new(Status {
        head: Arc::default(),
        reloads: Reloads::unanswered("x.toml"),
        engine: started.clone(),
        metrics: Arc::default(),
        started: SystemTime::now(),
        stage,
        log: log.lines().health(),
        recent: log.lines().recent().clone(),
    });
    Scene {
        answers,
        engine: started,
        stage: sender,
        recent: log.lines().recent().clone(),
    }
}

fn status(engine: Option<Still>) -> (Scene<Still>, watch::Sender<Stage>) {
    let scene = scene(engine);
    let stage = scene.stage.clone();
    (scene, stage)
}

fn well() -> Option<Still> {
    Some(Still::default())
}

/// The answer to a request that has come as this listener's connections bring it.
async fn asked(
    scene: &Scene<impl Engine>,
    serves: Serves,
    request: http::request::Builder,
) -> Response<Bytes> {
    asked_with(scene, serves, request, Bytes::new()).await
}

/// The same with content.
async fn asked_with(
    scene: &Scene<impl Engine>,
    serves: Serves,
    request: http::request::Builder,
    content: Bytes,
) -> Response<Bytes> {
    let (near, far) = tokio::io::duplex(1 << 20);
    let asks = Asks {
        serves,
        answers: scene.answers.clone(),
        connection: Connection::default(),
    };
    let serving = tokio::spawn(serve_connection(far, asks));
    let (mut sender, connection) = client::handshake(TokioIo::new(near)).await.unwrap();
    let driving = tokio::spawn(connection);
    let request = request.body(Full::new(content)).unwrap();
    let (head, content) = sender.send_request(request).await.unwrap().into_parts();
    let content = content.collect().await.unwrap().to_bytes();
    serving.abort();
    driving.abort();
    Response::from_parts(head, content)
}

async fn answered(scene: &Scene<Still>, method: Method, path: &str) -> Response<Bytes> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "pod-7.example:9091");
    asked(scene, Serves::Health, request).await
}

async fn get(status: &Scene<Still>, path: &str) -> (u16, serde_json::Value) {
    let answer = answered(status, Method::GET, path).await;
    let json = serde_json::from_slice(answer.body()).unwrap_or_default();
    (answer.status().as_u16(), json)
}

#[tokio::test]
async fn a_store_that_cannot_be_written_is_not_ready_and_says_why() {
    let full = store::Error::Unwritable("disk full".to_owned());
    let (status, _stage) = status(Some(Still {
        unwritable: Some(full),
        ..Still::default()
    }));
    let (code, said) = get(&status, "/readyz").await;
    assert_eq!((code, &said["ok"]), (503, &false.into()));
    assert_eq!(said["reasons"][0]["code"], "store_unwritable");
    let why = said["reasons"][0]["message"].as_str().unwrap();
    assert!(why.contains("disk full"), "{why}");
    assert_eq!(get(&status, "/livez").await.0, 200);
    assert_eq!(get(&status, "/startupz").await.0, 200);
}

#[tokio::test]
async fn before_the_store_is_open_it_is_starting_and_alive() {
    let (status, _stage) = status(None);
    for path in ["/readyz", "/startupz"] {
        let (code, said) = get(&status, path).await;
        assert_eq!(
            (code, &said["reasons"][0]["code"]),
            (503, &"starting".into())
        );
    }
    assert_eq!(get(&status, "/livez").await.0, 200);
    assert!(status.engine.set(well().unwrap()).is_ok());
    assert_eq!(get(&status, "/readyz").await.0, 200);
    assert_eq!(get(&status, "/startupz").await.0, 200);
}

#[tokio::test]
async fn while_requests_drain_it_is_not_ready() {
    let (status, stage) = status(well());
    for stage_of_the_end in [Stage::Leaving, Stage::Draining, Stage::Stopping] {
        stage.send_replace(stage_of_the_end);
        let (code, said) = get(&status, "/readyz").await;
        assert_eq!(
            (code, &said["reasons"][0]["code"]),
            (503, &"draining".into())
        );
        assert_eq!(get(&status, "/livez").await.0, 200);
    }
}

#[tokio::test]
async fn what_does_not_keep_it_from_serving_is_degraded_since_it_was_seen_first() {
    let blocked = (Code::LoginBlocked, "for 60 s".to_owned());
    let (status, _stage) = status(Some(Still {
        conditions: vec![blocked],
        ..Still::default()
    }));
    let (code, first) = get(&status, "/readyz").await;
    assert_eq!((code, &first["ok"]), (200, &true.into()));
    assert_eq!(first["reasons"], serde_json::json!([]));
    assert_eq!(first["degraded"][0]["code"], "login_blocked");
    assert_eq!(first["degraded"][0]["message"], "for 60 s");
    let since = first["degraded"][0]["since"].as_str().unwrap();
    assert!(since.parse::<jiff::Timestamp>().is_ok(), "{since}");
    assert_eq!(get(&status, "/readyz").await.1, first);
}

#[tokio::test]
async fn a_store_that_is_away_is_degraded_since_then_and_never_unready() {
    let away = store::Away {
        since: std::time::SystemTime::UNIX_EPOCH,
        why: "no route to db1".to_owned(),
    };
    let (status, _stage) = status(Some(Still {
        away: Some(away),
        ..Still::default()
    }));
    let (code, said) = get(&status, "/readyz").await;
    assert_eq!((code, &said["ok"]), (200, &true.into()));
    assert_eq!(said["degraded"][0]["code"], "store_away");
    assert_eq!(said["degraded"][0]["since"], "1970-01-01T00:00:00Z");
    let message = said["degraded"][0]["message"].as_str().unwrap();
    assert!(message.contains("no route to db1"), "{message}");
}

#[tokio::test]
async fn nothing_but_get_and_head_and_nothing_but_its_own_paths() {
    let (status, _stage) = status(well());
    for method in [Method::POST, Method::DELETE, Method::TRACE] {
        for path in ["/livez", "/startupz", "/readyz", "/metrics"] {
            let answer = answered(&status, method.clone(), path).await;
            assert_eq!(answer.status(), 405);
            assert_eq!(answer.headers()[header::ALLOW], "GET, HEAD");
            let said: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
            assert_eq!(said["Errors"][0]["Key"], "method_unknown");
        }
        assert_eq!(answered(&status, method, "/trips").await.status(), 404);
    }
    assert_eq!(
        answered(&status, Method::HEAD, "/livez").await.status(),
        200
    );
    assert_eq!(get(&status, "/trips").await.0, 404);
    assert_eq!(get(&status, "/livez/../metrics").await.0, 404);
}

async fn exchange(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{head}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Serves this on an address.
fn listen(scene: &Scene<impl Engine>, serves: Serves) -> SocketAddr {
    let any = Listener::Tcp("127.0.0.1:0".parse().unwrap());
    let socket = Socket::open(&any, &mut Inherited::default()).unwrap();
    let address = socket.address().unwrap();
    tokio::spawn(serve(socket, serves, scene.answers.clone()));
    address
}

async fn listening() -> (SocketAddr, watch::Sender<Stage>) {
    let (scene, stage) = status(well());
    (listen(&scene, Serves::Health), stage)
}

#[tokio::test]
async fn probes_answer_any_host_and_metrics_those_that_are_served() {
    let (address, _stage) = listening().await;
    for (head, expected) in [
        (
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\n",
            "damoov_proxy_build_info",
        ),
        (
            "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n",
            "misdirected",
        ),
        (
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n",
            "origin_forbidden",
        ),
        (
            "GET /readyz HTTP/1.1\r\nHost: evil.example\r\n",
            "HTTP/1.1 200 OK",
        ),
        ("GET /livez HTTP/1.0\r\n", "HTTP/1.0 200 OK"),
        (
            "HEAD /readyz HTTP/1.1\r\nHost: pod-7\r\n",
            "HTTP/1.1 200 OK",
        ),
    ] {
        let answer = exchange(address, head).await;
        assert!(answer.contains(expected), "{answer}");
        let has_no_content = answer.ends_with("\r\n\r\n");
        assert_eq!(has_no_content, head.starts_with("HEAD"), "{answer}");
    }
}

/// This many connections on which `said` was said, each read until `heard` is heard.
async fn connections(address: SocketAddr, count: usize, said: &str, heard: &str) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..count {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        // So that an answer that is not read is noticed soon.
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut so_far = String::new();
        while !so_far.contains(heard) {
            so_far.push(char::from(stream.read_u8().await.unwrap()));
        }
        all.push(stream);
    }
    all
}

/// Whether the other side has closed it.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let moment = Duration::from_millis(20);
    let read = tokio::time::timeout(moment, stream.read(&mut [0])).await;
    read.is_ok_and(|read| read.unwrap_or(0) == 0)
}

const PROBE: &str = "GET /livez HTTP/1.1\r\nHost: x\r\n";
const ASKED: &str = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn a_connection_that_asks_for_nothing_gives_way_to_a_probe() {
    for (said, heard) in [("", ""), ("GET /livez HT", ""), (ASKED, "degraded\":[]}")] {
        let (address, _stage) = listening().await;
        let mut idle = connections(address, 2 * connections::MOST, said, heard).await;
        let answer = exchange(address, PROBE).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        // The oldest ones were closed, and no more than had to be.
        assert!(is_closed(&mut idle[0]).await);
        assert!(!is_closed(idle.last_mut().unwrap()).await);
    }
}

#[tokio::test]
async fn nobody_gives_way_while_there_is_room_and_the_silent_ones_do_first() {
    let (address, _stage) = listening().await;
    let count = connections::MOST - 1 - connections::NEWEST;
    let mut used = connections(address, count, ASKED, "degraded\":[]}").await;
    let mut silent = connections(address, 1, "", "").await;
    used.extend(connections(address, connections::NEWEST, ASKED, "degraded\":[]}").await);
    assert!(!is_closed(&mut silent[0]).await);
    exchange(address, PROBE).await;
    assert!(is_closed(&mut silent[0]).await);
    for stream in &mut used {
        stream.write_all(ASKED.as_bytes()).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'H');
    }
}

#[tokio::test]
async fn a_probe_among_many_that_come_has_the_time_to_ask() {
    let (address, _stage) = listening().await;
    let answered = "degraded\":[]}";
    let _idle = connections(address, connections::MOST, ASKED, answered).await;
    let mut probe = TcpStream::connect(address).await.unwrap();
    let _others = connections(address, connections::NEWEST - 1, ASKED, answered).await;
    probe.write_all(ASKED.as_bytes()).await.unwrap();
    assert_eq!(probe.read_u8().await.unwrap(), b'H');
}

#[tokio::test]
async fn readers_that_read_nothing_give_way_too() {
    let (address, _stage) = listening().await;
    // More answers than the buffers of a connection take.
    let asked = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(40);
    let _unread = connections(address, connections::MOST, &asked, "").await;
    let answer = exchange(address, PROBE).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_store_that_does_not_answer_holds_up_no_other_probe() {
    let scene = scene(Some(Hanging));
    let address = listen(&scene, Serves::Health);
    let asked = "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n";
    let _waiting = connections(address, 2 * connections::MOST, asked, "").await;
    let answer = exchange(address, PROBE).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// Says nothing of itself, ever.
struct Hanging;

impl Engine for Hanging {
    fn writable(&self) -> Result<(), store::Error> {
        Ok(())
    }

    async fn report(&self) {
        std::future::pending().await
    }

    fn away(&self) -> Option<store::Away> {
        None
    }

    fn unreachable(&self) -> Option<(String, std::time::SystemTime)> {
        None
    }

    async fn logins(&self) -> Logins {
        std::future::pending().await
    }

    fn conditions(&self, _: &Logins) -> Vec<(Code, String)> {
        Vec::new()
    }

    fn tokens(&self) -> Tokens {
        Tokens::default()
    }

    fn hosts(&self) -> Vec<Host> {
        Vec::new()
    }

    fn room(&self) -> Vec<Room> {
        Vec::new()
    }

    fn settings(&self) -> Value {
        Value::Null
    }

    async fn budget(&self) -> Result<Value, Error> {
        std::future::pending().await
    }

    async fn principals(&self, _: Option<String>, _: usize) -> Result<Listing, Error> {
        std::future::pending().await
    }

    async fn explain(&self, _: &str) -> Result<Option<Value>, Error> {
        std::future::pending().await
    }

    async fn renew(&self, _: &str) -> Result<Option<Renewed>, Error> {
        std::future::pending().await
    }

    async fn forget(&self, _: &str) -> Result<bool, Error> {
        std::future::pending().await
    }
}

//! What the listeners answer, and to how many connections at a time: an engine that does nothing, and how it is
//! asked.

mod api;
mod probes;
mod room;
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
    /// It does not say what stands in the way of logins, ever.
    hangs: bool,
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
        if self.hangs {
            std::future::pending::<()>().await;
        }
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

/// What is told of an engine, what sets it if there is none, and what ends it.
struct Scene {
    answers: Arc<Answers<Still>>,
    engine: Arc<OnceLock<Still>>,
    stage: watch::Sender<Stage>,
    recent: Recent,
}

fn scene(engine: Option<Still>) -> Scene {
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

fn well() -> Option<Still> {
    Some(Still::default())
}

/// The answer to a request that has come as this listener's connections bring it.
async fn asked(scene: &Scene, serves: Serves, request: http::request::Builder) -> Response<Bytes> {
    asked_with(scene, serves, request, Bytes::new()).await
}

/// The same with content.
async fn asked_with(
    scene: &Scene,
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

async fn exchange(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{head}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Serves this on an address.
fn listen(scene: &Scene, serves: Serves) -> SocketAddr {
    let any = Listener::Tcp("127.0.0.1:0".parse().unwrap());
    let socket = Socket::open(&any, &mut Inherited::default()).unwrap();
    let address = socket.address().unwrap();
    tokio::spawn(serve(socket, serves, scene.answers.clone()));
    address
}

async fn listening() -> (SocketAddr, watch::Sender<Stage>) {
    let scene = scene(well());
    (listen(&scene, Serves::Health), scene.stage)
}

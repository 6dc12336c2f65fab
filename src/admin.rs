//! The `[status]` listener: whether the process lives, has started and is ready, and its metrics.
//! GET only; never shares the listener of requests.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::Error;
use crate::metrics::Metrics;
use crate::proxy::head::{self, Rejection};
use crate::server::Stage;
use crate::store;

/// More connections than this wait in the backlog.
const MAX_CONNECTIONS: usize = 64;
/// From the first byte that could come to the last one of a head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long accepting rests when the system is out of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What the process still waits for before it has started. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    waiting_for: Arc<Mutex<Vec<&'static str>>>,
}

/// One component that is not ready yet. Dropping it says that it is.
#[derive(Debug)]
#[must_use = "dropped at once, it makes the component ready at once"]
pub struct Starting {
    readiness: Readiness,
    component: &'static str,
}

impl Readiness {
    /// The process has not started until what this returns is dropped.
    pub fn wait_for(&self, component: &'static str) -> Starting {
        self.list().push(component);
        Starting {
            readiness: self.clone(),
            component,
        }
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<&'static str>> {
        // The list is whole between any two calls, whoever panicked.
        self.waiting_for
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let mut list = self.readiness.list();
        if let Some(at) = list.iter().position(|waiting| *waiting == self.component) {
            list.remove(at);
        }
    }
}

/// What the listener tells.
pub struct Status {
    /// Which hosts and origins may ask.
    pub head: head::Settings,
    /// Whether everything has started.
    pub readiness: Readiness,
    /// Whether the store can make renewals durable: [`Store::writable`](store::Store::writable).
    pub writable: Box<dyn Fn() -> Result<(), store::Error> + Send + Sync>,
    /// Brings those metrics up to date that are read off rather than counted.
    pub report: Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
    /// All of them.
    pub metrics: Arc<Metrics>,
    /// Whether requests are still taken.
    pub stage: watch::Receiver<Stage>,
}

/// Listens; nothing is answered before [`serve`].
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers until the server stops: while requests drain, probes still get to know it.
pub async fn serve(listener: TcpListener, status: Status) {
    let mut stage = status.stage.clone();
    let status = Arc::new(status);
    let answering = async {
        let mut connections = JoinSet::new();
        loop {
            if connections.len() >= MAX_CONNECTIONS {
                connections.join_next().await;
            }
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(converse(stream, status.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept connections; resting");
                        tokio::time::sleep(ACCEPT_REST).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    };
    tokio::select! {
        () = answering => {}
        _ = stage.wait_for(|stage| *stage == Stage::Stopping) => {}
    }
}

async fn converse(stream: TcpStream, status: Arc<Status>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (head, _content) = request.into_parts();
        let status = status.clone();
        async move {
            if head.uri.path() == "/metrics" {
                (status.report)().await;
            }
            Ok::<_, Infallible>(status.answer(&head).map(Full::new))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection of the status listener broke");
    }
}

impl Status {
    fn answer(&self, head: &http::request::Parts) -> Response<Bytes> {
        let target = match head::check(head, &self.head) {
            Ok(target) => target,
            Err(rejection) => return Error::from(rejection).answer(),
        };
        if head.method != Method::GET {
            return Error::from(Rejection::Method).answer();
        }
        match target.path() {
            "/livez" => probe(Vec::new()),
            "/startupz" => probe(self.not_started()),
            "/readyz" => probe(self.not_ready()),
            "/metrics" => answer(
                StatusCode::OK,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                self.metrics.encode(),
            ),
            _ => Error::RouteUnknown.answer(),
        }
    }

    fn not_started(&self) -> Vec<String> {
        let waiting = self.readiness.list();
        waiting
            .iter()
            .map(|c| format!("{c} has not started"))
            .collect()
    }

    fn not_ready(&self) -> Vec<String> {
        let mut reasons = self.not_started();
        if *self.stage.borrow() > Stage::Serving {
            reasons.push("requests are draining".to_owned());
        }
        if let Err(error) = (self.writable)() {
            reasons.push(error.to_string());
        }
        reasons
    }
}

/// 200 where nothing speaks against it, else 503 with the reasons.
fn probe(reasons: Vec<String>) -> Response<Bytes> {
    let status = match reasons.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let content = serde_json::json!({ "ok": reasons.is_empty(), "reasons": reasons });
    answer(status, "application/json", content.to_string())
}

fn answer(status: StatusCode, kind: &'static str, content: String) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from(content));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn status(writable: Result<(), store::Error>) -> (Status, watch::Sender<Stage>) {
        let (sender, stage) = watch::channel(Stage::Serving);
        let status = Status {
            head: head::Settings::default(),
            readiness: Readiness::default(),
            writable: Box::new(move || writable.clone()),
            report: Box::new(|| Box::pin(async {})),
            metrics: Arc::default(),
            stage,
        };
        (status, sender)
    }

    fn ask(status: &Status, method: Method, path: &str) -> (u16, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .body(())
            .unwrap();
        let answer = status.answer(&request.into_parts().0);
        let text = String::from_utf8(answer.body().to_vec()).unwrap();
        (answer.status().as_u16(), text)
    }

    fn get(status: &Status, path: &str) -> (u16, String) {
        ask(status, Method::GET, path)
    }

    #[test]
    fn the_process_has_started_when_every_component_has() {
        let (status, _stage) = status(Ok(()));
        let (store, listener) = (
            status.readiness.wait_for("store"),
            status.readiness.wait_for("listener"),
        );
        drop(store);
        let (code, why) = get(&status, "/startupz");
        assert_eq!(code, 503);
        assert!(why.contains("listener") && !why.contains("store"), "{why}");
        assert_eq!(get(&status, "/livez").0, 200);
        assert_eq!(get(&status, "/readyz").0, 503);
        drop(listener);
        assert_eq!(get(&status, "/startupz").0, 200);
        assert_eq!(get(&status, "/readyz").0, 200);
    }

    #[test]
    fn a_store_that_cannot_be_written_is_not_ready_and_says_why() {
        let (status, _stage) = status(Err(store::Error::Unwritable("disk full".to_owned())));
        let (code, why) = get(&status, "/readyz");
        assert_eq!(code, 503);
        assert!(why.contains("disk full"), "{why}");
        assert_eq!(get(&status, "/livez").0, 200);
        assert_eq!(get(&status, "/startupz").0, 200);
    }

    #[test]
    fn while_requests_drain_it_is_not_ready() {
        let (status, stage) = status(Ok(()));
        stage.send_replace(Stage::Draining);
        assert_eq!(get(&status, "/readyz").0, 503);
        assert_eq!(get(&status, "/livez").0, 200);
    }

    #[test]
    fn nothing_but_get_and_nothing_but_its_own_paths() {
        let (status, _stage) = status(Ok(()));
        assert_eq!(ask(&status, Method::POST, "/livez").0, 405);
        assert_eq!(ask(&status, Method::DELETE, "/metrics").0, 405);
        assert_eq!(get(&status, "/trips").0, 404);
        assert_eq!(get(&status, "/livez/../metrics").0, 400);
    }

    #[tokio::test]
    async fn metrics_come_over_the_socket_and_a_rebound_name_is_not_served() {
        let (status, stage) = status(Ok(()));
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, status));
        for (host, expected) in [
            ("localhost", "damoov_proxy_build_info"),
            ("evil.example", "misdirected"),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request =
                format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.contains(expected), "{answer}");
        }
        stage.send_replace(Stage::Stopping);
        serving.await.unwrap();
    }
}

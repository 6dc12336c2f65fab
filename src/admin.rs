//! The `[status]` listener: whether the process lives, has started and is ready, and its metrics.
//! GET only; never shares the listener of requests.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
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

use crate::credentials::Provider;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::proxy::head::{self, Rejection};
use crate::server::Stage;
use crate::store::Store;

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
    /// Whether renewals can be made durable.
    pub store: Arc<dyn Store>,
    /// Brings those metrics up to date that are read off rather than counted.
    pub provider: Provider,
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
        async move { Ok::<_, Infallible>(status.answer(&head).await.map(Full::new)) }
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
    async fn answer(&self, head: &http::request::Parts) -> Response<Bytes> {
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
            "/metrics" => {
                self.provider.report().await;
                answer(
                    StatusCode::OK,
                    "application/openmetrics-text; version=1.0.0; charset=utf-8",
                    self.metrics.encode(),
                )
            }
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
        if let Err(error) = self.store.writable() {
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

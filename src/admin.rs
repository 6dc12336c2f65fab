//! The `[status]` listener: whether the process lives, has started and is ready, and its metrics.
//! GET and HEAD only; never shares the listener of requests. It answers before the store is opened:
//! that may take a while, and a probe must be able to tell that it goes on.

mod connections;
mod readiness;
mod write_timeout;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
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

pub use self::readiness::{Code, Engine};

use self::connections::{Connection, Connections};
use self::readiness::{Readiness, Report};
use self::write_timeout::WriteTimeout;

use crate::error::Error;
use crate::head;
use crate::metrics::{Format, Metrics};
use crate::reload::Reloads;
use crate::server::Stage;
use crate::telemetry;
use crate::telemetry::episode::{Chain, Episode};

/// What there is.
const PATHS: [&str; 4] = ["/livez", "/startupz", "/readyz", "/metrics"];
/// From the first byte that could come to the last one of a head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long accepting rests when the system is out of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What the listener tells.
pub struct Status<E> {
    /// Which hosts and origins may ask for metrics; a reload replaces it.
    pub head: Arc<ArcSwap<head::Settings>>,
    /// Every metric.
    pub metrics: Arc<Metrics>,
    /// Whether requests are still taken.
    pub stage: watch::Receiver<Stage>,
    /// What is in force of the configuration, and what is not.
    pub reloads: Reloads,
    /// Whether the log can be written.
    pub log: telemetry::Health,
    /// Whether credentials can be renewed, and how many there are; unset until it has started.
    pub engine: Arc<OnceLock<E>>,
}

/// Listens; nothing is answered before [`serve`].
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers until it is dropped: while requests drain and renewals end, probes still get to know it.
pub async fn serve(listener: TcpListener, status: Status<impl Engine>) {
    let status = Arc::new(Answers {
        readiness: Readiness::default(),
        status,
    });
    let failing = Episode::new();
    let mut connections = Connections::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Some(over) = failing.worked() {
                        let seconds = over.seconds();
                        tracing::warn!(seconds, "connections of [status] are accepted again");
                    }
                    let connection = Connection::default();
                    connections.take(connection.clone(), serve_connection(stream, status.clone(), connection));
                }
                Err(error) => {
                    if failing.failed() {
                        tracing::warn!(%error, "cannot accept connections of [status]; pausing after each attempt");
                    }
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            },
            () = connections.one_has_ended() => {}
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    status: Arc<Answers<impl Engine>>,
    connection: Connection,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (head, _content) = request.into_parts();
        let status = status.clone();
        let answering = connection.answering();
        async move {
            let answer = status.answer(&head).await;
            drop(answering);
            Ok::<_, Infallible>(answer.map(Full::new))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(WriteTimeout::new(stream)), service);
    if let Err(error) = connection.await {
        tracing::debug!(error = %Chain(&error), "a connection of the status listener broke");
    }
}

/// What the listener answers.
struct Answers<E> {
    readiness: Readiness,
    status: Status<E>,
}

impl<E: Engine> Answers<E> {
    async fn answer(&self, head: &http::request::Parts) -> Response<Bytes> {
        let path = head.uri.path();
        let is_read = matches!(head.method, Method::GET | Method::HEAD);
        if PATHS.contains(&path) && !is_read {
            let mut refusal = Error::from(head::Rejection::Method).answer();
            let allowed = HeaderValue::from_static("GET, HEAD");
            refusal.headers_mut().insert(header::ALLOW, allowed);
            return refusal;
        }
        let Status { metrics, .. } = &self.status;
        match path {
            // Probes come under any name: of a pod, of a service, of a load balancer's choice.
            "/livez" => Report::of(Vec::new(), Vec::new()).answer(),
            "/startupz" => self.readiness.started(&self.status).answer(),
            "/readyz" => self.readiness.look(&self.status).await.answer(),
            "/metrics" => {
                let seen = head::Seen::of(&head.headers);
                if let Err(rejection) = head::check(head, seen, &self.status.head.load()) {
                    return Error::from(rejection).answer();
                }
                if let Some(engine) = self.status.engine.get() {
                    engine.report().await;
                }
                let is_ready = self.readiness.reasons(&self.status).is_empty();
                metrics.ready.set(i64::from(is_ready));
                let format = Format::asked_for(&head.headers);
                let content = metrics.encode(format);
                answer(StatusCode::OK, format.content_type(), content)
            }
            _ => Error::RouteUnknown(None).answer(),
        }
    }
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
mod tests;

//! The `[status]` listener: whether the process lives, has started and is ready, and its metrics.
//! GET only; never shares the listener of requests. It answers nothing before requests are served,
//! so that whoever gets an answer knows that the process has started.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
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
use crate::metrics::{Format, Metrics};
use crate::proxy::head;
use crate::server::Stage;
use crate::store;
use crate::telemetry::episode::{Chain, Episode};

/// More connections than this wait in the backlog.
const MAX_CONNECTIONS: usize = 64;
/// From the first byte that could come to the last one of a head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long accepting rests when the system is out of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What the listener tells.
pub struct Status<E> {
    /// Which hosts and origins may ask.
    pub head: head::Settings,
    /// Whether credentials can be renewed, and how many there are.
    pub engine: E,
    /// Every metric.
    pub metrics: Arc<Metrics>,
    /// Whether requests are still taken.
    pub stage: watch::Receiver<Stage>,
}

/// What is asked of the renewal engine.
pub trait Engine: Send + Sync + 'static {
    /// Whether renewals can be made durable.
    fn writable(&self) -> Result<(), store::Error>;

    /// Brings those metrics up to date that are read off rather than counted.
    fn report(&self) -> impl Future<Output = ()> + Send;
}

impl Engine for Provider {
    fn writable(&self) -> Result<(), store::Error> {
        Provider::writable(self)
    }

    fn report(&self) -> impl Future<Output = ()> + Send {
        Provider::report(self)
    }
}

/// Listens; nothing is answered before [`serve`].
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers until the server stops: while requests drain, probes still get to know it.
pub async fn serve(listener: TcpListener, status: Status<impl Engine>) {
    let mut stage = status.stage.clone();
    let status = Arc::new(status);
    let failing = Episode::new();
    let answering = async {
        let mut connections = JoinSet::new();
        loop {
            if connections.len() >= MAX_CONNECTIONS {
                connections.join_next().await;
            }
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        if let Some(over) = failing.worked() {
                            let seconds = over.seconds();
                            tracing::warn!(seconds, "connections of [status] are accepted again");
                        }
                        connections.spawn(converse(stream, status.clone()));
                    }
                    Err(error) => {
                        if failing.failed() {
                            tracing::warn!(%error, "cannot accept connections of [status]; resting");
                        }
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

async fn converse(stream: TcpStream, status: Arc<Status<impl Engine>>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (head, _content) = request.into_parts();
        let status = status.clone();
        async move {
            if head.uri.path() == "/metrics" {
                status.engine.report().await;
                status
                    .metrics
                    .ready
                    .set(i64::from(status.not_ready().is_empty()));
            }
            Ok::<_, Infallible>(status.answer(&head).map(Full::new))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(error = %Chain(&error), "a connection of the status listener broke");
    }
}

impl<E: Engine> Status<E> {
    fn answer(&self, head: &http::request::Parts) -> Response<Bytes> {
        if head.method != Method::GET {
            let mut refusal = answer(
                StatusCode::METHOD_NOT_ALLOWED,
                "text/plain",
                "use GET\n".to_owned(),
            );
            let get = HeaderValue::from_static("GET");
            refusal.headers_mut().insert(header::ALLOW, get);
            return refusal;
        }
        let target = match head::check(head, head::Seen::of(&head.headers), &self.head) {
            Ok(target) => target,
            Err(rejection) => return Error::from(rejection).answer(),
        };
        match target.path() {
            "/livez" | "/startupz" => probe(Vec::new()),
            "/readyz" => probe(self.not_ready()),
            "/metrics" => {
                let format = Format::asked_for(&head.headers);
                let content = self.metrics.encode(format);
                answer(StatusCode::OK, format.content_type(), content)
            }
            _ => Error::RouteUnknown.answer(),
        }
    }

    fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if *self.stage.borrow() > Stage::Serving {
            reasons.push("requests are draining".to_owned());
        }
        if let Err(error) = self.engine.writable() {
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

    /// What its store says.
    struct Still(Result<(), store::Error>);

    impl Engine for Still {
        fn writable(&self) -> Result<(), store::Error> {
            self.0.clone()
        }

        async fn report(&self) {}
    }

    fn status(writable: Result<(), store::Error>) -> (Status<Still>, watch::Sender<Stage>) {
        let (sender, stage) = watch::channel(Stage::Serving);
        let status = Status {
            head: head::Settings::default(),
            engine: Still(writable),
            metrics: Arc::default(),
            stage,
        };
        (status, sender)
    }

    fn answered(status: &Status<Still>, method: Method, path: &str) -> Response<Bytes> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .body(())
            .unwrap();
        status.answer(&request.into_parts().0)
    }

    fn get(status: &Status<Still>, path: &str) -> (u16, String) {
        let answer = answered(status, Method::GET, path);
        let text = String::from_utf8(answer.body().to_vec()).unwrap();
        (answer.status().as_u16(), text)
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
        for method in [Method::POST, Method::HEAD, Method::TRACE] {
            let answer = answered(&status, method, "/livez");
            assert_eq!(answer.status(), 405);
            assert_eq!(answer.headers()[header::ALLOW], "GET");
        }
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

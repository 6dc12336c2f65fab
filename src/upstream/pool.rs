//! One worker's connections to the API's hosts. HTTP/1.1: a stack of idle connections, the newest
//! on top, because it is the least likely to be closed by the other side. HTTP/2, where the host
//! chose it: one connection that everybody shares. hyper speaks the protocol; this is bookkeeping.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version, uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::metrics::gauge::Gauge;
use rustls::ClientConfig;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::connect::{self, OnThisThread};
use super::{Error, Head, Scheme, Target};

/// A connection is not used again after this, so that a change in DNS is followed.
const MAX_AGE: Duration = Duration::from_secs(300);

/// HTTP/2 flow control: enough for one fast download over a long line.
const HTTP2_WINDOW: u32 = 1024 * 1024;

/// What one worker may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From asking for a connection to having one, a wait for a free one included.
    pub connect_timeout: Duration,
    /// An idle connection is closed after this.
    pub idle_timeout: Duration,
    /// HTTP/1.1 connections to one host; at least 1.
    pub max_connections: usize,
}

/// The connections of one worker. `B` is the content that its requests carry; its default is none.
#[derive(Debug)]
pub struct Pool<B> {
    /// By public name.
    hosts: HashMap<Box<str>, Rc<Host<B>>>,
    /// Closes idle connections; aborted when the pool is dropped.
    _sweeper: JoinSet<()>,
}

/// The content of an answer. Its connection returns to the pool when it is dropped.
#[derive(Debug)]
pub struct Answer<B> {
    incoming: Incoming,
    /// Taken when dropped.
    lease: Option<Lease<B>>,
}

#[derive(Debug)]
struct Host<B> {
    target: Target,
    tls: Arc<ClientConfig>,
    limits: Limits,
    /// One permit for each HTTP/1.1 connection that carries a request. Idle ones hold none: a new
    /// one is opened only when no idle one is left, so that all together stay within the limit.
    free: Arc<Semaphore>,
    /// The newest last.
    idle: RefCell<Vec<Idle<B>>>,
    protocol: RefCell<Protocol<B>>,
    /// Held while connecting, as long as the host is not known to speak HTTP/1.1: everybody else
    /// waits for what it chooses, and one HTTP/2 connection is opened, not one for each request.
    choosing: Mutex<()>,
    /// `upstream_connections`
    open: Gauge,
}

/// What the host chose the last time.
#[derive(Debug)]
enum Protocol<B> {
    Unknown,
    Http1,
    Http2(http2::SendRequest<B>),
}

#[derive(Debug)]
struct Idle<B> {
    sender: http1::SendRequest<B>,
    opened: Instant,
    since: Instant,
}

/// The right to send one request.
#[derive(Debug)]
enum Lease<B> {
    Http1 {
        sender: http1::SendRequest<B>,
        opened: Instant,
        host: Rc<Host<B>>,
        _permit: OwnedSemaphorePermit,
    },
    Http2(http2::SendRequest<B>),
}

/// Whether a connection that carried a request before will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accept {
    Any,
    OnlyNew,
}

impl<B> Pool<B>
where
    B: Body<Data = Bytes> + Default + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    /// A pool for the thread it is made on, which must run a local runtime.
    pub fn new(
        targets: &HashMap<Box<str>, Target>,
        tls: &Arc<ClientConfig>,
        limits: Limits,
        open: &Gauge,
    ) -> Pool<B> {
        let host = |target: &Target| Host {
            target: target.clone(),
            tls: tls.clone(),
            limits,
            free: Arc::new(Semaphore::new(limits.max_connections)),
            idle: RefCell::default(),
            protocol: RefCell::new(match target.scheme {
                Scheme::Http => Protocol::Http1,
                Scheme::Https => Protocol::Unknown,
            }),
            choosing: Mutex::default(),
            open: open.clone(),
        };
        let hosts: HashMap<_, _> = targets
            .iter()
            .map(|(name, target)| (name.clone(), Rc::new(host(target))))
            .collect();
        let mut sweeper = JoinSet::new();
        let swept: Vec<_> = hosts.values().cloned().collect();
        sweeper.spawn_local(async move {
            loop {
                tokio::time::sleep(limits.idle_timeout / 4).await;
                swept.iter().for_each(|host| host.sweep());
            }
        });
        Pool {
            hosts,
            _sweeper: sweeper,
        }
    }

    /// Sends one request to `host` and waits for the head of the answer, until `overdue` ends.
    ///
    /// A request that hit a connection which had died unnoticed is sent once more, if none of it
    /// was written, or if it is a GET, HEAD or OPTIONS without content.
    pub async fn send(
        &self,
        host: &str,
        head: &Head,
        content: B,
        overdue: impl Future<Output = ()>,
    ) -> Result<Response<Answer<B>>, Error> {
        let host = self
            .hosts
            .get(host)
            .expect("the pool was made with the host of every route");
        let mut overdue = pin!(overdue);
        let repeatable = content.is_end_stream()
            && matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);

        let (lease, reused) = host.lease(Accept::Any).await?;
        let request = host.request(&lease, head, content);
        let failed = match lease.exchange(request, overdue.as_mut()).await {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        let content = match failed.unsent {
            _ if !reused || !failed.died() => return Err(failed.error),
            Some(request) => request.into_body(),
            None if repeatable => B::default(),
            None => return Err(failed.error),
        };
        let (lease, _) = host.lease(Accept::OnlyNew).await?;
        let request = host.request(&lease, head, content);
        let second = lease.exchange(request, overdue).await;
        second.map_err(|failed| failed.error)
    }
}

impl<B> Host<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    /// The right to send one request, and whether its connection has been used before.
    async fn lease(self: &Rc<Self>, accept: Accept) -> Result<(Lease<B>, bool), Error> {
        if let Some(shared) = self.shared() {
            return Ok((shared, true));
        }
        let deadline = Instant::now() + self.limits.connect_timeout;
        let permit = timeout_at(deadline, self.free.clone().acquire_owned())
            .await
            .map_err(|_| Error::Busy)?
            .expect("the semaphore is never closed");
        if accept == Accept::Any
            && let Some(idle) = self.pop()
        {
            let lease = Lease::Http1 {
                sender: idle.sender,
                opened: idle.opened,
                host: self.clone(),
                _permit: permit,
            };
            return Ok((lease, true));
        }
        timeout_at(deadline, self.connect(permit))
            .await
            .map_err(|_| Error::ConnectTimeout)?
    }

    async fn connect(
        self: &Rc<Self>,
        permit: OwnedSemaphorePermit,
    ) -> Result<(Lease<B>, bool), Error> {
        let speaks_http1 = matches!(*self.protocol.borrow(), Protocol::Http1);
        let _alone = match speaks_http1 {
            true => None,
            false => Some(self.choosing.lock().await),
        };
        if let Some(shared) = self.shared() {
            return Ok((shared, true));
        }
        let (stream, version) = connect::open(&self.target, &self.tls)
            .await
            .map_err(Error::Unreachable)?;
        let io = TokioIo::new(stream);
        match version {
            connect::Version::Http1 => {
                let (sender, connection) = http1::handshake(io).await.map_err(Error::Broken)?;
                self.drive(connection);
                *self.protocol.borrow_mut() = Protocol::Http1;
                let lease = Lease::Http1 {
                    sender,
                    opened: Instant::now(),
                    host: self.clone(),
                    _permit: permit,
                };
                Ok((lease, false))
            }
            connect::Version::Http2 => {
                let (sender, connection) = http2::Builder::new(OnThisThread)
                    .timer(TokioTimer::new())
                    .initial_stream_window_size(HTTP2_WINDOW)
                    .initial_connection_window_size(4 * HTTP2_WINDOW)
                    .keep_alive_interval(Duration::from_secs(20))
                    .handshake(io)
                    .await
                    .map_err(Error::Broken)?;
                self.drive(connection);
                *self.protocol.borrow_mut() = Protocol::Http2(sender.clone());
                Ok((Lease::Http2(sender), false))
            }
        }
    }

    /// Runs a connection until it is closed, which dropping its senders does too.
    fn drive(&self, connection: impl Future<Output = hyper::Result<()>> + 'static) {
        let open = self.open.clone();
        open.inc();
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an upstream connection broke");
            }
            open.dec();
        });
    }

    /// The HTTP/2 connection, if there is a living one.
    fn shared(&self) -> Option<Lease<B>> {
        match &*self.protocol.borrow() {
            Protocol::Http2(sender) if !sender.is_closed() => Some(Lease::Http2(sender.clone())),
            Protocol::Http2(_) | Protocol::Http1 | Protocol::Unknown => None,
        }
    }

    /// The request as this connection wants it: target, Host and framing are set anew.
    fn request(&self, lease: &Lease<B>, head: &Head, content: B) -> Request<B> {
        let mut headers = head.headers.clone();
        let (version, uri) = match lease {
            Lease::Http1 { .. } => {
                headers.insert(header::HOST, self.target.host.clone());
                (Version::HTTP_11, Uri::from(head.target.clone()))
            }
            Lease::Http2(_) => {
                let mut parts = uri::Parts::default();
                parts.scheme = Some(uri::Scheme::HTTPS);
                parts.authority = Some(self.target.authority.clone());
                parts.path_and_query = Some(head.target.clone());
                let uri = Uri::from_parts(parts).expect("all three parts are there");
                (Version::HTTP_2, uri)
            }
        };
        frame(&mut headers, version, &head.method, &content);
        let mut request = Request::new(content);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = version;
        *request.headers_mut() = headers;
        request
    }
}

impl<B> Host<B> {
    /// The newest idle connection that can still be used. One that is not ready yet, because it
    /// swallows the rest of an answer, is passed over.
    fn pop(&self) -> Option<Idle<B>> {
        let now = Instant::now();
        let mut idle = self.idle.borrow_mut();
        let newest = idle
            .iter()
            .rposition(|idle| idle.sender.is_ready() && idle.is_young(now, self.limits))?;
        Some(idle.remove(newest))
    }

    fn push(&self, sender: http1::SendRequest<B>, opened: Instant) {
        if !sender.is_closed() {
            let since = Instant::now();
            self.idle.borrow_mut().push(Idle {
                sender,
                opened,
                since,
            });
        }
    }

    /// Drops what is closed, idle for too long, or too old.
    fn sweep(&self) {
        let now = Instant::now();
        self.idle
            .borrow_mut()
            .retain(|idle| !idle.sender.is_closed() && idle.is_young(now, self.limits));
    }
}

impl<B> Idle<B> {
    fn is_young(&self, now: Instant, limits: Limits) -> bool {
        now - self.since < limits.idle_timeout && now - self.opened < MAX_AGE
    }
}

/// Why an exchange failed, with the request if none of it was written.
struct Failed<B> {
    error: Error,
    unsent: Option<Request<B>>,
}

impl<B> Failed<B> {
    /// Whether the connection died, rather than answered badly or late.
    fn died(&self) -> bool {
        matches!(&self.error, Error::Broken(error) if !error.is_parse() && !error.is_user())
    }
}

impl<B: Body<Data = Bytes> + Unpin + 'static> Lease<B> {
    /// Sends the request. Whatever goes wrong, the connection is not used again.
    async fn exchange(
        mut self,
        request: Request<B>,
        overdue: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Response<Answer<B>>, Failed<B>> {
        let failed = |error| Failed {
            error,
            unsent: None,
        };
        let answer = tokio::select! {
            biased;
            answer = self.send(request) => answer,
            () = overdue => return Err(failed(Error::ResponseTimeout)),
        };
        match answer {
            Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                Err(failed(Error::Switched))
            }
            Ok(answer) => Ok(answer.map(|incoming| Answer {
                incoming,
                lease: Some(self),
            })),
            Err(mut error) => Err(Failed {
                unsent: error.take_message(),
                error: Error::Broken(error.into_error()),
            }),
        }
    }

    async fn send(
        &mut self,
        request: Request<B>,
    ) -> Result<Response<Incoming>, TrySendError<Request<B>>> {
        match self {
            Lease::Http1 { sender, .. } => sender.try_send_request(request).await,
            Lease::Http2(sender) => sender.try_send_request(request).await,
        }
    }
}

/// Says how the content ends (RFC 9112 §6, RFC 9110 §8.6): by the length where it is known, which
/// includes none for the methods that promise content, else by `chunked`, for GET and HEAD too.
fn frame(headers: &mut HeaderMap, version: Version, method: &Method, content: &impl Body) {
    let promises_content = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    match content.size_hint().exact() {
        Some(0) if !promises_content => {}
        Some(length) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        None if version == Version::HTTP_11 => {
            headers.insert(
                header::TRANSFER_ENCODING,
                HeaderValue::from_static("chunked"),
            );
        }
        // HTTP/2 frames the content itself.
        None => {}
    }
}

impl<B: Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.get_mut().incoming).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl<B> Drop for Answer<B> {
    fn drop(&mut self) {
        if let Some(Lease::Http1 {
            sender,
            opened,
            host,
            _permit,
        }) = self.lease.take()
        {
            host.push(sender, opened);
        }
    }
}

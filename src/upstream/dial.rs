//! What connections to hosts are made of: TCP, or memory, where benches count what the proxy itself
//! does.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use http::uri::Authority;
use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiResolver, Name};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tower_service::Service;

use super::failure::Unresolved;

/// Bytes that one side may write before the other reads: about what a socket takes.
const IN_MEMORY: usize = 64 * 1024;

/// How a connection is opened, before TLS.
#[derive(Clone, Debug, Default)]
pub enum Dial {
    /// By TCP.
    #[default]
    Network,
    /// In this process. Once nobody takes the far ends, connections are refused.
    Memory(mpsc::UnboundedSender<Dialed>),
}

/// The far end of a connection in memory.
#[derive(Debug)]
pub struct Dialed {
    /// Whom it was opened to: `host` or `host:port`.
    pub authority: Authority,
    /// For whoever plays the host.
    pub stream: DuplexStream,
}

/// The near end of a connection in memory, whose far end goes to whoever listens.
pub(super) fn in_memory(
    listener: &mpsc::UnboundedSender<Dialed>,
    authority: Authority,
) -> io::Result<DuplexStream> {
    let (near, stream) = tokio::io::duplex(IN_MEMORY);
    listener
        .send(Dialed { authority, stream })
        .map_err(|_| io::ErrorKind::ConnectionRefused)?;
    Ok(near)
}

/// Opens connections for hyper's client, which adds TLS.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    pub(crate) tcp: HttpConnector<Resolver>,
    pub(crate) dial: Dial,
}

/// Looks names up as the system does; an error can be told from those of connections.
#[derive(Clone, Debug)]
pub(crate) struct Resolver(GaiResolver);

impl Resolver {
    pub(crate) fn new() -> Resolver {
        Resolver(GaiResolver::new())
    }
}

impl Service<Name> for Resolver {
    type Response = GaiAddrs;
    type Error = Unresolved;
    type Future = Pin<Box<dyn Future<Output = Result<GaiAddrs, Unresolved>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unresolved>> {
        self.0.poll_ready(cx).map_err(Unresolved)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolving = self.0.call(name);
        Box::pin(async { resolving.await.map_err(Unresolved) })
    }
}

/// What hyper's client speaks over.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl Wire for TcpStream {}
impl Wire for DuplexStream {}

impl Connection for Box<dyn Wire> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

type Refused = Box<dyn Error + Send + Sync>;
type Connecting = dyn Future<Output = Result<TokioIo<Box<dyn Wire>>, Refused>> + Send;

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Wire>>;
    type Error = Refused;
    type Future = Pin<Box<Connecting>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        self.tcp.poll_ready(cx).map_err(Refused::from)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        match &self.dial {
            Dial::Network => {
                let connecting = self.tcp.call(uri);
                Box::pin(async {
                    let stream: Box<dyn Wire> = Box::new(connecting.await?.into_inner());
                    Ok(TokioIo::new(stream))
                })
            }
            Dial::Memory(listener) => {
                let listener = listener.clone();
                Box::pin(async move {
                    let authority = uri.authority().ok_or(io::ErrorKind::InvalidInput);
                    let authority = authority.map_err(io::Error::from)?.clone();
                    let stream: Box<dyn Wire> = Box::new(in_memory(&listener, authority)?);
                    Ok(TokioIo::new(stream))
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::upstream::pool::{Limits, Pool};
    use crate::upstream::{self, Head, Hosts, Redirect, Scheme, Settings};
    use bytes::Bytes;
    use http::{HeaderMap, Method, Request};
    use http_body_util::{BodyExt, Full};
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    const HOST: &str = "api.example";

    /// Answers one request with the name that it was dialed by.
    async fn answer(listener: &mut mpsc::UnboundedReceiver<Dialed>) {
        let Dialed {
            authority,
            mut stream,
        } = listener.recv().await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            heard.push(stream.read_u8().await.unwrap());
        }
        let (length, name) = (authority.as_str().len(), authority);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }

    fn hosts(scheme: Scheme, dial: Dial) -> Hosts {
        let authority = "in-memory:81".to_owned();
        let redirect = Redirect { scheme, authority };
        let settings = Settings {
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(5),
            max_connections: 1,
            ca_file: None,
            redirects: [(HOST.to_owned(), redirect)].into(),
        };
        Hosts::new(&settings).unwrap().dialed_by(dial)
    }

    async fn through_a_pool(hosts: &Hosts) -> Result<Bytes, upstream::Error> {
        let limits = Limits {
            connect_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(5),
            max_connections: 1,
        };
        let targets = hosts.targets([HOST].into_iter()).unwrap();
        let pool = Pool::new(&targets, hosts.tls(), limits, &Metrics::new());
        let head = Head {
            method: Method::GET,
            target: "/".parse().unwrap(),
            headers: HeaderMap::new(),
        };
        let overdue = std::future::pending();
        let answer = pool
            .send(HOST, &head, Full::default(), Instant::now(), overdue)
            .await?;
        Ok(answer.into_body().collect().await.unwrap().to_bytes())
    }

    #[tokio::test(flavor = "local")]
    async fn a_pool_reaches_hosts_in_memory() {
        let (sender, mut listener) = mpsc::unbounded_channel();
        let hosts = hosts(Scheme::Http, Dial::Memory(sender));
        let (answer, ()) = tokio::join!(through_a_pool(&hosts), answer(&mut listener));
        assert_eq!(answer.unwrap(), "in-memory:81");
    }

    #[tokio::test(flavor = "local")]
    async fn without_a_listener_or_with_tls_there_is_no_connection_in_memory() {
        for (scheme, listens, kind) in [
            (Scheme::Http, false, io::ErrorKind::ConnectionRefused),
            (Scheme::Https, true, io::ErrorKind::Unsupported),
        ] {
            let (sender, listener) = mpsc::unbounded_channel();
            let _listener = listens.then_some(listener);
            match through_a_pool(&hosts(scheme, Dial::Memory(sender))).await {
                Err(upstream::Error::Unreachable(error)) => assert_eq!(error.kind(), kind),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn hypers_client_reaches_hosts_in_memory_until_nobody_listens() {
        let (sender, mut listener) = mpsc::unbounded_channel();
        let connector = Connector {
            tcp: HttpConnector::new_with_resolver(Resolver::new()),
            dial: Dial::Memory(sender),
        };
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let request = || {
            let request = Request::builder().uri("http://in-memory:81/");
            client.request(request.body(Full::<Bytes>::default()).unwrap())
        };
        let (response, ()) = tokio::join!(request(), answer(&mut listener));
        let content = response.unwrap().into_body().collect().await.unwrap();
        assert_eq!(content.to_bytes(), "in-memory:81");
        drop(listener);
        assert!(request().await.unwrap_err().is_connect());
    }
}

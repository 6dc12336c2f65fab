//! Hosts for the tests of this room, on loopback.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::stream::Stream;
use super::{Dial, Hosts, Network, Redirect, Scheme, Settings};

/// The public name of the host that is redirected.
pub(super) const HOST: &str = "api.example";
/// A whole answer, which leaves its connection open.
pub(super) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

pub(super) fn settings(scheme: Scheme, authority: String, ca_file: Option<PathBuf>) -> Settings {
    Settings {
        connect_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(5),
        stall_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(55),
        max_connections: 1,
        ca_file,
        redirects: [(HOST.to_owned(), Redirect { scheme, authority })].into(),
    }
}

/// [`HOST`] is reached at `authority`.
pub(super) fn hosts(scheme: Scheme, authority: String, ca_file: Option<PathBuf>) -> Hosts {
    Hosts::new(&settings(scheme, authority, ca_file)).unwrap()
}

/// [`HOST`] is reached as `name`, which has these addresses.
pub(super) fn named(
    scheme: Scheme,
    name: &str,
    ca_file: Option<PathBuf>,
    addresses: Vec<SocketAddr>,
) -> (Hosts, Network) {
    let network = Network::told(addresses);
    let hosts = hosts(scheme, name.to_owned(), ca_file);
    (hosts.dialed_by(Dial::Network(network.clone())), network)
}

pub(super) async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    (listener, authority)
}

/// An address that nobody listens on.
pub(super) async fn refusing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.3:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// An address that says nothing at all, as long as what is returned with it lives: the queue of its
/// listener is full.
pub(super) async fn silent() -> (SocketAddr, impl Sized) {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let listener = listener.unwrap();
    let any: SocketAddr = ([127, 0, 0, 2], 0).into();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    let patience = Duration::from_millis(100);
    while let Ok(connected) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
        waiting.push(connected.unwrap());
    }
    (address, (listener, waiting))
}

/// Speaks TLS as `name`, and a folder with the certificate, `ca.pem`.
pub(super) fn tls(name: &str, alpn: &[&[u8]]) -> (TlsAcceptor, TempDir) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), made.cert.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![made.cert.der().clone()],
            made.signing_key.serialize_der().try_into().unwrap(),
        )
        .unwrap();
    tls.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    (Arc::new(tls).into(), folder)
}

/// Until `stream` has something to be read, while the thread does nothing else: its runtime hears
/// nothing of that.
pub(super) fn something_lies_on(stream: &mut Stream) {
    let started = tokio::time::Instant::now();
    while stream.is_quiet() && started.elapsed() < Duration::from_secs(5) {
        std::thread::yield_now();
    }
}

/// Reads until `end`.
pub(super) async fn hear(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut heard = Vec::new();
    while !heard.ends_with(end.as_bytes()) {
        heard.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(heard).unwrap()
}

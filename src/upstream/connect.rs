//! Opening one connection: TCP, then TLS where the target wants it, for HTTP/1.1 alone.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::failure::Unresolved;
use super::{Dial, Invalid, Scheme, Target, dial};

/// Trusts the platform's certificates, or Mozilla's where it has none, and those of `ca_file`.
pub(super) fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, Invalid> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        tracing::warn!("the platform has no trusted certificates; using the built-in ones");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(path) = ca_file {
        let unreadable = |source| Invalid::CaFile {
            path: path.to_owned(),
            source,
        };
        let mut found = false;
        for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
            found = true;
            roots
                .add(certificate.map_err(unreadable)?)
                .map_err(|source| Invalid::Certificate {
                    path: path.to_owned(),
                    source,
                })?;
        }
        if !found {
            return Err(unreadable(rustls::pki_types::pem::Error::NoItemsFound));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs has every default version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// One open connection.
#[derive(Debug)]
pub struct Stream(Transport);

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    // A TLS session is a kilobyte; boxed, a plain stream stays small.
    Tls(Box<TlsStream<TcpStream>>),
    Memory(DuplexStream),
}

#[cfg(test)]
impl From<DuplexStream> for Stream {
    fn from(stream: DuplexStream) -> Stream {
        Stream(Transport::Memory(stream))
    }
}

/// Connects to `target`. Proxy environment variables are ignored.
pub(super) async fn open(target: &Target, tls: &Arc<ClientConfig>) -> io::Result<Stream> {
    if let Dial::Memory(listener) = &target.dial {
        if target.scheme == Scheme::Https {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let stream = dial::in_memory(listener, target.authority.clone())?;
        return Ok(Stream(Transport::Memory(stream)));
    }
    let port = target.authority.port_u16().unwrap_or(match target.scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    });
    let host = target.authority.host().trim_matches(['[', ']']);
    let addresses: Vec<_> = lookup_host((host, port))
        .await
        .map_err(|error| io::Error::other(Unresolved(error)))?
        .collect();
    let tcp = TcpStream::connect(&addresses[..]).await?;
    tcp.set_nodelay(true)?;
    match target.scheme {
        Scheme::Http => Ok(Stream(Transport::Plain(tcp))),
        Scheme::Https => {
            let tls = TlsConnector::from(tls.clone())
                .connect(target.name.clone(), tcp)
                .await?;
            Ok(Stream(Transport::Tls(Box::new(tls))))
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Memory(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Memory(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Memory(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Memory(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Transport::Memory(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
            Transport::Memory(stream) => stream.is_write_vectored(),
        }
    }
}

//! A socket to a server, and how it finds out in seconds that the server is gone. Knows nothing of what
//! is said over it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;

use super::address::Server;

/// A connected socket.
pub(super) enum Socket {
    /// To a machine.
    Tcp(TcpStream),
    /// To a process on this machine.
    Unix(UnixStream),
}

/// How long a TCP connection may take to be made: a machine that is gone does not answer at all.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// After this long without any byte an idle connection is probed …
const KEEPALIVE_AFTER: Duration = Duration::from_secs(5);
/// … this often …
const KEEPALIVE_EVERY: Duration = Duration::from_secs(1);
/// … until it is given up after this number of probes.
const KEEPALIVE_PROBES: u32 = 3;

/// A connection whose bytes are not acknowledged for this long is given up.
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);

impl Socket {
    /// Connects to a server; with `only_loopback` not if its name leads to another machine.
    pub(super) async fn dial(server: &Server, only_loopback: bool) -> io::Result<Socket> {
        match server {
            Server::Unix(folder, port) => {
                let path = folder.join(format!(".s.PGSQL.{port}"));
                let stream = within_timeout(UnixStream::connect(path)).await?;
                Ok(Socket::Unix(stream))
            }
            Server::Tcp(host, port) => {
                let mut last = io::Error::other("the name has no address");
                // The name is resolved each time: it may follow the server that takes writes.
                for address in within_timeout(lookup_host((host.clone(), *port))).await? {
                    match dial_address(address, only_loopback).await {
                        Ok(stream) => return Ok(Socket::Tcp(stream)),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }
}

async fn dial_address(address: SocketAddr, only_loopback: bool) -> io::Result<TcpStream> {
    if only_loopback && !address.ip().is_loopback() {
        let why = "the name leads to another machine, which is not spoken to in plain text";
        return Err(io::Error::other(why));
    }
    let stream = within_timeout(TcpStream::connect(address)).await?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(stream)
}

async fn within_timeout<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let timed_out = || io::Error::new(io::ErrorKind::TimedOut, "it does not answer");
    timeout(DIAL_TIMEOUT, step).await.map_err(|_| timed_out())?
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Socket::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Socket::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Socket::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

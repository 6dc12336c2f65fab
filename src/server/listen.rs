//! The places where callers connect: TCP addresses and unix sockets.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net as unix;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Type};
use tokio::net::{TcpListener, UnixListener};

use super::{Error, Listener};

/// Connections that the system completes before they are accepted.
const BACKLOG: i32 = 4096;

/// A socket that listens, outside of any runtime.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(std::net::TcpListener),
    Unix(unix::UnixListener, PathBuf),
}

/// A socket that listens, on the runtime that accepts.
#[derive(Debug)]
pub(super) enum Acceptor {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        _file: Unlink,
    },
}

/// A connection between two runtimes: accepted on one, served on another.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(std::net::TcpStream),
    Unix(unix::UnixStream),
}

/// Removes the file of a unix socket when nobody accepts on it any more.
#[derive(Debug)]
pub(super) struct Unlink(PathBuf);

impl Socket {
    pub(super) fn bind(listener: &Listener) -> Result<Socket, Error> {
        match listener {
            Listener::Tcp(address) => bind_tcp(*address).map_err(|source| Error::Listen {
                place: address.to_string(),
                source,
            }),
            Listener::Unix { path, mode, group } => {
                let group = group.as_deref().map(group_id).transpose()?;
                bind_unix(path, *mode, group).map_err(|source| Error::Listen {
                    place: path.display().to_string(),
                    source,
                })
            }
        }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    /// Registers the socket with the current runtime.
    pub(super) fn start(self) -> io::Result<Acceptor> {
        Ok(match self {
            Socket::Tcp(listener) => Acceptor::Tcp(TcpListener::from_std(listener)?),
            Socket::Unix(listener, path) => Acceptor::Unix {
                listener: UnixListener::from_std(listener)?,
                _file: Unlink(path),
            },
        })
    }
}

impl Acceptor {
    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Acceptor::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                stream.into_std().map(Stream::Tcp)
            }
            Acceptor::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                stream.into_std().map(Stream::Unix)
            }
        }
    }
}

impl Drop for Unlink {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(%error, "cannot remove the unix socket");
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket2::Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(Socket::Tcp(socket.into()))
}

fn bind_unix(path: &Path, mode: u32, group: Option<u32>) -> io::Result<Socket> {
    remove_stale(path)?;
    let listener = unix::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    std::os::unix::fs::chown(path, None, group)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(Socket::Unix(listener, path.to_owned()))
}

/// Removes a socket that a killed process left. One that somebody listens on stays, and anything
/// that is no socket; binding then fails.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket && unix::UnixStream::connect(path).is_err_and(refused) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// The number of a group in `/etc/group`.
pub(super) fn group_id(name: &str) -> Result<u32, Error> {
    fs::read_to_string("/etc/group")
        .unwrap_or_default()
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let found = fields.next()? == name;
            found.then(|| fields.nth(1)?.parse().ok()).flatten()
        })
        .ok_or_else(|| Error::GroupUnknown(name.to_owned()))
}

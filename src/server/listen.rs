//! The places where callers connect: TCP addresses and unix sockets.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net as unix;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockFilter, SockRef, Type};
use tokio::net::{TcpListener, UnixListener};

use super::{Error, Listener};

/// Connections that the system completes before they are accepted.
const BACKLOG: i32 = 4096;

/// What the system keeps for a caller beside what it has sent and the caller has not read, in bytes. It
/// would keep megabytes, and wake the worker only once a third of them was read: a caller that reads
/// slowly would look as if it did not read.
const UNSENT: u32 = 64 * 1024;

/// Packets that begin a connection (SYN without ACK in byte 13 of the TCP header) are dropped, in the
/// words of the Berkeley packet filter.
const NO_SYN: [SockFilter; 5] = [
    // Load the byte with the flags; keep SYN and ACK; if SYN alone is left, drop, else pass.
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x54, 0, 0, 0x12),
    SockFilter::new(0x15, 0, 1, 0x02),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// A socket that listens, outside of any runtime.
#[derive(Debug)]
pub struct Socket {
    listener: Kind<std::net::TcpListener, unix::UnixListener>,
    origin: Origin,
}

/// A socket that listens, on the runtime that accepts.
#[derive(Debug)]
pub struct Acceptor {
    listener: Kind<TcpListener, UnixListener>,
    origin: Origin,
}

#[derive(Debug)]
enum Kind<T, U> {
    Tcp(T),
    Unix(U),
}

/// Where a socket comes from, which says whose it is at the end.
#[derive(Debug)]
enum Origin {
    /// This process made it, and with it the file of a unix socket.
    Made(Option<Unlink>),
    /// It belongs to the process that started this one, which passes it on to the next one.
    Inherited,
}

/// A connection between two runtimes: accepted on one, served on another. With the address that a TCP
/// connection comes from.
#[derive(Debug)]
pub enum Stream {
    /// Of a TCP listener.
    Tcp(std::net::TcpStream, IpAddr),
    /// Of a unix socket.
    Unix(unix::UnixStream),
}

/// Removes the file of a unix socket when this is dropped, after the last accept.
#[derive(Debug)]
struct Unlink(PathBuf);

impl Listener {
    /// Whether both cannot be listened on at once: one address, an address and all addresses of its
    /// port, or one path.
    pub fn clashes(&self, other: &Listener) -> bool {
        match (self, other) {
            (Listener::Tcp(one), Listener::Tcp(other)) => {
                let chosen_by_the_system = one.port() == 0;
                one.port() == other.port() && !chosen_by_the_system && overlap(*one, *other)
            }
            (Listener::Unix { path: one, .. }, Listener::Unix { path: other, .. }) => {
                one == other || resolved(one) == resolved(other)
            }
            (Listener::Tcp(_), Listener::Unix { .. })
            | (Listener::Unix { .. }, Listener::Tcp(_)) => false,
        }
    }
}

/// The address or path.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listener::Tcp(address) => address.fmt(f),
            Listener::Unix { path, .. } => path.display().fmt(f),
        }
    }
}

/// Whether one of these is the other, or all addresses of a kind that the other is of. All addresses
/// of IPv6 are those of IPv4, too.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |all: IpAddr, ip: IpAddr| match all {
        IpAddr::V4(all) => all.is_unspecified() && ip.to_canonical().is_ipv4(),
        IpAddr::V6(all) => all.is_unspecified(),
    };
    let (one, other) = (one.ip(), other.ip());
    one.to_canonical() == other.to_canonical() || covers(one, other) || covers(other, one)
}

/// The path without symbolic links before its last part, as far as it exists.
pub(super) fn resolved(path: &Path) -> PathBuf {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    match (fs::canonicalize(folder), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}

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

    pub(super) fn inherited_tcp(listener: std::net::TcpListener) -> io::Result<Socket> {
        listener.set_nonblocking(true)?;
        SockRef::from(&listener).set_tcp_notsent_lowat(UNSENT)?;
        Ok(Socket {
            listener: Kind::Tcp(listener),
            origin: Origin::Inherited,
        })
    }

    pub(super) fn inherited_unix(listener: unix::UnixListener) -> io::Result<Socket> {
        listener.set_nonblocking(true)?;
        Ok(Socket {
            listener: Kind::Unix(listener),
            origin: Origin::Inherited,
        })
    }

    /// The TCP address that it listens on.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.listener {
            Kind::Tcp(listener) => listener.local_addr().ok(),
            Kind::Unix(_) => None,
        }
    }

    /// The file of a unix socket.
    pub(super) fn path(&self) -> Option<PathBuf> {
        match &self.listener {
            Kind::Unix(listener) => Some(listener.local_addr().ok()?.as_pathname()?.to_owned()),
            Kind::Tcp(_) => None,
        }
    }

    /// Registers the socket with the current runtime.
    ///
    /// # Errors
    ///
    /// The system is out of descriptors or memory.
    pub fn start(self) -> io::Result<Acceptor> {
        let Socket { listener, origin } = self;
        let listener = match listener {
            Kind::Tcp(listener) => Kind::Tcp(TcpListener::from_std(listener)?),
            Kind::Unix(listener) => Kind::Unix(UnixListener::from_std(listener)?),
        };
        Ok(Acceptor { listener, origin })
    }
}

/// The address or path.
impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address(), self.path()) {
            (Some(address), _) => address.fmt(f),
            (None, Some(path)) => path.display().fmt(f),
            (None, None) => f.write_str("a socket without a path"),
        }
    }
}

impl Acceptor {
    /// The next connection. Dropping this loses none.
    ///
    /// # Errors
    ///
    /// The system is out of descriptors or memory, or the caller left while it waited.
    pub async fn accept(&self) -> io::Result<Stream> {
        match &self.listener {
            Kind::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream.into_std()?, from.ip()))
            }
            Kind::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.into_std().map(Stream::Unix)
            }
        }
    }

    /// Whether the process that started this one keeps the socket open: whoever connects from now on is
    /// the next process's caller.
    pub(super) fn is_inherited(&self) -> bool {
        matches!(self.origin, Origin::Inherited)
    }

    /// Accepts no further connections; those that have begun may go on.
    pub(super) fn turn_away(&self) -> io::Result<()> {
        match (&self.listener, &self.origin) {
            (_, Origin::Inherited) | (Kind::Unix(_), Origin::Made(None)) => Ok(()),
            (Kind::Tcp(listener), Origin::Made(_)) => {
                SockRef::from(listener).attach_filter(&NO_SYN)
            }
            (Kind::Unix(_), Origin::Made(Some(file))) => fs::remove_file(&file.0),
        }
    }

    /// Stops listening. Answers the callers that the system has connected already and nobody has
    /// accepted: closing the socket would reset them.
    pub(super) fn into_backlog(self) -> io::Result<Vec<Stream>> {
        let mut backlog = Vec::new();
        match self.listener {
            Kind::Tcp(listener) => {
                let listener = listener.into_std()?;
                while let Ok((stream, from)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    backlog.push(Stream::Tcp(stream, from.ip()));
                }
            }
            Kind::Unix(listener) => {
                let listener = listener.into_std()?;
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    backlog.push(Stream::Unix(stream));
                }
            }
        }
        Ok(backlog)
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
    // Accepted connections take it over.
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(Socket {
        listener: Kind::Tcp(socket.into()),
        origin: Origin::Made(None),
    })
}

fn bind_unix(path: &Path, mode: u32, group: Option<u32>) -> io::Result<Socket> {
    remove_stale(path)?;
    let listener = unix::UnixListener::bind(path)?;
    let file = Unlink(path.to_owned());
    listener.set_nonblocking(true)?;
    std::os::unix::fs::chown(path, None, group)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(Socket {
        listener: Kind::Unix(listener),
        origin: Origin::Made(Some(file)),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn clashes(one: &str, other: &str) -> bool {
        let listener = |text: &str| match text.parse() {
            Ok(address) => Listener::Tcp(address),
            Err(_) => Listener::Unix {
                path: text.into(),
                mode: 0o660,
                group: None,
            },
        };
        let (one, other) = (listener(one), listener(other));
        assert_eq!(one.clashes(&other), other.clashes(&one));
        one.clashes(&other)
    }

    #[test]
    fn two_places_clash_if_the_system_would_refuse_the_second_one() {
        for (one, other) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("127.0.0.1:80", "0.0.0.0:80"),
            ("127.0.0.1:80", "[::]:80"),
            ("0.0.0.0:80", "[::]:80"),
            ("[::1]:80", "[::]:80"),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80"),
            ("/run/a.sock", "/run/a.sock"),
            ("/run/a.sock", "/run/../run/a.sock"),
        ] {
            assert!(clashes(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("127.0.0.1:80", "127.0.0.1:81"),
            ("127.0.0.1:80", "127.0.0.2:80"),
            ("127.0.0.1:80", "[::1]:80"),
            ("[::1]:80", "0.0.0.0:80"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("/run/a.sock", "/run/b.sock"),
            ("/run/a.sock", "127.0.0.1:80"),
        ] {
            assert!(!clashes(one, other), "{one} {other}");
        }
    }
}

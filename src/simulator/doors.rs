//! Where a simulated Damoov listens: at its address, and at doors with names, so that the journal can say
//! through which one each call came. Does not know what is spoken there.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that may wait to be accepted: a test opens thousands at once.
const BACKLOG: u32 = 8192;

/// All that listens.
pub(super) struct Doors {
    front: TcpListener,
    named: Vec<(Arc<str>, TcpListener)>,
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    /// Whose logins are limited together.
    pub(super) address: IpAddr,
    /// The door that it came through; `None`: the address that everybody knows.
    pub(super) door: Option<Arc<str>>,
}

impl Doors {
    /// Listens at `address`, and for each name on a free port of the same IP address.
    pub(super) fn open(address: SocketAddr, names: &[String]) -> io::Result<Doors> {
        let front = listen(address)?;
        let free = SocketAddr::new(front.local_addr()?.ip(), 0);
        let named = names
            .iter()
            .map(|name| Ok((Arc::from(name.as_str()), listen(free)?)))
            .collect::<io::Result<_>>()?;
        Ok(Doors { front, named })
    }

    /// Where everybody is let in.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.front.local_addr()
    }

    /// The names and where each of them is.
    pub(super) fn named(&self) -> io::Result<Vec<(Arc<str>, SocketAddr)>> {
        self.named
            .iter()
            .map(|(name, listener)| Ok((Arc::clone(name), listener.local_addr()?)))
            .collect()
    }

    /// The next connection, through any of them. Loses none if it is dropped before its end.
    pub(super) async fn accept(&self) -> io::Result<(TcpStream, Visitor)> {
        poll_fn(|context| {
            let front = std::iter::once((None, &self.front));
            let named = self.named.iter().map(|(name, door)| (Some(name), door));
            for (name, listener) in front.chain(named) {
                if let Poll::Ready(accepted) = listener.poll_accept(context) {
                    return Poll::Ready(accepted.map(|(stream, peer)| {
                        let visitor = Visitor {
                            address: peer.ip(),
                            door: name.cloned(),
                        };
                        (stream, visitor)
                    }));
                }
            }
            Poll::Pending
        })
        .await
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

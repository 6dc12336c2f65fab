//! The network between a client and a server, with its faults: it is cut, it pauses, it is slow, and it loses
//! requests and answers of PostgreSQL's protocol, each exactly once and exactly the one that was meant.

mod connection;
mod messages;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::background;
use crate::server::free_address;

/// A forwarder of TCP connections. Closes them all when dropped.
pub struct Forwarder {
    network: Arc<Network>,
    address: SocketAddr,
    /// Holds the listener. `None` while the network is cut.
    accepting: Mutex<Option<JoinHandle<()>>>,
}

/// What is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The server never gets it.
    Request,
    /// The server has done it, and nobody hears that.
    Answer,
}

/// Of what.
#[derive(Clone, Debug)]
pub enum At {
    /// The next statement that contains this text.
    Statement(String),
    /// The end of the next transaction that contains this text.
    CommitOf(String),
}

/// A loss that was ordered.
pub struct Loss(oneshot::Receiver<()>);

impl Loss {
    /// Returns once it has happened: for an answer, once the server gave it.
    pub async fn happened(self) {
        self.0.await.expect("the forwarder lives on");
    }
}

/// What all connections share.
struct Network {
    to: Mutex<SocketAddr>,
    state: watch::Sender<State>,
    /// Those that have not happened yet.
    losses: Mutex<Vec<Ordered>>,
}

struct Ordered {
    part: Part,
    at: At,
    happened: oneshot::Sender<()>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Open {
        /// Of every piece that passes, in either direction.
        delay: Duration,
    },
    Paused,
    Cut,
}

impl Forwarder {
    /// Forwards to this address, from one of its own.
    pub fn to(server: SocketAddr) -> Forwarder {
        let network = Arc::new(Network {
            to: Mutex::new(server),
            state: watch::Sender::new(OPEN),
            losses: Mutex::default(),
        });
        let address = free_address();
        let accepting = Mutex::new(Some(accept(&network, address)));
        Forwarder {
            network,
            address,
            accepting,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets every connection, and refuses new ones.
    pub fn cut(&self) {
        self.network.state.send_replace(State::Cut);
        if let Some(task) = self.accepting().take() {
            task.abort();
            // Until the listener is closed.
            let _ = background::wait(task);
        }
    }

    /// Holds everything that comes from now on, as a network that loses every packet does: connections stay
    /// open and are silent.
    pub fn pause(&self) {
        self.open(State::Paused);
    }

    /// Ends a cut, a pause and a delay. What a pause held goes on.
    pub fn resume(&self) {
        self.open(OPEN);
    }

    /// Holds every piece for this long.
    pub fn delay(&self, delay: Duration) {
        self.open(State::Open { delay });
    }

    fn open(&self, state: State) {
        self.network.state.send_replace(state);
        self.accepting()
            .get_or_insert_with(|| accept(&self.network, self.address));
    }

    fn accepting(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.accepting.lock().expect("nobody panics in here")
    }

    /// Forwards new connections elsewhere.
    pub fn redirect(&self, server: SocketAddr) {
        *self.network.to.lock().expect("nobody panics in here") = server;
    }

    /// Loses this once, and resets that connection. Connections with TLS are never looked into.
    pub fn lose(&self, part: Part, at: At) -> Loss {
        let (happened, receiver) = oneshot::channel();
        let mut losses = self.network.losses.lock().expect("nobody panics in here");
        losses.push(Ordered { part, at, happened });
        Loss(receiver)
    }
}

const OPEN: State = State::Open {
    delay: Duration::ZERO,
};

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Listens from now on, in a task.
fn accept(network: &Arc<Network>, address: SocketAddr) -> JoinHandle<()> {
    let network = Arc::clone(network);
    let listener = background::enter(|| {
        let socket = TcpSocket::new_v4().expect("a descriptor");
        socket.set_reuseaddr(true).expect("a new socket");
        socket.bind(address).expect("an address of its own");
        socket.listen(1024).expect("it is bound")
    });
    background::spawn(async move {
        loop {
            if let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection::forward(Arc::clone(&network), client));
            }
        }
    })
}

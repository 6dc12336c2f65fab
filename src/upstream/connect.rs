//! Opening one connection: the addresses of a name are tried one after the other, staggered, and the
//! first on which TCP and TLS come about wins (RFC 8305). The one way to dial, for requests, calls to
//! the Auth endpoints and WebSockets.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::TlsConnector;

#[cfg(any(test, feature = "internals"))]
use super::dial;
use super::dial::Network;
use super::failure::{ConnectFailure, Unresolved};
use super::stream::{Records, Stream};
use super::{Dial, Error, Scheme, Target};

/// The next address is tried after this, if the one before it has said nothing (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);

/// One of several addresses failed.
#[derive(Debug, thiserror::Error)]
#[error("{address}")]
struct At {
    address: SocketAddr,
    source: io::Error,
}

/// Connects to `target` until `deadline`, which covers the look-up of its name and TLS as well. Proxy
/// environment variables are ignored.
pub(super) async fn open(target: &Target, deadline: Instant) -> Result<Stream, Error> {
    match &target.dial {
        Dial::Network(network) => open_by_tcp(target, network, deadline).await,
        #[cfg(any(test, feature = "internals"))]
        Dial::Memory(listener) => {
            if target.scheme == Scheme::Https {
                return Err(Error::Unreachable(io::ErrorKind::Unsupported.into()));
            }
            let stream = dial::in_memory(listener, target.authority.clone());
            Ok(stream.map_err(Error::Unreachable)?.into())
        }
    }
}

async fn open_by_tcp(
    target: &Target,
    network: &Network,
    deadline: Instant,
) -> Result<Stream, Error> {
    let port = target.authority.port_u16().unwrap_or(match target.scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    });
    let host = target.authority.host().trim_matches(['[', ']']);
    let looking_up = timeout_at(deadline, network.addresses(host, port));
    let addresses = match looking_up.await {
        Ok(addresses) => addresses.map_err(Error::Unreachable)?,
        Err(_) => {
            let late = Unresolved(io::ErrorKind::TimedOut.into());
            return Err(Error::ConnectTimeout(Some(io::Error::other(late))));
        }
    };
    let race = Race {
        target,
        network,
        many: addresses.len() > 1,
        waiting: addresses.into(),
        running: FuturesUnordered::new(),
        started: Vec::new(),
        failed: None,
    };
    race.run(deadline).await
}

/// Attempts to connect, of which one wins.
struct Race<'a> {
    target: &'a Target,
    network: &'a Network,
    /// Whether there is more than one address.
    many: bool,
    /// Addresses that were not tried yet.
    waiting: VecDeque<SocketAddr>,
    running: FuturesUnordered<Attempt<'a>>,
    /// The addresses that are being tried, in the order in which that began.
    started: Vec<SocketAddr>,
    /// The most telling failure so far.
    failed: Option<io::Error>,
}

type Attempt<'a> = Pin<Box<dyn Future<Output = (SocketAddr, io::Result<Step>)> + Send + 'a>>;

/// How far an attempt has come.
enum Step {
    /// TLS is still to come.
    Tcp(TcpStream),
    /// To the end.
    Open(Stream),
}

impl<'a> Race<'a> {
    async fn run(mut self, deadline: Instant) -> Result<Stream, Error> {
        let mut next = Instant::now();
        loop {
            // At once, where a timer would take up to a millisecond.
            if next <= Instant::now()
                && let Some(address) = self.waiting.pop_front()
            {
                next = Instant::now() + STAGGER;
                self.started.push(address);
                self.running.push(Box::pin(self.connect(address)));
            }
            tokio::select! {
                biased;
                Some((address, step)) = self.running.next(), if !self.running.is_empty() => match step {
                    Ok(Step::Tcp(tcp)) => {
                        // The address answers: TLS gets as much time again before the next one is tried.
                        next = Instant::now() + STAGGER;
                        self.running.push(Box::pin(self.shake_hands(address, tcp)));
                    }
                    Ok(Step::Open(stream)) => {
                        self.won_by(address);
                        return Ok(stream);
                    }
                    Err(error) => {
                        self.lost_by(address, error);
                        next = Instant::now();
                    }
                },
                () = sleep_until(next), if !self.waiting.is_empty() => {}
                () = sleep_until(deadline), if !self.running.is_empty() => {
                    self.started.iter().for_each(|late| self.network.failed(*late));
                    return Err(Error::ConnectTimeout(self.failed));
                }
                else => {
                    let error = self.failed.unwrap_or_else(nowhere);
                    return Err(Error::Unreachable(error));
                }
            }
        }
    }

    fn connect(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = (SocketAddr, io::Result<Step>)> + Send + use<'a> {
        let scheme = self.target.scheme;
        async move {
            let connecting = async {
                let tcp = TcpStream::connect(address).await?;
                tcp.set_nodelay(true)?;
                Ok(match scheme {
                    Scheme::Http => Step::Open(tcp.into()),
                    Scheme::Https => Step::Tcp(tcp),
                })
            };
            (address, connecting.await)
        }
    }

    fn shake_hands(
        &self,
        address: SocketAddr,
        tcp: TcpStream,
    ) -> impl Future<Output = (SocketAddr, io::Result<Step>)> + Send + use<'a> {
        let tls = TlsConnector::from(self.target.tls.clone());
        let shaking = tls.connect(self.target.name.clone(), Records::over(tcp));
        async move { (address, shaking.await.map(|tls| Step::Open(tls.into()))) }
    }

    /// Those that began earlier are too slow to be the first ones the next time.
    fn won_by(&self, winner: SocketAddr) {
        let earlier = self.started.iter().take_while(|other| **other != winner);
        earlier.for_each(|other| self.network.failed(*other));
        self.network.worked(winner);
    }

    fn lost_by(&mut self, address: SocketAddr, error: io::Error) {
        tracing::debug!(
            host = %self.target.authority,
            %address,
            %error,
            "an address of a host of the API failed"
        );
        self.network.failed(address);
        self.started.retain(|other| *other != address);
        let error = match self.many {
            true => io::Error::other(At {
                address,
                source: error,
            }),
            false => error,
        };
        // Of two that are as telling, the later one.
        let tells = |error: &io::Error| ConnectFailure::of(error).tells();
        if self
            .failed
            .as_ref()
            .is_none_or(|other| tells(&error) >= tells(other))
        {
            self.failed = Some(error);
        }
    }
}

/// The name has no address.
fn nowhere() -> io::Error {
    io::Error::other(Unresolved(io::ErrorKind::NotFound.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::episode::Chain;
    use crate::upstream::fixture::{self, HOST, hear, listen, named, refusing, silent};
    use crate::upstream::{Hosts, failure::Failed};
    use std::future::pending;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn open(hosts: &Hosts, within: Duration) -> Result<Stream, Error> {
        let target = hosts.target(HOST).unwrap();
        super::open(&target, Instant::now() + within).await
    }

    /// Long enough for whatever comes about.
    const LONG: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_silent_address_costs_the_stagger_once_a_minute() {
        let (hole, _full) = silent().await;
        let (listener, _) = listen().await;
        let good = listener.local_addr().unwrap();
        let (hosts, network) = named(Scheme::Http, "dual.example", None, vec![hole, good]);
        for (opened, waits) in [true, false, false].into_iter().enumerate() {
            let started = Instant::now();
            open(&hosts, LONG).await.unwrap();
            assert_eq!(started.elapsed() >= STAGGER, waits, "{opened}");
            assert!(started.elapsed() < 3 * STAGGER);
            assert_eq!(
                network.asked(),
                opened + 1,
                "its name is asked for each time"
            );
            listener.accept().await.unwrap();
        }
    }

    #[tokio::test]
    async fn after_a_refused_connection_the_next_address_is_tried_at_once() {
        let (listener, _) = listen().await;
        let good = listener.local_addr().unwrap();
        let addresses = vec![refusing().await, refusing().await, good];
        let (hosts, _) = named(Scheme::Http, "many.example", None, addresses);
        let started = Instant::now();
        open(&hosts, LONG).await.unwrap();
        assert!(started.elapsed() < STAGGER);
    }

    #[tokio::test]
    async fn the_only_address_is_tried_however_often_it_failed() {
        let (listener, _) = listen().await;
        let good = listener.local_addr().unwrap();
        drop(listener);
        let (hosts, _) = named(Scheme::Http, "one.example", None, vec![good]);
        for _ in 0..3 {
            let error = open(&hosts, LONG).await.unwrap_err();
            assert!(matches!(error, Error::Unreachable(_)));
        }
        let _listener = tokio::net::TcpListener::bind(good).await.unwrap();
        open(&hosts, LONG).await.unwrap();
    }

    /// What is told of a host on which no address worked.
    fn told(error: Error) -> String {
        Chain(&Failed::at("many.example", error)).to_string()
    }

    #[tokio::test]
    async fn what_is_told_is_the_most_telling_failure_and_its_address() {
        let (one, other) = (refusing().await, refusing().await);
        let (hosts, _) = named(Scheme::Http, "many.example", None, vec![one, other]);
        let error = open(&hosts, LONG).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable(_)));
        let told_last = told(error);
        assert!(told_last.starts_with("many.example refused the connection"));
        assert!(told_last.contains(&other.to_string()), "{told_last}");

        // In time or not, what was refused is told.
        let (hole, _full) = silent().await;
        let (hosts, _) = named(Scheme::Http, "many.example", None, vec![one, hole]);
        let error = open(&hosts, Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, Error::ConnectTimeout(Some(_))));
        let told_late = told(error);
        assert!(told_late.starts_with("connecting to many.example took too long"));
        assert!(told_late.contains(&one.to_string()), "{told_late}");
    }

    #[tokio::test]
    async fn the_look_up_of_a_name_keeps_the_deadline_too() {
        let (hosts, _) = named(Scheme::Http, "slow.example", None, vec![]);
        let error = open(&hosts, Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, Error::ConnectTimeout(Some(_))));
        assert!(told(error).contains("the name cannot be resolved"));
    }

    #[tokio::test]
    async fn where_tls_fails_or_hangs_the_next_address_is_tried() {
        let (acceptor, folder) = fixture::tls("dual.example", &[]);
        let (foreign, _) = fixture::tls("other.example", &[]);
        let (good, _) = listen().await;
        let (bad, _) = listen().await;
        let (mute, _) = listen().await;
        let address = |listener: &tokio::net::TcpListener| listener.local_addr().unwrap();
        let serving = async {
            let (mut muted, _) = mute.accept().await.unwrap();
            let (stream, _) = bad.accept().await.unwrap();
            assert!(foreign.accept(stream).await.is_err());
            let (stream, _) = good.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            stream.write_all(b"it is").await.unwrap();
            // The other attempts are given up.
            while muted.read(&mut [0; 512]).await.unwrap() > 0 {}
            pending::<()>().await;
        };
        let ca_file = Some(folder.path().join("ca.pem"));
        let addresses = vec![address(&mute), address(&bad), address(&good)];
        let (hosts, _) = named(Scheme::Https, "dual.example", ca_file.clone(), addresses);
        let opening = async { hear(&mut open(&hosts, LONG).await.unwrap(), "it is").await };
        tokio::select! {
            () = serving => unreachable!(),
            heard = opening => assert_eq!(heard, "it is"),
        }

        // Where no other works it is told what is wrong with the certificate.
        let addresses = vec![address(&bad), refusing().await];
        let (hosts, _) = named(Scheme::Https, "dual.example", ca_file, addresses);
        let serving = async {
            let (stream, _) = bad.accept().await.unwrap();
            assert!(foreign.accept(stream).await.is_err());
        };
        let (opened, ()) = tokio::join!(open(&hosts, LONG), serving);
        let told = told(opened.unwrap_err());
        assert!(
            told.contains("the certificate of many.example is"),
            "{told}"
        );
    }
}

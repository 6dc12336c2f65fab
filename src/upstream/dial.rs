//! What connections to hosts are made of: TCP, or memory, where benches count what the proxy itself
//! does. Which addresses a name has, and in which order they are tried.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[cfg(any(test, feature = "internals"))]
use http::uri::Authority;
#[cfg(any(test, feature = "internals"))]
use tokio::io::DuplexStream;
use tokio::net::lookup_host;
#[cfg(any(test, feature = "internals"))]
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::failure::Unresolved;

/// Bytes that one side may write before the other reads: about what a socket takes.
#[cfg(any(test, feature = "internals"))]
const IN_MEMORY: usize = 64 * 1024;
/// For how long an address that failed is tried last.
const REMEMBERED: Duration = Duration::from_secs(60);
/// The most addresses that are remembered.
const MOST: usize = 256;

/// How a connection is opened, before TLS.
#[derive(Clone, Debug)]
pub enum Dial {
    /// By TCP.
    Network(Network),
    /// In this process. Once the receiver of the far ends is gone, connections are refused.
    #[cfg(any(test, feature = "internals"))]
    Memory(mpsc::UnboundedSender<Dialed>),
}

impl Default for Dial {
    fn default() -> Dial {
        Dial::Network(Network::default())
    }
}

/// The far end of a connection in memory.
#[cfg(any(test, feature = "internals"))]
#[derive(Debug)]
pub struct Dialed {
    /// Whom it was opened to: `host` or `host:port`.
    pub authority: Authority,
    /// For the side that plays the host.
    pub stream: DuplexStream,
}

/// Addresses of names, and which of them failed a moment ago. Its clones share that.
#[derive(Clone, Debug, Default)]
pub struct Network {
    names: Names,
    failed: Arc<Mutex<Vec<(SocketAddr, Instant)>>>,
}

/// Where the addresses of a name come from.
#[derive(Clone, Debug, Default)]
enum Names {
    /// The system's resolver.
    #[default]
    System,
    /// Whatever is asked for: these, and how often they were asked for; for ever nothing if there
    /// are none.
    #[cfg(test)]
    Told(Arc<Mutex<(Vec<SocketAddr>, usize)>>),
}

/// The near end of a connection in memory, whose far end goes to `listener`.
#[cfg(any(test, feature = "internals"))]
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

impl Network {
    /// The addresses of `host` as they are to be tried. The name is asked for every time.
    pub(super) async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let found = match &self.names {
            Names::System => lookup_host((host, port))
                .await
                .map_err(|error| io::Error::other(Unresolved(error)))?
                .collect(),
            #[cfg(test)]
            Names::Told(told) => {
                let addresses = {
                    let mut told = told.lock().expect("no code panics under this lock");
                    told.1 += 1;
                    told.0.clone()
                };
                if addresses.is_empty() {
                    std::future::pending::<()>().await;
                }
                addresses
            }
        };
        let mut addresses = interleaved(found);
        let failed = self.failed.lock().expect("no code panics under this lock");
        let now = Instant::now();
        addresses.sort_by_key(|address| {
            let mut failed = failed.iter();
            failed.any(|(failed, at)| failed == address && now - *at < REMEMBERED)
        });
        Ok(addresses)
    }

    /// A connection to `address` failed, or was slower than one that began later.
    pub(super) fn failed(&self, address: SocketAddr) {
        let now = Instant::now();
        let mut failed = self.failed.lock().expect("no code panics under this lock");
        failed.retain(|(other, at)| *other != address && now - *at < REMEMBERED);
        if failed.len() == MOST {
            failed.remove(0);
        }
        failed.push((address, now));
    }

    /// A connection to `address` was opened.
    pub(super) fn worked(&self, address: SocketAddr) {
        let mut failed = self.failed.lock().expect("no code panics under this lock");
        failed.retain(|(other, _)| *other != address);
    }
}

#[cfg(test)]
impl Network {
    /// Every name has these addresses.
    pub(super) fn told(addresses: Vec<SocketAddr>) -> Network {
        Network {
            names: Names::Told(Arc::new(Mutex::new((addresses, 0)))),
            failed: Arc::default(),
        }
    }

    /// How often names were asked for.
    pub(super) fn asked(&self) -> usize {
        match &self.names {
            Names::System => unreachable!("a test told the addresses"),
            Names::Told(told) => told.lock().unwrap().1,
        }
    }
}

/// One address of each family by turns, the system's first choice first (RFC 8305 §4).
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv4() == first_is_v4);
    let longer = first.len().max(second.len());
    let mut all = Vec::with_capacity(first.len() + second.len());
    for turn in 0..longer {
        for address in [first.get(turn), second.get(turn)].into_iter().flatten() {
            if !all.contains(address) {
                all.push(*address);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::upstream::pool::{Limits, Pool};
    use crate::upstream::{self, Head, Hosts, Redirect, Scheme, Settings};
    use bytes::Bytes;
    use http::{HeaderMap, Method};
    use http_body_util::{BodyExt, Full};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
        let pool = Pool::new(&targets, limits, &Arc::new(Metrics::new()));
        let head = Head {
            method: Method::GET,
            target: "/".parse().unwrap(),
            headers: HeaderMap::new(),
        };
        let overdue = std::future::pending();
        let answer = pool
            .send(
                &targets[HOST],
                &head,
                Full::default(),
                Instant::now(),
                overdue,
            )
            .await?;
        Ok(answer.into_body().collect().await.unwrap().to_bytes())
    }

    fn addresses(hosts: &[&str]) -> Vec<SocketAddr> {
        let address = |host: &&str| format!("{host}:443").parse().unwrap();
        hosts.iter().map(address).collect()
    }

    #[test]
    fn families_take_turns_and_the_systems_first_choice_stays_the_first() {
        for (given, expected) in [
            (&[][..], &[][..]),
            (&["10.0.0.1"], &["10.0.0.1"]),
            (
                &["[::1]", "[::2]", "[::3]", "10.0.0.1", "10.0.0.2"],
                &["[::1]", "10.0.0.1", "[::2]", "10.0.0.2", "[::3]"],
            ),
            (
                &["10.0.0.1", "10.0.0.2", "[::1]", "10.0.0.1"],
                &["10.0.0.1", "[::1]", "10.0.0.2"],
            ),
        ] {
            assert_eq!(interleaved(addresses(given)), addresses(expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_failed_is_the_last_one_for_a_minute() {
        let all = addresses(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        let network = Network::told(all.clone());
        let order = async || network.addresses("api.example", 443).await.unwrap();
        network.failed(all[0]);
        let last = addresses(&["10.0.0.2", "10.0.0.3", "10.0.0.1"]);
        assert_eq!(order().await, last);
        tokio::time::advance(REMEMBERED - Duration::from_millis(1)).await;
        assert_eq!(order().await, last);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(order().await, all);

        network.failed(all[0]);
        network.worked(all[0]);
        assert_eq!(order().await, all);
        all.iter().for_each(|address| network.failed(*address));
        assert_eq!(order().await, all, "all of them are tried all the same");
        for other in 0..2 * MOST {
            network.failed(([10, 1, 0, 0], other as u16).into());
        }
        assert_eq!(network.failed.lock().unwrap().len(), MOST);
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
}

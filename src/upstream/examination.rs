//! Whether a host can be reached, one step after the other, each with its time: for an operator, who wants to
//! know which of them fails. Requests do all of them at once, in [`connect`](super::connect).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::failure::{ConnectFailure, Unresolved};
use super::http1::Whole;
use super::stream::{Records, Stream};
use super::{Dial, Error, Failed, Head, Hosts, Invalid, Scheme, Settings, Target};

/// The content of an answer that is read.
const LIMIT: usize = 64 * 1024;

/// What came of looking at one host: the steps that were made, in their order. Only the last one can have
/// failed; those after it were not made.
#[derive(Debug)]
pub struct Examination {
    /// The public name.
    pub host: String,
    /// The addresses of its name.
    pub name: Step<Vec<SocketAddr>>,
    /// The address that a connection was opened to.
    pub connection: Option<Step<SocketAddr>>,
    /// TLS: whether the certificate is trusted, valid, and this host's. `None` if there was no connection, or
    /// if the host is reached in plain text.
    pub certificate: Option<Step<()>>,
    /// The fields of its answer to a request that nobody is named by.
    pub answer: Option<Step<HeaderMap>>,
}

/// One step.
#[derive(Debug)]
pub struct Step<T> {
    /// How long it took.
    pub took: Duration,
    /// What came of it.
    pub ended: Result<T, Failed>,
}

impl Hosts {
    /// Looks at `host`, a public name in lower case, as requests would reach it.
    ///
    /// # Errors
    ///
    /// It cannot be reached under this name.
    pub async fn examine(&self, host: &str, settings: &Settings) -> Result<Examination, Invalid> {
        let target = self.target(host)?;
        let name = step(&target, connecting(settings), look_up(&target)).await;
        let mut examination = Examination {
            host: host.to_owned(),
            name,
            connection: None,
            certificate: None,
            answer: None,
        };
        if let Ok(addresses) = &examination.name.ended {
            let addresses = addresses.clone();
            go_on(&mut examination, &target, &addresses, settings).await;
        }
        Ok(examination)
    }
}

/// Makes the steps after the first.
async fn go_on(
    examination: &mut Examination,
    target: &Target,
    addresses: &[SocketAddr],
    settings: &Settings,
) {
    let connected = connect(addresses, settings.connect_timeout);
    let connected = step(target, connecting(settings), connected).await;
    let (tcp, connection) = taken(connected);
    examination.connection = Some(connection);
    let Some(tcp) = tcp else { return };
    let mut stream: Stream = match target.scheme {
        Scheme::Http => tcp.into(),
        Scheme::Https => {
            let shaken = step(target, connecting(settings), shake_hands(target, tcp)).await;
            let (stream, certificate) = taken(shaken);
            examination.certificate = Some(certificate);
            match stream {
                Some(stream) => stream,
                None => return,
            }
        }
    };
    let answering = (settings.response_timeout, Error::ResponseTimeout);
    let answered = step(target, answering, ask(target, &mut stream)).await;
    examination.answer = Some(answered);
}

/// How long a step may take that leads to a connection, and what it says of one that is late.
fn connecting(settings: &Settings) -> (Duration, Error) {
    (settings.connect_timeout, Error::ConnectTimeout(None))
}

/// Makes one step.
async fn step<T>(
    target: &Target,
    (within, late): (Duration, Error),
    work: impl Future<Output = Result<T, Error>>,
) -> Step<T> {
    let began = Instant::now();
    let ended = match timeout(within, work).await {
        Ok(ended) => ended,
        Err(_) => Err(late),
    };
    Step {
        took: began.elapsed(),
        ended: ended.map_err(|error| Failed::at(target.authority.as_str(), error)),
    }
}

/// What a step brought for the next one, and what it says.
fn taken<T, S>(step: Step<(T, S)>) -> (Option<T>, Step<S>) {
    let Step { took, ended } = step;
    let (brought, ended) = match ended {
        Ok((brought, says)) => (Some(brought), Ok(says)),
        Err(failed) => (None, Err(failed)),
    };
    (brought, Step { took, ended })
}

async fn look_up(target: &Target) -> Result<Vec<SocketAddr>, Error> {
    let port = target.authority.port_u16().unwrap_or(match target.scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    });
    let host = target.authority.host().trim_matches(['[', ']']);
    let addresses = match &target.dial {
        Dial::Network(network) => network.addresses(host, port).await,
        #[cfg(any(test, feature = "internals"))]
        Dial::Memory(_) => Err(io::ErrorKind::Unsupported.into()),
    };
    match addresses.map_err(Error::Unreachable)? {
        none if none.is_empty() => Err(Error::Unreachable(io::Error::other(Unresolved(
            io::ErrorKind::NotFound.into(),
        )))),
        addresses => Ok(addresses),
    }
}

/// Connects to the first address that accepts. Each but the last has a share of the time.
async fn connect(
    addresses: &[SocketAddr],
    within: Duration,
) -> Result<(TcpStream, SocketAddr), Error> {
    let share = within / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut told = io::Error::from(io::ErrorKind::TimedOut);
    for address in addresses {
        let failed = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok((tcp, *address)),
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        if ConnectFailure::of(&failed).tells() >= ConnectFailure::of(&told).tells() {
            told = failed;
        }
    }
    Err(Error::Unreachable(told))
}

async fn shake_hands(target: &Target, tcp: TcpStream) -> Result<(Stream, ()), Error> {
    let tls = TlsConnector::from(target.tls.clone());
    let shaken = tls.connect(target.name.clone(), Records::over(tcp)).await;
    Ok((shaken.map_err(Error::Unreachable)?.into(), ()))
}

/// A request that names nobody and asks for nothing.
async fn ask(target: &Target, stream: &mut Stream) -> Result<HeaderMap, Error> {
    let head = Head {
        method: Method::HEAD,
        target: PathAndQuery::from_static("/"),
        headers: HeaderMap::new(),
    };
    let mut asked = Whole::new(stream, &head, &target.host, Bytes::new());
    let (answer, _) = asked.exchange(LIMIT).await?;
    Ok(answer.into_parts().0.headers)
}

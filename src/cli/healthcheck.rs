//! `healthcheck`: asks the running proxy whether it is ready, for containers without curl. Opens no store,
//! and resolves no secret. Where it asks, the configuration says, or `--at`: a file may say something else by
//! now than the process was started with.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::{ConfigFile, Failure, background_runtime, print, say};
use crate::config::Secrets;
use crate::server::Listener;

/// From the first look at the configuration to the end of the answer.
const LIMIT: Duration = Duration::from_secs(2);
/// A longer answer is not the proxy's.
const LONGEST: usize = 64 * 1024;

/// What to ask.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Ask only whether the process lives, not whether it is ready
    #[arg(long)]
    live: bool,
    /// Ask there, and read no configuration: an address as in `listen`, or unix:PATH
    #[arg(long, value_name = "ADDRESS")]
    at: Option<Place>,
}

/// Where a proxy is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Arguments {
    /// Whether the configuration says where to ask.
    pub(super) fn reads_the_configuration(&self) -> bool {
        self.at.is_none()
    }

    fn path(&self) -> &'static str {
        match self.live {
            true => "/livez",
            false => "/readyz",
        }
    }

    /// What the answer is about, if it is yes.
    fn word(&self) -> &'static str {
        match self.live {
            true => "alive",
            false => "ready",
        }
    }
}

/// Asks the listener of `[status]`, or else that of `[admin]`, or the one that the arguments name. Answers 0
/// if the proxy is ready, else 1 and why it is not.
pub fn run(config: ConfigFile, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let runtime = background_runtime()?;
    let asked = runtime.block_on(ask(config, arguments));
    // A file that does not answer is not waited for.
    runtime.shutdown_background();
    let word = arguments.word();
    match asked {
        Ok(report) if report.ok => {
            print(word)?;
            report
                .degraded
                .iter()
                .try_for_each(|condition| print(&format!("degraded: {condition}")))?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(report) => {
            report
                .reasons
                .iter()
                .for_each(|reason| say(&format!("not {word}: {reason}")));
            Ok(ExitCode::FAILURE)
        }
        Err(why @ Unasked::Nobody { .. }) => Err(Failure::Unusable(why.to_string())),
        Err(why) => {
            say(&format!("not {word}: {why}"));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The proxy's answer.
#[derive(Debug, Deserialize)]
struct Report {
    ok: bool,
    #[serde(default)]
    reasons: Vec<Condition>,
    #[serde(default)]
    degraded: Vec<Condition>,
}

/// Something that lasts.
#[derive(Debug, Deserialize)]
struct Condition {
    code: String,
    message: String,
    since: String,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Condition {
            code,
            message,
            since,
        } = self;
        write!(f, "{code}: {message} (since {since})")
    }
}

/// Why it is not known how the proxy is.
#[derive(Debug, thiserror::Error)]
enum Unasked {
    #[error(
        "nothing can be asked: {} has neither [status] nor [admin]; add [status] with \
         `listen = \"127.0.0.1:9091\"`", path.display()
    )]
    Nobody { path: PathBuf },
    #[error(
        "the configuration does not say where to ask; with --at ADDRESS it need not be read\n{0}"
    )]
    Invalid(String),
    #[error(
        "the configuration cannot be read within 2 s: its disk or mount hangs; with --at ADDRESS it need \
         not be read"
    )]
    Unread,
    #[error("the system chooses the port of {0}: name one, or say by --at which it is")]
    AnyPort(SocketAddr),
    #[error("{place} {why}")]
    Unanswered { place: Place, why: Unanswered },
}

/// Why there is no answer; continues a sentence that begins with the place.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("does not answer within 2 s: the process hangs, or the machine is overloaded")]
    Late,
    #[error("cannot be connected to ({0}): the process does not run, or listens somewhere else")]
    Unreachable(io::Error),
    #[error(
        "closes the connection without an answer: the process is ending, or is no damoov-proxy"
    )]
    Broken,
    #[error("answers {0} and no report: it is no damoov-proxy")]
    Foreign(StatusCode),
}

async fn ask(config: ConfigFile, arguments: &Arguments) -> Result<Report, Unasked> {
    let until = Instant::now() + LIMIT;
    let place = match &arguments.at {
        Some(place) => place.clone(),
        None => {
            let configured = timeout_at(until, configured(config)).await;
            configured.unwrap_or(Err(Unasked::Unread))?
        }
    };
    if let Place::Tcp(address) = &place
        && address.port() == 0
    {
        return Err(Unasked::AnyPort(*address));
    }
    let answered = timeout_at(until, report_of(&place, arguments.path())).await;
    let answered = answered.unwrap_or(Err(Unanswered::Late));
    answered.map_err(|why| Unasked::Unanswered { place, why })
}

/// Where the configuration says that the proxy can be asked.
async fn configured(config: ConfigFile) -> Result<Place, Unasked> {
    let loading = spawn_blocking(|| config.load(Secrets::Leave)).await;
    let loaded = loading.map_err(|error| Unasked::Invalid(error.to_string()))?;
    let (path, loaded) = loaded.map_err(|error| Unasked::Invalid(error.report()))?;
    match loaded.settings.status.or(loaded.settings.admin) {
        Some(Listener::Tcp(address)) => Ok(Place::Tcp(address)),
        Some(Listener::Unix { path, .. }) => Ok(Place::Unix(path)),
        None => Err(Unasked::Nobody { path }),
    }
}

async fn report_of(place: &Place, path: &str) -> Result<Report, Unanswered> {
    let (status, content) = match place {
        Place::Unix(socket) => {
            let stream = UnixStream::connect(socket).await;
            exchange(stream.map_err(Unanswered::Unreachable)?, path).await?
        }
        Place::Tcp(address) => {
            let stream = TcpStream::connect(&*doors(*address)).await;
            exchange(stream.map_err(Unanswered::Unreachable)?, path).await?
        }
    };
    serde_json::from_slice(&content).map_err(|_| Unanswered::Foreign(status))
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("expected a path after unix:".to_owned()),
            Some(path) => Ok(Place::Unix(path.into())),
            None => text.parse().map(Place::Tcp).map_err(|_| {
                "expected an address such as 127.0.0.1:9091 or [::1]:9091, or unix:PATH".to_owned()
            }),
        }
    }
}

/// The address or path.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(address) => address.fmt(f),
            Place::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Where this machine reaches what listens on `address`, tried in this order.
fn doors(address: SocketAddr) -> Vec<SocketAddr> {
    let all = address.ip().is_unspecified();
    let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    let ips = match address {
        SocketAddr::V4(_) if all => vec![v4],
        // All addresses of IPv6 are those of IPv4, too, and a machine may lack either.
        SocketAddr::V6(_) if all => vec![v6, v4],
        SocketAddr::V4(_) | SocketAddr::V6(_) => return vec![address],
    };
    let port = address.port();
    ips.into_iter()
        .map(|ip| SocketAddr::new(ip, port))
        .collect()
}

/// Sends one request and reads the whole answer.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
) -> Result<(StatusCode, Bytes), Unanswered> {
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|_| Unanswered::Broken)?;
    let request = Request::get(path)
        .header(HOST, "localhost")
        .body(Empty::<Bytes>::new())
        .expect("the parts are constant");
    let answering = async {
        let answer = sender.send_request(request).await;
        let (head, content) = answer.map_err(|_| Unanswered::Broken)?.into_parts();
        match Limited::new(content, LONGEST).collect().await {
            Ok(content) => Ok((head.status, content.to_bytes())),
            Err(_) => Err(Unanswered::Foreign(head.status)),
        }
    };
    tokio::select! {
        biased;
        answered = answering => answered,
        Err(_) = connection => Err(Unanswered::Broken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_address_is_asked_on_loopback() {
        for (listener, asked) in [
            ("0.0.0.0:9", &["127.0.0.1:9"][..]),
            ("[::]:9", &["[::1]:9", "127.0.0.1:9"]),
            ("192.0.2.1:9", &["192.0.2.1:9"]),
            ("[2001:db8::1]:9", &["[2001:db8::1]:9"]),
        ] {
            let doors: Vec<_> = doors(listener.parse().unwrap())
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(doors, asked, "{listener}");
        }
    }

    #[test]
    fn a_place_is_an_address_with_a_port_or_a_path() {
        for place in ["127.0.0.1:9091", "[::]:9091"] {
            let address = place.parse().unwrap();
            assert_eq!(place.parse(), Ok(Place::Tcp(address)));
        }
        let socket = Place::Unix("/run/proxy.sock".into());
        assert_eq!("unix:/run/proxy.sock".parse(), Ok(socket));
        for none in [
            "",
            "9091",
            "127.0.0.1",
            "unix:",
            "/run/proxy.sock",
            "http://127.0.0.1:1",
        ] {
            assert!(none.parse::<Place>().is_err(), "{none}");
        }
    }
}

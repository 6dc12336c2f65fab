//! `healthcheck`: asks the running proxy whether it is ready, for containers without curl. Opens no store,
//! and resolves no secret.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
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
use tokio::time::timeout;

use super::{ConfigFile, Failure, background_runtime, print, say};
use crate::config::Secrets;
use crate::server::Listener;

/// From the first attempt to connect to the end of the answer.
const LIMIT: Duration = Duration::from_secs(2);
/// A longer answer is not the proxy's.
const LONGEST: usize = 64 * 1024;

/// What to ask.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Ask only whether the process lives, not whether it is ready
    #[arg(long)]
    live: bool,
}

impl Arguments {
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

/// Asks the listener of `[status]`, or else that of `[admin]`. Answers 0 if the proxy is ready, else 1 and
/// why it is not.
pub fn run(config: ConfigFile, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (path, loaded) = config.load(Secrets::Leave).map_err(Failure::Config)?;
    let Some(listener) = loaded.settings.status.or(loaded.settings.admin) else {
        return Err(Failure::Config(format!(
            "error: nothing can be asked: {} has neither [status] nor [admin]; add [status] with \
             `listen = \"127.0.0.1:9091\"`",
            path.display()
        )));
    };
    if matches!(listener, Listener::Tcp(address) if address.port() == 0) {
        return Err(Failure::Config(format!(
            "error: nothing can be asked: the system chooses the port of {listener}; name one"
        )));
    }
    let asking = async { timeout(LIMIT, ask(&listener, arguments.path())).await };
    let answered = background_runtime()?.block_on(asking);
    let word = arguments.word();
    match answered.unwrap_or(Err(Unanswered::Late)) {
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
        Err(why) => {
            say(&format!("not {word}: {listener} {why}"));
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

/// Why there is no answer; continues a sentence that begins with the listener.
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

async fn ask(listener: &Listener, path: &str) -> Result<Report, Unanswered> {
    let (status, content) = match listener {
        Listener::Unix { path: socket, .. } => {
            let stream = UnixStream::connect(socket).await;
            exchange(stream.map_err(Unanswered::Unreachable)?, path).await?
        }
        Listener::Tcp(address) => {
            let stream = TcpStream::connect(&*doors(*address)).await;
            exchange(stream.map_err(Unanswered::Unreachable)?, path).await?
        }
    };
    serde_json::from_slice(&content).map_err(|_| Unanswered::Foreign(status))
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
}

//! The log: nothing waits for it, what it loses is counted, what lasts is told once, and every cause
//! is told.

// What became of whose tokens, and who asked for it.
mod audit;
// Hosts that cannot be reached or do not answer: caller and log learn which and why.
mod causes;
// What lasts is told when it begins and when it is over, not once a request.
mod episodes;
// Traces of callers: passed on, and named in the access log.
mod traces;
// A standard error that takes nothing: a pipe that nobody reads, a full disk, no descriptor at all.
mod unread;

use std::io::{Read, Seek};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use serde_json::Value;

use crate::harness::{Answer, Builder, Client, Proxy, captured, eventually, loopback};

/// Every line, as the object that it is.
#[track_caller]
fn objects(log: &str) -> Vec<Value> {
    let object = |line: &str| {
        let object = serde_json::from_str(line);
        object.unwrap_or_else(|_| panic!("not an object: {line}"))
    };
    log.lines().map(object).collect()
}

/// The lines of a proxy so far that say this.
fn saying(proxy: &Proxy, message: &str) -> Vec<Value> {
    let log = proxy.log();
    // The last line may be half written.
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    let mut lines = objects(whole);
    lines.retain(|line| line["message"] == message);
    lines
}

/// Waits for a line that says this, and answers it. There must be no second one.
async fn told_once(proxy: &Proxy, message: &str) -> Value {
    eventually(message, async || !saying(proxy, message).is_empty()).await;
    let mut lines = saying(proxy, message);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(loopback(0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// A proxy whose standard error is not a file that the test reads.
struct Unlogged {
    /// Keeps the folder.
    _files: Proxy,
    child: Child,
    address: SocketAddr,
    status: SocketAddr,
    client: Client,
}

impl Unlogged {
    /// `command` makes the command whose standard error is what the test wants.
    async fn start(builder: Builder, command: impl FnOnce(Command) -> Command) -> Unlogged {
        let (address, status) = (loopback(free_port()), loopback(free_port()));
        let files = builder
            .set("listen", &address.to_string())
            .set("status.listen", &status.to_string())
            .stopped_here();
        let child = command(files.command("run")).spawn().unwrap();
        let started = Unlogged {
            _files: files,
            child,
            address,
            status,
            client: Client::new(),
        };
        eventually("it serves", async || {
            started.asked(status, "/livez").await.is_some()
        })
        .await;
        started
    }

    async fn asked(&self, at: SocketAddr, path: &str) -> Option<Answer> {
        let request = Request::get(format!("http://{at}{path}"))
            .header("DeviceToken", crate::harness::user(1).to_string());
        let request = request.body(Full::default()).unwrap();
        let asking = self.client.send(request);
        let answer = tokio::time::timeout(Duration::from_secs(10), asking).await;
        answer.expect("an answer in time").ok()
    }

    async fn get(&self, path: &str) -> u16 {
        let answer = self.asked(self.address, path).await;
        answer.expect("an answer").status.as_u16()
    }

    /// What a counter says.
    async fn metric(&self, series: &str) -> u64 {
        let text = self.asked(self.status, "/metrics").await.unwrap().text();
        let line = text.lines().find(|line| line.starts_with(series));
        let line = line.unwrap_or_else(|| panic!("no {series} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// SIGTERM, and the end that must come.
    async fn terminate(mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut ended = None;
        for _ in 0..1000 {
            ended = self.child.try_wait().unwrap();
            if ended.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        ended.expect("it ends within 10 s")
    }
}

impl Drop for Unlogged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn why_it_cannot_start_is_told_in_the_format_of_the_log() {
    let damoov = crate::harness::damoov().await;
    let taken = std::net::TcpListener::bind(loopback(0)).unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (key, value, code, says) in [
        ("listen", &*taken, 1, "cannot listen on"),
        ("store.path", "/proc/nowhere", 78, "/proc/nowhere"),
    ] {
        let builder = crate::harness::proxy(&damoov).set(key, value);
        let stopped = builder.stopped_here();
        let output = captured(stopped.command("run")).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        let last = objects(&said).pop().unwrap();
        assert_eq!(last["level"], "ERROR");
        assert!(last["message"].as_str().unwrap().contains(says), "{last}");

        let mut command = stopped.command("run");
        command.env("DAMOOV_PROXY__LOG__FORMAT", "text");
        let said = String::from_utf8(captured(command).await.stderr).unwrap();
        let last = said.lines().last().unwrap();
        assert!(last.contains("Z ERROR damoov_proxy: "), "{last}");
        assert!(last.contains(says), "{last}");
    }
    let stopped = crate::harness::proxy(&damoov).stopped_here();
    let mut command = stopped.command("run");
    command.env("DAMOOV_PROXY_LOG", "damoov_proxy=loud");
    let said = String::from_utf8(captured(command).await.stderr).unwrap();
    let [only] = &objects(&said)[..] else {
        panic!("{said}")
    };
    let message = only["message"].as_str().unwrap();
    assert!(message.starts_with("DAMOOV_PROXY_LOG is not a log filter"));
}

#[tokio::test]
async fn the_level_of_the_file_holds_unless_the_environment_names_one() {
    let damoov = crate::harness::damoov().await;
    for (variable, is_told) in [("RUST_LOG", false), ("DAMOOV_PROXY_LOG", true)] {
        let mut log = tempfile::tempfile().unwrap();
        let stderr = log.try_clone().unwrap();
        let builder = crate::harness::proxy(&damoov)
            .set("log.level", "error")
            .env(variable, "info");
        let started = Unlogged::start(builder, |mut command| {
            command.stderr(stderr);
            command
        })
        .await;
        assert!(started.terminate().await.success());
        let mut said = String::new();
        log.rewind().unwrap();
        log.read_to_string(&mut said).unwrap();
        assert_eq!(said.contains("\"message\":\"starting\""), is_told, "{said}");
    }
}

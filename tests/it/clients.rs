//! Clients that nobody here wrote, in front of the proxy as they are in front of Damoov. Each logs
//! in by itself, with principals of its own, and notices nothing of expiry, revocation and
//! restarts. `tests/run` provides them; their scripts are in `tests/clients`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use damoov_proxy::principal::Principal;
use damoov_proxy::simulator::Simulator;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::harness::programs::HINT;
use crate::harness::{Builder, Proxy, proxy};

// Requests as the vendor's Android library builds them.
mod android;
// Requests as the vendor's open-source apps build them.
mod apps;
// damoov-admin, the vendor's Python package.
mod damoov_admin;
// Live tracking with the packages websockets (Python) and ws (Node).
mod live;

/// Longer than any step takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a client must not notice.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// Every access token expires.
    Expiry,
    /// Every pair is revoked.
    Revocation,
    /// SIGKILL, and a new process.
    Crash,
    /// SIGTERM, and a new process.
    Restart,
}

/// Each kind, and the tokens of each process in trouble too.
const TROUBLES: [Trouble; 6] = [
    Trouble::Expiry,
    Trouble::Revocation,
    Trouble::Crash,
    Trouble::Expiry,
    Trouble::Restart,
    Trouble::Revocation,
];

/// How often [`TROUBLES`] end an access token alone.
const EXPIRIES: u64 = 2;
/// How often [`TROUBLES`] end a pair.
const REVOCATIONS: u64 = 2;

impl Trouble {
    /// Whether it spares the proxy, so that calls under way go on.
    fn ends_tokens_alone(self) -> bool {
        matches!(self, Trouble::Expiry | Trouble::Revocation)
    }

    /// Lets it happen to everybody.
    async fn strike(self, damoov: &Simulator, proxy: &mut Proxy) {
        match self {
            Trouble::Expiry => assert!(damoov.handle().expire(None) > 0),
            Trouble::Revocation => assert!(damoov.handle().revoke(None) > 0),
            Trouble::Crash => proxy.crash().await,
            Trouble::Restart => {
                assert!(proxy.terminate().await.success());
                proxy.start().await;
            }
        }
    }
}

/// A proxy that takes trouble often.
fn troubled(damoov: &Simulator) -> Builder {
    proxy(damoov).set("renewal.contested_backoff", "0s")
}

/// One login for the first call and one for each revocation, one refresh for each expiry; nothing
/// that Damoov rejected but the refreshes that found out about a revocation.
#[track_caller]
fn renewed_no_more_than_needed(damoov: &Simulator, principal: &Principal, logins_before: u64) {
    let count = damoov.handle().counts_of(principal);
    let (logins, refreshes) = (count.logins, count.refreshes);
    assert_eq!(
        (logins.ok, logins.all()),
        (logins_before + REVOCATIONS, logins_before + REVOCATIONS),
        "{principal}: {count:?}"
    );
    assert_eq!(
        (refreshes.ok, refreshes.rejected, refreshes.all()),
        (EXPIRIES, REVOCATIONS, EXPIRIES + REVOCATIONS),
        "{principal}: {count:?}"
    );
    assert_eq!(damoov.handle().counts().total.wrong_tokens, 0);
}

/// A client's process. Killed when dropped.
struct Script {
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::UnboundedReceiver<String>,
    folder: TempDir,
}

impl Script {
    /// Runs `tests/clients/<name>` by an interpreter.
    fn start(interpreter: Command, name: &str, arguments: &[&str]) -> Script {
        let folder = tempfile::tempdir().unwrap();
        Script::start_in(folder, interpreter, name, arguments)
    }

    /// The same, with a folder that its arguments name.
    fn start_in(
        folder: TempDir,
        mut interpreter: Command,
        name: &str,
        arguments: &[&str],
    ) -> Script {
        let errors = File::create(folder.path().join("errors")).unwrap();
        let mut child = interpreter
            .arg(format!(
                "{}/tests/clients/{name}",
                env!("CARGO_MANIFEST_DIR")
            ))
            .args(arguments)
            // How soon websockets tries again if nobody listens, in seconds.
            .env("WEBSOCKETS_BACKOFF_INITIAL_DELAY", "0.02")
            .env("WEBSOCKETS_BACKOFF_MIN_DELAY", "0.02")
            .env("WEBSOCKETS_BACKOFF_MAX_DELAY", "0.02")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{interpreter:?}: {error}; {HINT}"));
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::unbounded_channel();
        // Ends with the process.
        std::thread::spawn(move || {
            for line in output.lines() {
                let _ = sender.send(line.unwrap());
            }
        });
        Script {
            input: child.stdin.take(),
            child,
            lines,
            folder,
        }
    }

    /// Lets it take one step, and reads what came of it.
    async fn step(&mut self, step: &str) -> Value {
        self.tell(step);
        self.line().await
    }

    /// Writes a line.
    fn tell(&mut self, line: &str) {
        let input = self.input.as_mut().expect("not at its end");
        if let Err(error) = writeln!(input, "{line}") {
            panic!("it takes no line: {error}\n{}", self.errors());
        }
    }

    /// Reads a line, which is JSON unless a library has something to say.
    async fn line(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.lines.recv()).await;
        match line {
            Ok(Some(line)) => serde_json::from_str(&line)
                .unwrap_or_else(|_| panic!("the library says {line:?}\n{}", self.errors())),
            Ok(None) => panic!("it ended:\n{}\n({HINT})", self.errors()),
            Err(_) => panic!("it says nothing:\n{}", self.errors()),
        }
    }

    /// Ends its input; it must then end by itself, without an error.
    async fn end(mut self) {
        drop(self.input.take());
        let rest = async { while self.lines.recv().await.is_some() {} };
        let ended = tokio::time::timeout(PATIENCE, rest).await;
        assert!(ended.is_ok(), "it does not end:\n{}", self.errors());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}:\n{}", self.errors());
    }

    fn errors(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("errors")).unwrap_or_default()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

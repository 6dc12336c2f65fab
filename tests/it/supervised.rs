//! What supervisors see of the proxy: what it tells systemd, and the sockets that it inherits.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use damoov_proxy::simulator::{Action, Fault, LoginLimit, Lost, On};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{SCORES, Scene, damoov, damoov_with, eventually, proxy};
use crate::wire::{Wire, get};

// Sockets that are open before the proxy runs, and stay so when it ends.
mod inherited;
// The units of `config/systemd`.
mod units;

/// In the place of systemd.
struct Systemd {
    socket: UnixDatagram,
    path: PathBuf,
    _folder: Arc<TempDir>,
}

impl Systemd {
    fn new() -> Systemd {
        Systemd::in_folder(&Arc::new(tempfile::tempdir().unwrap()))
    }

    fn in_folder(folder: &Arc<TempDir>) -> Systemd {
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Systemd {
            socket,
            path,
            _folder: folder.clone(),
        }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// The next datagram that begins like this; those before it are dropped.
    async fn told(&self, beginning: &str) -> String {
        let mut dropped = Vec::new();
        for _ in 0..3000 {
            let mut buffer = [0; 4096];
            match self.socket.recv(&mut buffer) {
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                Ok(length) => {
                    let told = String::from_utf8(buffer[..length].to_vec()).unwrap();
                    if told.starts_with(beginning) {
                        return told;
                    }
                    dropped.push(told);
                }
            }
        }
        panic!("never told {beginning}, but {dropped:?}");
    }
}

#[tokio::test]
async fn systemd_is_told_when_the_proxy_is_ready_lives_and_ends() {
    let systemd = Systemd::new();
    let damoov = damoov().await;
    let hang = Fault::new(On::Data, Action::Lose(Lost::Hang));
    let builder = proxy(&damoov)
        .env("NOTIFY_SOCKET", systemd.path())
        .env("WATCHDOG_USEC", "300000")
        .set("drain_timeout", "20s");
    let mut proxy = builder.start().await;
    let ready = systemd.told("READY=1\n").await;
    let status = format!("STATUS=serving on {}\n", proxy.address());
    assert_eq!(ready, format!("READY=1\n{status}"));
    for _ in 0..3 {
        assert_eq!(systemd.told("WATCHDOG=1").await, "WATCHDOG=1\n");
    }
    assert_eq!(proxy.get(1, SCORES).await.status, 200);

    damoov.handle().add_fault(hang);
    let mut held = Wire::to(&proxy).await;
    held.write(get(SCORES, "")).await;
    eventually("an answer is under way", async || {
        proxy.metric("requests_in_flight", "").await == 1.0
    })
    .await;
    proxy.signal(Signal::TERM);
    let stopping = systemd.told("STOPPING=1\n").await;
    let lines: Vec<_> = stopping.lines().collect();
    let [_, status, extend] = lines[..] else {
        panic!("{stopping}");
    };
    assert!(status.starts_with("STATUS=draining"), "{stopping}");
    assert_eq!(extend, "EXTEND_TIMEOUT_USEC=15000000");
    // The watchdog is served, and the time extended, for as long as the answer takes.
    systemd.told("WATCHDOG=1").await;
    let again = systemd.told("STATUS=draining").await;
    assert!(again.contains("\nEXTEND_TIMEOUT_USEC="), "{again}");
    drop(held);
    assert_eq!(proxy.ended().await.code(), Some(0));
}

#[tokio::test]
async fn the_status_line_says_what_is_wrong() {
    let systemd = Systemd::new();
    let damoov = damoov_with(|settings| {
        settings.login_limit = Some(LoginLimit {
            calls: 1,
            ..LoginLimit::default()
        });
    })
    .await;
    let builder = proxy(&damoov).env("NOTIFY_SOCKET", systemd.path());
    let proxy = builder.start().await;
    proxy.get(1, SCORES).await;
    assert_eq!(proxy.get(2, SCORES).await.status, 503);
    let serving = format!("STATUS=serving on {}", proxy.address());
    let wrong = format!("{serving}; wrong: login_blocked; see /readyz\n");
    assert_eq!(systemd.told("STATUS=serving").await, wrong);
}

#[tokio::test]
async fn a_watchdog_that_waits_for_another_process_is_not_served() {
    let systemd = Systemd::new();
    let damoov = damoov().await;
    let builder = proxy(&damoov)
        .env("NOTIFY_SOCKET", systemd.path())
        .env("WATCHDOG_USEC", "1000")
        .env("WATCHDOG_PID", "1");
    let mut proxy = builder.start().await;
    systemd.told("READY=1\n").await;
    proxy.terminate().await;
    let mut buffer = [0; 4096];
    while let Ok(length) = systemd.socket.recv(&mut buffer) {
        assert_ne!(&buffer[..length], b"WATCHDOG=1\n");
    }
}

#[tokio::test]
async fn a_notify_socket_that_nobody_listens_on_is_one_warning() {
    for left_behind in [false, true] {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let socket = folder.path().join("notify");
        if left_behind {
            drop(UnixDatagram::bind(&socket).unwrap());
        }
        let mut scene = Scene::with(|proxy| {
            proxy
                .env("NOTIFY_SOCKET", socket.to_str().unwrap())
                .env("WATCHDOG_USEC", "20000")
        })
        .await;
        assert_eq!(scene.proxy.get(1, SCORES).await.status, 200);
        // It goes on to tell: somebody may listen later.
        for _ in 0..2 {
            let _ = fs::remove_file(&socket);
            Systemd::in_folder(&folder).told("WATCHDOG=1").await;
        }
        assert!(scene.proxy.terminate().await.success());
        let log = scene.proxy.log();
        let warnings: Vec<_> = log
            .lines()
            .filter(|line| line.contains("NOTIFY_SOCKET"))
            .collect();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("\"level\":\"WARN\""), "{warnings:?}");
    }
}

/// The same command, with this as its descriptor 3, as systemd passes it on.
fn passing(command: &Command, passed: impl Into<OwnedFd>) -> Command {
    let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\"";
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script, "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(passed.into())
        .stdout(Stdio::null());
    for (name, value) in command.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    shell
}

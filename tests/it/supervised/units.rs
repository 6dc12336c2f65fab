//! The units in `config/systemd`: what systemd's own tools say of them, and that the proxy does nothing that
//! they forbid.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::harness::{Proxy, SCORES, captured, damoov, eventually, proxy, said, user};
use crate::wire::get;

/// The largest exposure that `systemd-analyze security` may find, in tenths.
const EXPOSURE: u32 = 16;

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/systemd")
}

fn service() -> String {
    fs::read_to_string(units().join("damoov-proxy.service")).unwrap()
}

/// The units in a folder of their own; the service runs the binary under test.
fn installed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let runs_this = service().replace("/usr/bin/damoov-proxy", env!("CARGO_BIN_EXE_damoov-proxy"));
    fs::write(folder.path().join("damoov-proxy.service"), runs_this).unwrap();
    let socket = "damoov-proxy.socket";
    fs::copy(units().join(socket), folder.path().join(socket)).unwrap();
    folder
}

/// The values of each line `key=…`.
fn values(unit: &str, key: &str) -> Vec<String> {
    let lines = unit.lines();
    let values = lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.map(str::to_owned).collect()
}

#[tokio::test]
async fn systemd_analyze_finds_no_fault_in_the_units() {
    let folder = installed();
    let mut verify = Command::new("systemd-analyze");
    // The page is installed by the package.
    verify.args(["verify", "--man=no"]);
    for unit in ["damoov-proxy.service", "damoov-proxy.socket"] {
        verify.arg(folder.path().join(unit));
    }
    assert_eq!(said(verify).await, (Some(0), String::new()));
}

#[tokio::test]
async fn the_exposure_of_the_service_is_one_point_six_at_most() {
    let folder = installed();
    let mut security = Command::new("systemd-analyze");
    security
        .args(["security", "--offline=true", "--no-pager"])
        .arg(format!("--threshold={EXPOSURE}"))
        .arg(folder.path().join("damoov-proxy.service"));
    let (code, said) = said(security).await;
    assert!(said.contains("Overall exposure level"), "{said}");
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn the_service_restarts_stops_and_reloads_as_the_proxy_does() {
    let unit = service();
    let one = |key: &str| -> String {
        let values = values(&unit, key);
        assert_eq!(values.len(), 1, "{key}: {values:?}");
        values[0].clone()
    };
    assert_eq!(one("Type"), "notify");
    assert_eq!(one("ExecReload"), "/bin/kill -HUP $MAINPID");
    assert_eq!(one("RestartPreventExitStatus"), "64 78");
    assert_eq!(one("StateDirectory"), "damoov-proxy");
    assert_eq!(values(&unit, "LoadCredential").len(), 2);
    assert!(values(&unit, "PrivateUsers").is_empty());
    // Of the full example, which has the defaults.
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/damoov-proxy.toml");
    let example = fs::read_to_string(example).unwrap();
    let seconds = |text: &str| -> u64 {
        text.trim_matches('"')
            .strip_suffix('s')
            .unwrap()
            .parse()
            .unwrap()
    };
    let configured = |key: &str| {
        let line = example
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        seconds(line.unwrap())
    };
    let drain = configured("drain_delay") + configured("drain_timeout");
    assert!(seconds(&one("TimeoutStopSec")) > drain);
}

/// The system calls that the unit's filter lets pass.
async fn allowed() -> BTreeSet<String> {
    let mut list = Command::new("systemd-analyze");
    list.args(["syscall-filter", "--no-pager"]);
    let listed = captured(list).await;
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut allowed = BTreeSet::new();
    for line in values(&service(), "SystemCallFilter") {
        let (forbids, names) = match line.strip_prefix('~') {
            Some(names) => (true, names),
            None => (false, &*line),
        };
        for name in names.split(' ') {
            for call in members(&listed, name) {
                match forbids {
                    true => drop(allowed.remove(&call)),
                    false => drop(allowed.insert(call)),
                }
            }
        }
    }
    assert!(allowed.len() > 100, "{allowed:?}");
    allowed
}

/// The calls of a group, or the call itself, as systemd lists them.
fn members(listed: &str, name: &str) -> Vec<String> {
    if !name.starts_with('@') {
        return vec![name.to_owned()];
    }
    let members = listed.lines().skip_while(|line| *line != name).skip(1);
    let members = members
        .take_while(|line| line.starts_with(' '))
        .map(str::trim);
    let members: Vec<_> = members.filter(|line| !line.starts_with('#')).collect();
    assert!(!members.is_empty(), "{name}");
    let all = members
        .into_iter()
        .flat_map(|member| self::members(listed, member));
    all.collect()
}

/// Lets the proxy do what it does in a life: log in, renew, serve a unix socket, tell its state, reload, end.
async fn live(proxy: &mut Proxy, socket: &Path, damoov: &damoov_proxy::simulator::Simulator) {
    for number in [1, 2] {
        assert_eq!(proxy.get(number, SCORES).await.status, 200);
    }
    damoov.handle().expire(None);
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    let mut caller = UnixStream::connect(socket).await.unwrap();
    let request = get(SCORES, "Connection: close\r\n");
    caller.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    caller.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for path in ["/readyz", "/metrics"] {
        assert_eq!(proxy.status(path).await.status, 200);
    }
    let forget = proxy.run(&format!("tokens forget {}", user(2))).await;
    assert_eq!(forget.0, Some(0), "{forget:?}");
    proxy.signal(Signal::HUP);
    assert_eq!(proxy.get(2, SCORES).await.status, 200);
}

#[tokio::test]
async fn no_system_call_of_a_run_is_outside_the_filter_of_the_unit() {
    let allowed = allowed().await;
    let systemd = super::Systemd::new();
    let damoov = damoov().await;
    let builder = proxy(&damoov)
        .env("NOTIFY_SOCKET", systemd.path())
        .env("WATCHDOG_USEC", "5000000");
    let (socket, calls) = (
        builder.folder().join("proxy.sock"),
        builder.folder().join("calls"),
    );
    let listen = format!(
        r#"["127.0.0.1:0", {{ unix = "{}", mode = "0600" }}]"#,
        socket.display()
    );
    let mut proxy = builder.set("listen", &listen).stopped_here();
    let run = proxy.command("run");
    let mut traced = Command::new("strace");
    // As a grandchild, so that the child is the proxy.
    traced.args(["-D", "-f", "-q", "-o"]).arg(&calls);
    traced.arg(run.get_program()).args(run.get_args());
    for (name, value) in run.get_envs() {
        traced.env(name, value.unwrap_or_default());
    }
    proxy.start_as(traced).await;
    live(&mut proxy, &socket, &damoov).await;
    let pid = format!("{} ", proxy.pid());
    assert!(proxy.terminate().await.success(), "{}", proxy.log());
    eventually("strace has seen the end", async || {
        let traced = fs::read_to_string(&calls).unwrap();
        let ended = |line: &str| line.starts_with(&pid) && line.ends_with("+++ exited with 0 +++");
        traced.lines().any(ended)
    })
    .await;
    let traced = fs::read_to_string(&calls).unwrap();
    let made: BTreeSet<_> = traced.lines().filter_map(made).collect();
    for expected in ["execve", "sendto", "accept4", "fdatasync", "connect"] {
        assert!(made.contains(expected), "{expected}: {made:?}");
    }
    let outside: Vec<_> = made
        .into_iter()
        .filter(|call| !allowed.contains(*call))
        .collect();
    assert!(outside.is_empty(), "{outside:?}");
}

/// The system call of a line like `123 read(3, …) = 1`; `None` for the second half of one, signals and ends.
fn made(line: &str) -> Option<&str> {
    let (_, said) = line.split_once(' ')?;
    let (call, _) = said.trim_start().split_once('(')?;
    let is_name = |call: &&str| {
        call.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    Some(call).filter(is_name)
}

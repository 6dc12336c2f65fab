//! What somebody meets who has nothing but the README: the examples run as they stand, and what the
//! README lists is what there is.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use damoov_proxy::simulator::{ACCOUNT_EMAIL, ACCOUNT_PASSWORD, INSTANCE_ID, INSTANCE_KEY};
use http::Request;
use http_body_util::Full;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::harness::programs::copy_binary;
use crate::harness::{Answer, Client, SCORES, captured, damoov, user, write_private};

const BINARY: &str = env!("CARGO_BIN_EXE_damoov-proxy");

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// A proxy that listens.
struct Running {
    child: Killed,
    address: SocketAddr,
    /// Kept open for what it logs later on.
    _log: BufReader<ChildStderr>,
}

impl Running {
    /// Starts it, and waits until its log says where it listens.
    fn start(mut command: Command) -> Running {
        let mut child = Killed(command.stderr(Stdio::piped()).spawn().unwrap());
        let mut log = BufReader::new(child.0.stderr.take().expect("piped"));
        let mut said = String::new();
        loop {
            let before = said.len();
            let read = log.read_line(&mut said).unwrap();
            assert!(read > 0, "it does not listen:\n{said}");
            let line = &said[before..];
            if line.contains("\"listening\"") {
                let address = line.split("\"address\":\"").nth(1).unwrap();
                let address = address.split('"').next().unwrap().parse().unwrap();
                return Running {
                    child,
                    address,
                    _log: log,
                };
            }
        }
    }
}

/// Killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `GET` of a user's scores from a proxy at `address`.
async fn scores(address: SocketAddr) -> Answer {
    let request = Request::get(format!("http://{address}{SCORES}"))
        .header("DeviceToken", user(1).to_string())
        .body(Full::default())
        .unwrap();
    Client::new().send(request).await.unwrap()
}

/// The command, run as nobody in a folder that is nobody's, if this test may choose; `nobody` is
/// allowed to read and run the binary there.
fn as_nobody(folder: &TempDir) -> Command {
    const NOBODY: u32 = 65_534;
    if !geteuid().is_root() {
        return Command::new(BINARY);
    }
    let binary = folder.path().join("damoov-proxy");
    copy_binary(&binary);
    std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&binary);
    command
}

#[tokio::test]
async fn the_minimal_file_runs_as_it_stands_for_somebody_who_is_not_root() {
    let damoov = damoov().await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("minimal.toml");
    fs::write(&config, file("config/minimal.toml")).unwrap();
    fs::set_permissions(&config, Permissions::from_mode(0o644)).unwrap();
    let command = as_nobody(&folder);
    let start = |arguments: &[&str]| {
        let mut start = Command::new(command.get_program());
        start
            .args(command.get_args())
            .args(arguments)
            .arg("--config")
            .arg(&config)
            .env("DAMOOV_INSTANCE_ID", INSTANCE_ID)
            .env("DAMOOV_INSTANCE_KEY", INSTANCE_KEY)
            .env("DAMOOV_PROXY__LISTEN", "127.0.0.1:0")
            .env("DAMOOV_PROXY__UPSTREAM__ALL_HOSTS", damoov.base_url())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        start
    };
    let mut running = Running::start(start(&["run"]));
    let answer = scores(running.address).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(folder.path().join("store/tokens.db").exists());
    kill_process(Pid::from_child(&running.child.0), Signal::INT).unwrap();
    let ended = tokio::task::spawn_blocking(move || running.child.0.wait().unwrap());
    assert!(ended.await.unwrap().success());
    let check = captured(start(&["check"])).await;
    assert!(check.status.success(), "{check:?}");
}

#[tokio::test]
async fn all_hosts_are_redirected_at_once_and_check_says_which_are_real() {
    let damoov = damoov().await;
    let (leaders, user_host) = ("leaderboard.telematicssdk.com", "user.telematicssdk.com");
    let nobody_there = "http://127.0.0.1:9";
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("damoov-proxy.toml");
    let write = |upstream: &str| {
        let text = format!(
            "[[instance]]\nname = \"main\"\nid = \"{INSTANCE_ID}\"\nkey = \"{INSTANCE_KEY}\"\n\
             [store]\npath = \"store\"\n{upstream}"
        );
        write_private(&config, &text);
    };
    let command = |name: &str| {
        let mut command = Command::new(BINARY);
        command
            .args([name, "--config"])
            .arg(&config)
            .env("DAMOOV_PROXY__LISTEN", "127.0.0.1:0")
            .stderr(Stdio::piped());
        command
    };
    let all = damoov.base_url();
    for (upstream, said) in [
        (String::new(), "all 6 hosts are the real Damoov".to_owned()),
        (
            format!("[upstream]\nall_hosts = \"{all}\"\n"),
            "all 6 hosts are redirected".to_owned(),
        ),
        (
            format!("[upstream.hosts]\n\"{leaders}\" = \"{all}\"\n\"{user_host}\" = \"{all}\"\n"),
            "4 of 6 hosts are the real Damoov: accounts.telematicssdk.com, \
             api.telematicssdk.com, mobilesdk.telematicssdk.com, portal-apis.telematicssdk.com"
                .to_owned(),
        ),
    ] {
        write(&upstream);
        let check = captured(command("check")).await;
        let check = String::from_utf8(check.stdout).unwrap();
        assert!(check.contains(&format!("upstream   {said}\n")), "{check}");
    }
    // An entry of its own wins.
    write(&format!(
        "[upstream]\nall_hosts = \"{all}\"\n[upstream.hosts]\n\"{leaders}\" = \"{nobody_there}\"\n"
    ));
    let running = Running::start(command("run"));
    let address = running.address;
    assert_eq!(scores(address).await.status, 200);
    let request = Request::get(format!("http://{address}/v1/Leaderboard"))
        .header("DeviceToken", user(1).to_string())
        .body(Full::default())
        .unwrap();
    let answer = Client::new().send(request).await.unwrap();
    assert_eq!(answer.code(), "upstream_unreachable", "{}", answer.text());
}

#[tokio::test]
async fn what_simulate_prints_is_a_file_that_works_as_printed() {
    let mut simulate = Command::new(BINARY);
    simulate
        .args(["simulate", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped());
    let mut simulate = Killed(simulate.spawn().unwrap());
    let mut output = BufReader::new(simulate.0.stdout.take().unwrap());
    let mut printed = String::new();
    while !printed.contains("all_hosts") {
        assert!(output.read_line(&mut printed).unwrap() > 0, "{printed}");
    }
    for line in [
        format!("instance   {INSTANCE_ID}"),
        format!("key        {INSTANCE_KEY}"),
        format!("account    {ACCOUNT_EMAIL}"),
        format!("password   {ACCOUNT_PASSWORD}"),
        "manual     damoov-proxy simulate manual".to_owned(),
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{printed}");
    }
    let block = &printed[printed.find("listen = ").unwrap()..];
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("damoov-proxy.toml");
    write_private(&config, block);
    let mut run = Command::new(BINARY);
    run.current_dir(folder.path())
        .env("DAMOOV_PROXY__LISTEN", "127.0.0.1:0")
        .stderr(Stdio::piped());
    let running = Running::start(run);
    let address = running.address;
    assert_eq!(scores(address).await.status, 200);
    let admin = Request::get(format!("http://{address}/v1/companies/{}", user(1)));
    let admin = admin.body(Full::default()).unwrap();
    assert_eq!(Client::new().send(admin).await.unwrap().status, 200);
}

#[tokio::test]
async fn the_simulators_manual_is_on_the_command_line() {
    let mut manual = Command::new(BINARY);
    manual.args(["simulate", "manual"]);
    let manual = captured(manual).await;
    assert!(manual.status.success());
    let text = String::from_utf8(manual.stdout).unwrap();
    assert_eq!(text, file("src/simulator/MANUAL.md"));
}

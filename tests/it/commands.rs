//! The commands as processes: exit codes, what they print, where they listen, and the status
//! listener.

mod budget;
mod export;
mod import;
mod output;
mod show;
mod verify;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use damoov_proxy::simulator::{INSTANCE_ID, LoginLimit};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::harness::{
    ECHO, ECHO_HOST, Proxy, SCORES, captured, damoov, damoov_with, eventually, principal, proxy,
    user, write_private,
};
use crate::wire::get;

/// What a command of this proxy prints, and its exit code.
async fn run(proxy: &Proxy, command: &str) -> (Option<i32>, String) {
    let output = captured(proxy.command(command)).await;
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn a_wrong_configuration_is_exit_code_64_for_every_command() {
    let damoov = damoov().await;
    let builder = proxy(&damoov).set("listen", "0.0.0.0:8080");
    let store = builder.store();
    let proxy = builder.stopped(&store);
    for command in ["run", "check", "check --offline", "tokens list"] {
        let (code, said) = run(&proxy, command).await;
        assert_eq!(code, Some(64), "{command}: {said}");
        assert!(said.contains("loopback"), "{said}");
    }
    assert!(!store.exists(), "nothing was opened");
}

#[tokio::test]
async fn what_this_machine_lacks_is_told_by_check_as_by_run() {
    let damoov = damoov().await;
    for (key, value, said_of_it) in [
        ("upstream.ca_file", "/nowhere/ca.pem", "/nowhere/ca.pem"),
        (
            "listen",
            r#"{ unix = "/nowhere/proxy.sock", group = "no such group" }"#,
            "no such group",
        ),
    ] {
        let builder = proxy(&damoov).set(key, value);
        let store = builder.store();
        let proxy = builder.stopped(&store);
        for command in ["run", "check"] {
            let (code, said) = run(&proxy, command).await;
            assert_eq!(code, Some(64), "{command}: {said}");
            assert!(said.contains(said_of_it), "{said}");
        }
        let (code, said) = run(&proxy, "check --offline").await;
        assert_eq!(code, Some(0), "{said}");
    }
}

#[tokio::test]
async fn two_listeners_on_one_address_are_exit_code_64() {
    let damoov = damoov().await;
    for (key, value, of) in [
        (
            "listen",
            r#"["127.0.0.1:18080", "127.0.0.1:18080"]"#,
            "listen",
        ),
        (
            "listen",
            r#"[{ unix = "/tmp/./a.sock" }, { unix = "/tmp/a.sock" }]"#,
            "listen",
        ),
        ("status.listen", "\"0.0.0.0:18080\"", "status"),
        ("status.listen", "\"127.0.0.1:18080\"", "status"),
    ] {
        let builder = proxy(&damoov).set("listen", "\"127.0.0.1:18080\"");
        let builder = builder.set(key, value);
        let store = builder.store();
        let proxy = builder.stopped(&store);
        for command in ["run", "check", "check --offline"] {
            let (code, said) = run(&proxy, command).await;
            assert_eq!(code, Some(64), "{command}: {said}");
            assert!(said.contains("is listened on already"), "{said}");
            assert!(said.contains(&format!("`{of}`")), "{said}");
        }
        assert!(!store.exists(), "nothing was opened");
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_used_is_exit_code_78_and_is_left_alone() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    let (code, said) = run(&proxy, "check").await;
    assert_eq!(code, Some(0), "{said}");
    proxy.terminate().await;

    let other_key = "b3RoZXIta2V5LW90aGVyLWtleS1vdGhlci1rZXktbyE=";
    for command in ["run", "check", "tokens list"] {
        let mut command = proxy.command(command);
        command.env("DAMOOV_PROXY__STORE__KEY__ENV", "OTHER");
        command.env("OTHER", other_key);
        let output = captured(command).await;
        assert_eq!(output.status.code(), Some(78), "{output:?}");
    }
    let largest = fs::read_dir(proxy.store())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_file())
        .max_by_key(|entry| entry.metadata().unwrap().len())
        .unwrap()
        .path();
    let whole = fs::read(&largest).unwrap();
    write_private(&largest, "not a store");
    for command in ["run", "check", "tokens list"] {
        let (code, said) = run(&proxy, command).await;
        assert_eq!(code, Some(78), "{command} with {largest:?}: {said}");
    }
    assert_eq!(fs::read(&largest).unwrap(), b"not a store");
    let (code, said) = run(&proxy, "check --offline").await;
    assert_eq!(code, Some(0), "{said}");
    fs::write(&largest, whole).unwrap();
    proxy.start().await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    assert_eq!(damoov.handle().counts().total.logins.all(), 1);
}

#[tokio::test]
async fn tokens_lists_and_shows_what_is_stored() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    for number in [1, 2] {
        proxy.get(number, SCORES).await;
    }
    let (code, list) = run(&proxy, "tokens list").await;
    assert_eq!(code, Some(0));
    let lines: Vec<_> = list.lines().collect();
    assert!(lines[0].starts_with("PRINCIPAL"), "{list}");
    assert_eq!(lines.len(), 3, "{list}");
    for number in [1, 2] {
        let device = user(number).to_string();
        let line = lines.iter().find(|line| line.contains(&device)).unwrap();
        assert!(line.contains(INSTANCE_ID), "{line}");
    }
    let (code, list) = run(&proxy, "tokens list --json").await;
    assert_eq!(code, Some(0));
    for line in list.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["instance"], INSTANCE_ID);
        assert_eq!(line["generation"], 1);
    }
    assert_eq!(list.lines().count(), 2, "{list}");
    let (code, shown) = run(&proxy, &format!("tokens show {}", user(1))).await;
    assert_eq!(code, Some(0));
    for line in ["generation     1", "RefreshToken   present"] {
        assert!(shown.contains(line), "{shown}");
    }
    let (code, said) = run(&proxy, &format!("tokens show {}", user(3))).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("nothing is known"), "{said}");
}

#[tokio::test]
async fn a_running_proxy_follows_a_forget_within_a_second() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    let (code, said) = run(&proxy, &format!("tokens forget {}", user(1))).await;
    assert_eq!(code, Some(0), "{said}");
    let started = Instant::now();
    eventually("the user logs in anew", async || {
        proxy.get(1, SCORES).await;
        damoov.handle().counts_of(&principal(1)).logins.ok == 2
    })
    .await;
    assert!(started.elapsed() < Duration::from_millis(1500));
    let (code, _) = run(&proxy, &format!("tokens forget {}", user(2))).await;
    assert_eq!(code, Some(1), "nothing to forget");
}

/// A command that runs until it is told to end. Killed when dropped.
struct Running {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(arguments: &[&str]) -> Running {
        let mut child = Command::new(env!("CARGO_BIN_EXE_damoov-proxy"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Running { child, stdout }
    }

    /// Its lines up to one that contains `last`.
    fn lines_to(&mut self, last: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        while !lines.last().is_some_and(|line| line.contains(last)) {
            let mut line = String::new();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "{lines:?}");
            lines.push(line.trim_end().to_owned());
        }
        lines
    }

    /// What it still says after this signal, and its exit code.
    fn end(mut self, signal: Signal) -> (String, Option<i32>) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap().code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_demo_starts_in_two_seconds_and_each_of_its_lines_does_what_it_says() {
    let mut fastest = Duration::MAX;
    let (mut demo, lines) = loop {
        let started = Instant::now();
        let mut demo = Running::start(&["demo"]);
        let lines = demo.lines_to("Ctrl-C");
        fastest = fastest.min(started.elapsed());
        // Other tests run beside this one; one start in three undisturbed will do.
        if fastest < Duration::from_secs(2) {
            break (demo, lines);
        }
    };
    assert!(lines.iter().any(|line| line.contains("http://127.0.0.1:")));
    let curls: Vec<_> = lines.iter().filter(|l| l.starts_with("curl")).collect();
    let [call, expired, lost, burst, login, cost] = curls[..] else {
        panic!("{lines:?}");
    };
    let answer: serde_json::Value = serde_json::from_str(&sh(call)).unwrap();
    assert_eq!(answer["Status"], 200);
    let answer = sh(expired);
    assert!(
        answer.contains("HTTP/1.1 200") && answer.contains("replayed"),
        "{answer}"
    );
    let answer = sh(lost);
    assert!(answer.contains("HTTP/1.1 200"), "{answer}");
    assert_eq!(sh(burst).trim(), "1000 200");
    let answer = sh(login);
    assert!(answer.contains("HTTP/1.1 200"), "{answer}");
    assert_eq!(
        sh(cost).trim(),
        "logins: expected 2, counted 2; refreshes: expected 2, counted 2"
    );

    assert!(demo.child.try_wait().unwrap().is_none(), "it still runs");
    let (rest, code) = demo.end(Signal::TERM);
    assert_eq!((rest.trim(), code), ("ended", Some(0)));
}

#[test]
fn simulate_prints_where_it_listens_and_takes_faults_by_flag_and_by_http() {
    let fault = r#"{"on":"login","action":{"status":{"code":500}},"times":1}"#;
    let mut simulator = Running::start(&["simulate", "--listen", "127.0.0.1:0", "--fault", fault]);
    let line = simulator.lines_to("http://").pop().unwrap();
    let url = line.strip_prefix("simulated Damoov: ").unwrap();
    let faults = sh(&format!("curl -s {url}/_control/faults"));
    assert!(faults.contains("500"), "{faults}");
    sh(&format!("curl -s -X DELETE {url}/_control/faults"));
    assert_eq!(sh(&format!("curl -s {url}/_control/faults")).trim(), "[]");
    let (_, code) = simulator.end(Signal::INT);
    assert_eq!(code, Some(0));
    let mut simulator = Running::start(&["simulate", "--listen", "127.0.0.1:0"]);
    simulator.lines_to("http://");
    let (_, code) = simulator.end(Signal::TERM);
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn each_request_is_logged_once_by_the_name_that_tokens_show_prints() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    damoov.handle().expire(None);
    proxy.get(1, SCORES).await;
    proxy.get(1, "/nowhere").await;
    let shown = captured(proxy.command(&format!("tokens show {}", user(1)))).await;
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(proxy.terminate().await.success());
    let log = proxy.log();
    let events: Vec<serde_json::Value> = log
        .lines()
        .filter(|line| line.contains("\"target\":\"access\""))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            (
                text("route"),
                event["status"].as_u64().unwrap(),
                text("outcome"),
            )
        })
        .collect();
    let told_of =
        |route: &str, status, outcome: &str| (route.to_owned(), status, outcome.to_owned());
    assert_eq!(
        told,
        [
            told_of("/indicators/v3", 200, "forwarded"),
            told_of("/indicators/v3", 200, "replayed"),
            told_of("none", 404, "caller_error"),
        ]
    );
    let name = events[0]["principal"].as_str().unwrap();
    assert!(shown.contains(name), "{name} is not in {shown}");
}

#[tokio::test]
async fn a_unix_socket_is_served_like_a_port_and_a_dead_one_is_replaced() {
    let damoov = damoov().await;
    let builder = proxy(&damoov);
    let socket = builder.folder().join("proxy.sock");
    let listen = format!(
        r#"["127.0.0.1:0", {{ unix = "{}", mode = "0600" }}]"#,
        socket.display()
    );
    let mut proxy = builder.set("listen", &listen).start().await;
    for restarted in [false, true] {
        let mut caller = UnixStream::connect(&socket).await.unwrap();
        let request = get(SCORES, "Connection: close\r\n");
        caller.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        caller.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let mode = fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        if !restarted {
            proxy.kill();
            assert!(socket.exists(), "left behind");
            proxy.start().await;
        }
    }
}

#[tokio::test]
async fn the_status_listener_tells_health_and_every_metric() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    for path in ["/livez", "/readyz", "/startupz"] {
        assert_eq!(proxy.status(path).await.status, 200, "{path}");
    }
    proxy.get(1, SCORES).await;
    damoov.handle().expire(None);
    proxy.get(1, SCORES).await;
    let metrics = proxy.status("/metrics").await.text();
    for name in [
        "requests_total{",
        "request_duration_seconds_bucket{",
        "requests_in_flight ",
        "token_lookups_total{freshness=\"fresh\"}",
        "token_lookups_total{freshness=\"absent\"}",
        "renewals_total{grant=\"login\",trigger=\"missing\",result=\"ok\"} 1",
        "renewals_total{grant=\"refresh\",trigger=\"rejected\",result=\"ok\"} 1",
        "renewal_duration_seconds_bucket{",
        "renewals_joined_total ",
        "replays_total{result=\"ok\"} 1",
        "login_budget_remaining ",
        "login_blocked_seconds 0",
        "principals_contested 0",
        "store_operations_total{",
        "tokens_cached 1",
        "tokens_stored 1",
        "replay_memory_bytes 0",
        "upstream_connections ",
        "live_connections 0",
        "access_events_lost_total 0",
        "build_info{",
    ] {
        let line = format!("\ndamoov_proxy_{name}");
        assert!(metrics.contains(&line), "{name} is not in\n{metrics}");
    }
    let scores = "requests_total{route=\"/indicators/v3\",method=\"GET\",status_class=\"2xx\"";
    for outcome in ["forwarded", "replayed"] {
        let line = format!("{scores},outcome=\"{outcome}\"}} 1");
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
    let names_a_user = metrics.contains(&user(1).to_string());
    assert!(!names_a_user, "{metrics}");
}

#[tokio::test]
async fn what_is_damoovs_fault_is_degraded_and_ready() {
    let damoov = damoov_with(|settings| {
        settings.login_limit = Some(LoginLimit {
            calls: 1,
            ..LoginLimit::default()
        });
    })
    .await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let proxy = proxy(&damoov).redirect(ECHO_HOST, &nowhere).start().await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    let healthy = proxy.status("/readyz").await.text();
    assert_eq!(healthy, r#"{"ok":true,"reasons":[],"degraded":[]}"#);
    assert_eq!(proxy.get(2, SCORES).await.status, 503);
    assert_eq!(proxy.get(1, ECHO).await.status, 502);
    let ready = proxy.status("/readyz").await;
    assert_eq!(ready.status, 200);
    let said: serde_json::Value = serde_json::from_slice(ready.content()).unwrap();
    let codes: Vec<_> = said["degraded"].as_array().unwrap().iter().collect();
    let codes: Vec<_> = codes.iter().map(|one| one["code"].as_str()).collect();
    assert_eq!(codes, [Some("login_blocked"), Some("upstream_unreachable")]);
    let since = said["degraded"][0]["since"].as_str().unwrap();
    assert!(since.parse::<jiff::Timestamp>().is_ok(), "{since}");
    assert_eq!(proxy.metric("ready", "").await, 1.0);
}

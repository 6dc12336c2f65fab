//! `demo` and `simulate`, as the README shows them.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

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

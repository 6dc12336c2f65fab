//! How the proxy ends: what SIGTERM lets finish, and what a second one does not. And what does not
//! end it.

// SIGTERM under load: callers that are told to leave lose nothing.
pub mod load;
pub use load::ask;

use std::fs;
use std::io::{PipeReader, PipeWriter, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use damoov_proxy::simulator::{Action, Delay, Fault, Lost, On};
use rustix::process::Signal;
use tokio::time::Instant;

use crate::harness::{
    ECHO, ECHO_HOST, Proxy, SCORES, damoov, eventually, make_pipe, proxy, write_private,
};
use crate::wire::{Upstream, Wire, get};

#[tokio::test]
async fn after_sigterm_answers_under_way_end_and_then_the_process() {
    let damoov = damoov().await;
    let upstream = Upstream::listen().await;
    let mut proxy = proxy(&damoov)
        .redirect(ECHO_HOST, &upstream.url())
        .start()
        .await;
    let mut idle = Wire::to(&proxy).await;
    assert_eq!(idle.ask(get(SCORES, "")).await.status(), 200);
    let (mut waiting, mut reading) = (Wire::to(&proxy).await, Wire::to(&proxy).await);
    waiting.write(get(ECHO, "")).await;
    let mut unanswered = upstream.accept().await;
    unanswered.head().await;
    reading.write(get(ECHO, "")).await;
    let mut half_answered = upstream.accept().await;
    half_answered.head().await;
    half_answered
        .write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
        .await;
    assert_eq!(reading.head().await.status(), 200);
    assert_eq!(reading.take(2).await, b"ha");

    proxy.signal(Signal::TERM);
    assert!(idle.rest().await.is_empty(), "idle connections are closed");
    let ready = proxy.status("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("draining"), "{}", ready.text());
    assert_eq!(proxy.status("/livez").await.status, 200);

    half_answered.write("lf").await;
    assert_eq!(reading.rest().await, b"lf");
    unanswered
        .write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole")
        .await;
    let answer = waiting.message().await;
    assert_eq!((answer.status(), &*answer.content), (200, &b"whole"[..]));
    assert!(answer.closes(), "{}", answer.head);
    assert_eq!(proxy.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_sigterm_hurries_the_answers_but_not_the_renewals() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    let delay = Action::Delay(Delay::Millis(1500));
    damoov.handle().add_fault(Fault::new(On::Login, delay));
    damoov
        .handle()
        .add_fault(Fault::new(On::Data, Action::Lose(Lost::Hang)));
    let mut caller = Wire::to(&proxy).await;
    caller.write(get(SCORES, "")).await;
    eventually("the login is under way", async || {
        proxy.metric("login_budget_remaining", "").await == 3.0
    })
    .await;
    proxy.signal(Signal::TERM);
    eventually("it drains", async || {
        proxy.status("/readyz").await.status == 503
    })
    .await;
    proxy.signal(Signal::TERM);
    caller.rest().await;
    assert_eq!(proxy.ended().await.code(), Some(0));
    assert_eq!(damoov.handle().counts().total.logins.ok, 1);

    damoov.handle().clear_faults();
    proxy.start().await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    assert_eq!(
        damoov.handle().counts().total.logins.all(),
        1,
        "it was stored"
    );
}

/// Sends a signal by its number.
fn send(pid: u32, signal: i32) {
    let line = format!("kill -{signal} {pid}");
    assert!(
        Command::new("sh")
            .args(["-c", &line])
            .status()
            .unwrap()
            .success()
    );
}

/// Which signals the process catches, by their bits.
fn caught(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    line.map_or(0, |bits| u64::from_str_radix(bits.trim(), 16).unwrap())
}

/// The number in the last line of the log, which says what became of the answers.
fn told(proxy: &Proxy, field: &str) -> serde_json::Value {
    let log = proxy.log();
    let line = log
        .lines()
        .rfind(|line| line.contains("\"message\":\"ended\""));
    let line = line.unwrap_or_else(|| panic!("no last line in\n{log}"));
    serde_json::from_str::<serde_json::Value>(line).unwrap()[field].clone()
}

#[tokio::test]
async fn every_other_signal_is_told_of_and_ends_nothing() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    for (number, name) in [
        (10, "SIGUSR1"),
        (12, "SIGUSR2"),
        (14, "SIGALRM"),
        (16, "signal 16"),
        (20, "SIGTSTP"),
        (21, "SIGTTIN"),
        (22, "SIGTTOU"),
        (24, "SIGXCPU"),
        (25, "SIGXFSZ"),
        (26, "SIGVTALRM"),
        (27, "SIGPROF"),
        (29, "SIGIO"),
        (30, "signal 30"),
        (34, "signal 34"),
        (64, "signal 64"),
    ] {
        send(proxy.pid(), number);
        let field = format!("\"signal\":\"{name}\"");
        eventually(name, async || proxy.log().contains(&field)).await;
        assert_eq!(proxy.get(1, SCORES).await.status, 200, "after {name}");
    }
    // Nobody told of these does anything, caught or not.
    for number in [13, 17, 18, 23, 28] {
        send(proxy.pid(), number);
        assert_eq!(proxy.get(1, SCORES).await.status, 200, "after {number}");
    }
    assert_eq!(proxy.status("/readyz").await.status, 200);
    assert_eq!(proxy.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn sigquit_and_sigabrt_end_it_at_once() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    for signal in [Signal::QUIT, Signal::ABORT] {
        proxy.signal(signal);
        assert_eq!(proxy.ended().await.signal(), Some(signal.as_raw()));
        proxy.start().await;
    }
}

/// From the moment that the kernel has handed the process its first instruction to the one that it
/// serves.
#[tokio::test]
async fn a_sigterm_at_any_moment_of_the_start_ends_it_in_order() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).set("drain_delay", "5s").stopped_here();
    for wait in [0, 1, 2, 4, 8, 16, 32, 64] {
        proxy.begin();
        let spawned = Instant::now();
        while caught(proxy.pid()) & (1 << 14) == 0 {
            assert!(spawned.elapsed() < Duration::from_secs(5), "never caught");
            tokio::task::yield_now().await;
        }
        let at = Instant::now() + Duration::from_millis(wait);
        while Instant::now() < at {
            tokio::task::yield_now().await;
        }
        proxy.signal(Signal::TERM);
        // Where it serves already, a second one skips the delay.
        proxy.signal(Signal::INT);
        let status = proxy.ended().await;
        assert_eq!(status.code(), Some(0), "after {wait} ms:\n{}", proxy.log());
    }
}

#[tokio::test]
async fn while_the_store_is_opened_it_is_starting_and_a_sigterm_ends_it() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).stopped_here();
    // Reading the key of the store waits until somebody writes it.
    fs::create_dir_all(proxy.store()).unwrap();
    let key = proxy.store().join("store.key");
    make_pipe(&key);
    proxy.begin();
    proxy.answers_probes().await;
    for path in ["/readyz", "/startupz"] {
        let answer = proxy.status(path).await;
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.text().contains("\"starting\""), "{}", answer.text());
    }
    assert_eq!(proxy.status("/livez").await.status, 200);
    assert_eq!(proxy.terminate().await.code(), Some(0), "{}", proxy.log());
}

#[tokio::test]
async fn in_drain_delay_everybody_is_answered_and_told_to_leave() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).set("drain_delay", "1s").start().await;
    let (mut used, mut idle) = (Wire::to(&proxy).await, Wire::to(&proxy).await);
    for wire in [&mut used, &mut idle] {
        let answer = wire.ask(get(SCORES, "")).await;
        assert!(
            answer.status() == 200 && !answer.closes(),
            "{}",
            answer.head
        );
    }
    let asked = Instant::now();
    proxy.signal(Signal::TERM);
    eventually("not ready", async || {
        proxy.status("/readyz").await.status == 503
    })
    .await;
    let readiness = proxy.status("/readyz").await.text();
    assert!(readiness.contains("\"draining\""), "{readiness}");
    let mut probe = Wire::connect(proxy.status_address()).await;
    let request = "HEAD /readyz HTTP/1.1\r\nHost: pod-7.example\r\nConnection: close\r\n\r\n";
    probe.write(request).await;
    let said = String::from_utf8(probe.rest().await).unwrap();
    assert!(
        said.starts_with("HTTP/1.1 503 ") && said.ends_with("\r\n\r\n"),
        "{said}"
    );
    let mut new = Wire::to(&proxy).await;
    for wire in [&mut used, &mut new] {
        let answer = wire.ask(get(SCORES, "")).await;
        assert!(answer.status() == 200 && answer.closes(), "{}", answer.head);
        assert!(wire.rest().await.is_empty());
    }
    assert!(asked.elapsed() < Duration::from_secs(1), "within the delay");
    // Who says nothing is not hurried before it is over.
    assert!(idle.rest().await.is_empty());
    assert!(asked.elapsed() >= Duration::from_secs(1));
    assert_eq!(proxy.ended().await.code(), Some(0));
    assert_eq!(told(&proxy, "signal"), "SIGTERM");
    assert_eq!(told(&proxy, "answers_ended"), 2);
    assert_eq!(told(&proxy, "answers_cut"), 0);
    assert!(told(&proxy, "seconds").as_f64().unwrap() >= 1.0);
}

#[tokio::test]
async fn sigint_skips_the_delay_and_a_second_signal_ends_it() {
    let damoov = damoov().await;
    let hang = Fault::new(On::Data, Action::Lose(Lost::Hang));
    damoov.handle().add_fault(hang);
    let mut proxy = proxy(&damoov)
        .set("drain_delay", "60s")
        .set("drain_timeout", "60s")
        .start()
        .await;
    let started = Instant::now();
    proxy.signal(Signal::INT);
    assert_eq!(proxy.ended().await.code(), Some(0));
    assert_eq!(told(&proxy, "signal"), "SIGINT");

    proxy.start().await;
    let mut cut = Wire::to(&proxy).await;
    cut.write(get(SCORES, "")).await;
    eventually("it is under way", async || {
        proxy.metric("requests_in_flight", "").await == 1.0
    })
    .await;
    proxy.signal(Signal::TERM);
    eventually("draining", async || {
        proxy.status("/readyz").await.status == 503
    })
    .await;
    proxy.signal(Signal::TERM);
    assert!(cut.rest().await.is_empty());
    assert_eq!(proxy.ended().await.code(), Some(0));
    assert_eq!(told(&proxy, "answers_cut"), 1);
    assert!(started.elapsed() < Duration::from_secs(30));
}

/// Commands that have nothing to bring to an end die of what others die of.
#[tokio::test]
async fn a_command_that_waits_for_its_file_dies_of_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("damoov-proxy.toml");
    make_pipe(&fifo);
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut check = Command::new(env!("CARGO_BIN_EXE_damoov-proxy"));
        check.args(["check", "--offline", "--config"]).arg(&fifo);
        let mut check = check.spawn().unwrap();
        let mask = 1 << (signal.as_raw() - 1);
        eventually("it is caught", async || caught(check.id()) & mask != 0).await;
        let pid = rustix::process::Pid::from_child(&check);
        rustix::process::kill_process(pid, signal).unwrap();
        let status = tokio::task::spawn_blocking(move || check.wait().unwrap()).await;
        assert_eq!(status.unwrap().signal(), Some(signal.as_raw()));
    }
}

/// A pipe that takes no more bytes; it is full until the reader is dropped.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[b'x'; 64 * 1024]).unwrap();
    (reader, writer)
}

/// How the process ends after this signal, which it must within a few seconds.
async fn ended_by(mut command: Command, signal: Signal) -> ExitStatus {
    let mut child = command.spawn().unwrap();
    let mask = 1 << (signal.as_raw() - 1);
    eventually("it is caught", async || caught(child.id()) & mask != 0).await;
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, signal).unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > until {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?} does not hear {signal:?}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn while_it_waits_for_its_file_or_a_secret_a_signal_ends_run_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    make_pipe(&fifo);
    let config = folder.path().join("damoov-proxy.toml");
    let instance = "[[instance]]\nname = \"main\"\nid = \"11111111-1111-4111-8111-111111111111\"";
    let key = format!("{instance}\nkey = {{ file = \"{}\" }}\n", fifo.display());
    write_private(&config, &key);
    for file in [&fifo, &config] {
        for signal in [Signal::TERM, Signal::INT] {
            let mut run = Command::new(env!("CARGO_BIN_EXE_damoov-proxy"));
            run.args(["run", "--config"]).arg(file);
            let status = ended_by(run, signal).await;
            assert_eq!(status.code(), Some(0), "{signal:?}, waiting for {file:?}");
        }
    }
}

#[tokio::test]
async fn what_nobody_reads_holds_up_the_end_of_no_command() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("damoov-proxy.toml");
    write_private(&config, "nonsense = 1\n");
    let refused = format!("--config {}", config.display());
    for arguments in ["--help", "--nonsense", "check --nonsense", &refused] {
        let (_reader, writer) = full_pipe();
        let mut command = Command::new(env!("CARGO_BIN_EXE_damoov-proxy"));
        command.args(arguments.split(' '));
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        let status = ended_by(command, Signal::TERM).await;
        // Of `run`, until it knows that it is refused, the end is in order.
        let in_order = arguments == refused && status.code() == Some(0);
        let died = status.signal() == Some(Signal::TERM.as_raw());
        assert!(died || in_order, "{arguments}: {status}");
    }
    for arguments in ["simulate --listen 127.0.0.1:0", "demo"] {
        let (_reader, writer) = full_pipe();
        let mut command = Command::new(env!("CARGO_BIN_EXE_damoov-proxy"));
        command.args(arguments.split(' ')).stdout(writer);
        let status = ended_by(command, Signal::TERM).await;
        assert_eq!(status.code(), Some(0), "{arguments}");
    }
}

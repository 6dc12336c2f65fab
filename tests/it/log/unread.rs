//! A standard error that takes nothing: a pipe that nobody reads, a full disk, no descriptor at all.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use damoov_proxy::simulator::{Action, Fault, On};
use tokio::time::Instant;

use super::*;
use crate::harness::{SCORES, damoov, proxy, user};

const ACCESS_LOST: &str = "damoov_proxy_log_lines_lost_total{target=\"access\"}";
const OTHER_LOST: &str = "damoov_proxy_log_lines_lost_total{target=\"other\"}";

#[tokio::test]
async fn nothing_waits_for_a_standard_error_that_nobody_reads() {
    let damoov = damoov().await;
    let (reader, writer) = std::io::pipe().unwrap();
    let builder = proxy(&damoov)
        .set("drain_timeout", "2s")
        .env("DAMOOV_PROXY_LOG", "trace");
    let started = Unlogged::start(builder, |mut command| {
        command.stderr(writer);
        command
    })
    .await;
    // The pipe takes 64 KiB; at this level a request is more than a line.
    for _ in 0..400 {
        assert_eq!(started.get(SCORES).await, 200);
    }
    // An event that is no access line, on the runtime that answers probes.
    damoov
        .handle()
        .add_fault(Fault::new(On::Login, Action::status(429)));
    let other = Request::get(format!("http://{}{SCORES}", started.address))
        .header("DeviceToken", user(9).to_string())
        .body(Full::default())
        .unwrap();
    let blocked = started.client.send(other).await.unwrap();
    assert_eq!(blocked.code(), "login_blocked");
    assert_eq!(started.get(SCORES).await, 200);
    assert!(started.asked(started.status, "/livez").await.is_some());
    let status = started.status;
    eventually("it says so itself", async || {
        let ready = started.asked(status, "/readyz").await.unwrap();
        ready.status == 200 && ready.text().contains("\"log_unwritable\"")
    })
    .await;
    let began = Instant::now();
    assert_eq!(started.terminate().await.code(), Some(0));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    drop(reader);
}

#[tokio::test]
async fn what_a_full_standard_error_does_not_take_is_counted() {
    let damoov = damoov().await;
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let started = Unlogged::start(proxy(&damoov), |mut command| {
        command.stderr(full);
        command
    })
    .await;
    counts_what_is_lost(started).await;
}

#[tokio::test]
async fn what_a_closed_standard_error_does_not_take_is_counted() {
    let damoov = damoov().await;
    let started = Unlogged::start(proxy(&damoov), |command| {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "exec \"$@\" 2>&-", "sh"])
            .arg(command.get_program())
            .args(command.get_args())
            .envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        shell
    })
    .await;
    counts_what_is_lost(started).await;
}

#[tokio::test]
async fn a_reader_that_has_gone_is_counted_too() {
    let damoov = damoov().await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let started = Unlogged::start(proxy(&damoov), |mut command| {
        // A parent that ignores SIGPIPE or does not: the proxy must not care.
        command.stderr(writer).process_group(0);
        command
    })
    .await;
    counts_what_is_lost(started).await;
}

async fn counts_what_is_lost(started: Unlogged) {
    for _ in 0..20 {
        assert_eq!(started.get(SCORES).await, 200);
    }
    eventually("20 access lines are lost", async || {
        started.metric(ACCESS_LOST).await == 20
    })
    .await;
    let old = started
        .metric("damoov_proxy_access_events_lost_total")
        .await;
    assert_eq!(old, 20);
    // Starting was told, and where it listens.
    assert!(started.metric(OTHER_LOST).await >= 3);
    let ready = started.asked(started.status, "/readyz").await.unwrap();
    assert_eq!(ready.status, 200);
    let said: Value = serde_json::from_str(&ready.text()).unwrap();
    assert_eq!(said["degraded"][0]["code"], "log_unwritable", "{said}");
    assert_eq!(started.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn the_counters_of_lost_lines_are_there_from_the_first_scrape() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let text = proxy.status("/metrics").await.text();
    for target in ["access", "audit", "other"] {
        let line = format!("damoov_proxy_log_lines_lost_total{{target=\"{target}\"}} 0");
        assert!(text.contains(&line), "{line} in {text}");
    }
    let ready = proxy.status("/readyz").await.text();
    assert!(!ready.contains("log_unwritable"), "{ready}");
}

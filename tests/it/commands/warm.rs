//! `warm`: many logins within the budget, that leave the reserve alone, go on where they were interrupted,
//! and read any file in flat memory.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use damoov_proxy::clock::Clock;
use damoov_proxy::simulator::{Action, Delay, Fault, On, Simulator};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{
    Builder, Proxy, SCORES, captured, damoov, damoov_with, eventually, heavy, most_within, proxy,
    rounds, user,
};

/// A budget that lets every test of few users pass at once.
fn roomy(damoov: &Simulator) -> Builder {
    proxy(damoov).set("login_budget.logins", "1000")
}

fn file(proxy: &Proxy, text: &[u8]) -> PathBuf {
    let file = proxy.config().with_file_name("users");
    fs::write(&file, text).unwrap();
    file
}

fn lines(users: impl IntoIterator<Item = usize>) -> String {
    let lines: Vec<_> = users
        .into_iter()
        .map(|number| user(number).to_string())
        .collect();
    lines.join("\n")
}

/// Exit code and all that is said of an ordinary run.
async fn warm(proxy: &Proxy, text: &[u8]) -> (Option<i32>, String) {
    let file = file(proxy, text);
    proxy.run(&format!("warm --from {}", file.display())).await
}

fn begin(proxy: &Proxy, text: &str) -> Child {
    let file = file(proxy, text.as_bytes());
    let mut command = proxy.command(&format!("warm --from {} --json", file.display()));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
}

async fn ended(child: Child) -> Output {
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap());
    output.await.unwrap()
}

fn counts(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn users_are_logged_in_once_and_served_without_a_login_after_that() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    let users = lines([1, 2, 3, 2]);
    let (code, said) = warm(&proxy, users.as_bytes()).await;
    assert_eq!(code, Some(0), "{said}");
    let told = "logged in 2, had a pair 2, rejected 0, bad 0, failed 0";
    assert!(said.contains(told), "{said}");
    let (code, said) = warm(&proxy, users.as_bytes()).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("logged in 0, had a pair 4"), "{said}");
    for number in [1, 2, 3] {
        assert_eq!(proxy.get(number, SCORES).await.status, 200);
    }
    assert_eq!(damoov.handle().counts().total.logins.all(), 3);
}

#[tokio::test]
async fn lines_that_name_nobody_are_told_and_the_others_are_done() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).stopped_here();
    let mut text = format!("\u{feff}{}\r\n\nnobody\n", user(1)).into_bytes();
    text.extend(vec![b'a'; 1 << 20]);
    text.extend(b"\n\xff\n");
    // The last line has no line break.
    text.extend(format!(r#"{{"DeviceToken":"{}"}}"#, user(2)).bytes());
    let (code, said) = warm(&proxy, &text).await;
    assert_eq!(code, Some(65), "{said}");
    for line in [
        "line 3: ",
        "line 4: longer than 4096 bytes",
        "line 5: not UTF-8",
        "logged in 2, had a pair 0, rejected 0, bad 3, failed 0",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert_eq!(damoov.handle().counts().total.logins.all(), 2);
}

#[tokio::test]
async fn a_rejected_user_is_told_and_not_asked_for_again_at_once() {
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.rejected_users = vec!["00000002".to_owned()];
    })
    .await;
    let proxy = roomy(&damoov).stopped_here();
    let users = lines([1, 2, 3]);
    for (logged_in, had) in [(2, 0), (0, 2)] {
        let (code, said) = warm(&proxy, users.as_bytes()).await;
        assert_eq!(code, Some(65), "{said}");
        let told = format!("logged in {logged_in}, had a pair {had}, rejected 1, bad 0, failed 0");
        assert!(said.contains(&told), "{said}");
        assert!(said.contains("line 2: user:00000002"), "{said}");
    }
    assert_eq!(damoov.handle().counts().total.logins.all(), 3);
}

#[tokio::test]
async fn an_interrupt_ends_it_after_the_login_under_way_and_it_goes_on_later() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    let slow = Fault::new(On::Login, Action::Delay(Delay::Millis(700)));
    damoov.handle().add_fault(slow);
    let warm = begin(&proxy, &lines([1, 2, 3]));
    eventually("a login is under way", async || {
        damoov.handle().counts().total.logins.all() > 0
    })
    .await;
    interrupt(&warm);
    let output = ended(warm).await;
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert_eq!(counts(&output)["logged_in"], 1, "{output:?}");
    damoov.handle().clear_faults();
    assert_eq!(damoov.handle().counts().total.logins.all(), 1);
    assert_eq!(proxy.get(1, SCORES).await.status, 200);

    let output = ended(begin(&proxy, &lines([1, 2, 3]))).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(counts(&output)["logged_in"], 2);
    assert_eq!(counts(&output)["had_a_pair"], 1);
    assert_eq!(damoov.handle().counts().total.logins.all(), 3);
}

#[tokio::test]
async fn logins_stay_within_the_budget_and_never_take_the_reserve() {
    const SCALE: u32 = 60;
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.clock = Clock::scaled(SCALE);
    })
    .await;
    let proxy = proxy(&damoov)
        .scaled(SCALE)
        .set("login_budget.logins", "3")
        .stopped_here();
    let (code, said) = warm(&proxy, lines(1..=6).as_bytes()).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("logged in 6"), "{said}");
    let calls = damoov.handle().counts().login_calls;
    assert_eq!(calls.len(), 6);
    assert_eq!(most_within(&calls, Duration::from_secs(60)), 2);
}

#[tokio::test]
async fn a_line_says_when_the_next_login_is_and_how_long_the_rest_takes() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov)
        .set("login_budget.logins", "2")
        .set("login_budget.per", "3h")
        .stopped_here();
    let warm = begin(&proxy, &lines(1..=11));
    eventually("the first is logged in", async || {
        damoov.handle().counts().total.logins.all() > 0
    })
    .await;
    // One line comes after ten seconds.
    tokio::time::sleep(Duration::from_secs(12)).await;
    interrupt(&warm);
    let output = ended(warm).await;
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    let line = said.lines().find(|line| line.contains("; next login in "));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    let expected = "logged in 1, had a pair 0, rejected 0, bad 0, failed 0; next login in 2h; at most 29h left, 9 %";
    assert_eq!(line, expected);
    let budget = captured(proxy.command("budget --json")).await;
    let budget: Value = serde_json::from_slice(&budget.stdout).unwrap();
    assert_eq!(budget["remaining"], 1, "the reserve is left");
    assert_eq!(damoov.handle().counts().total.logins.all(), 1);
}

#[tokio::test]
async fn a_429_is_waited_for_until_the_block_ends() {
    let damoov = damoov().await;
    let proxy = roomy(&damoov).stopped_here();
    let limited = Fault::new(On::Login, Action::status(429)).times(1);
    damoov.handle().add_fault(limited);
    let warm = begin(&proxy, &lines([1]));
    eventually("logins are blocked", async || {
        let budget = captured(proxy.command("budget --json")).await;
        let budget: Value = serde_json::from_slice(&budget.stdout).unwrap();
        budget["blocked_seconds"].as_f64().unwrap() > 0.0
    })
    .await;
    let (code, said) = proxy.run("budget unblock --yes").await;
    assert_eq!(code, Some(0), "{said}");
    let output = ended(warm).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(damoov.handle().counts().total.logins.all(), 2);
}

#[tokio::test]
async fn a_million_lines_are_read_in_flat_memory() {
    let _turn = heavy().await;
    let damoov = damoov().await;
    let proxy = roomy(&damoov).start().await;
    proxy.import(&damoov, 0..100);
    let mut command = proxy.command("warm --from - --json");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut warm = command.spawn().unwrap();
    let mut input = warm.stdin.take().unwrap();
    let pid = warm.id();
    let all = rounds(20_000, 1_000_000);
    let peaks = tokio::task::spawn_blocking(move || {
        let mut write = |lines: std::ops::Range<usize>| {
            for number in lines {
                writeln!(input, "{}", user(number % 100)).unwrap();
            }
            peak(pid)
        };
        // By then all that is read ahead is full.
        let first = write(0..all / 4);
        let last = write(all / 4..all);
        (first, last)
    });
    let (first, last) = peaks.await.unwrap();
    let output = ended(warm).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(counts(&output)["had_a_pair"], all);
    assert!(last <= first + (4 << 20), "{first} → {last} bytes");
    assert_eq!(damoov.handle().counts().total.logins.all(), 0);
}

/// The most memory that a process ever had, in bytes.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes: u64 = line
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap()
        .parse()
        .unwrap();
    kilobytes * 1024
}

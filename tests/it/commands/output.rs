//! What becomes of a command whose output nobody reads, or that cannot be written.

use std::fs::File;
use std::io::{self, PipeWriter};
use std::process::{Command, Output, Stdio};

use crate::harness::{Proxy, SCORES, captured, damoov, proxy, user};

/// A pipe that nobody reads any more.
fn closed_pipe() -> PipeWriter {
    let (_, writer) = io::pipe().unwrap();
    writer
}

/// A file that takes nothing.
fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// A command that has no configuration.
fn bare(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_damoov-proxy"));
    command.args(arguments.split(' ')).stdin(Stdio::null());
    command
}

/// Runs it to its end with this standard output; what it says on standard error is kept.
async fn output(mut command: Command, stdout: impl Into<Stdio>) -> Output {
    command.stdout(stdout).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // It owns the other end of the pipe, too.
    drop(command);
    tokio::task::spawn_blocking(|| child.wait_with_output().unwrap())
        .await
        .unwrap()
}

/// What was said besides warnings, such as that the key lies beside the store, and audit lines.
fn errors(stderr: Vec<u8>) -> String {
    let said = String::from_utf8(stderr).unwrap();
    let is_error =
        |line: &&str| !line.starts_with("warning: ") && !line.contains("\"target\":\"audit\"");
    let errors = said.lines().filter(is_error);
    errors.map(|line| format!("{line}\n")).collect()
}

/// One of each that prints, but those that serve.
fn printing(proxy: &Proxy) -> Vec<(String, Command)> {
    let mut commands: Vec<_> = [
        "check".to_owned(),
        "budget".to_owned(),
        "tokens list".to_owned(),
        format!("tokens show {}", user(1)),
        format!("explain {} --json", user(1)),
        "tokens list --count".to_owned(),
        "tokens export --to -".to_owned(),
        "tokens export --sealed --to -".to_owned(),
        format!("tokens forget {}", user(1)),
        "tokens import --from /dev/null".to_owned(),
    ]
    .into_iter()
    .map(|line| (line.clone(), proxy.command(&line)))
    .collect();
    for line in [
        "--help",
        "--version",
        "man",
        "completions bash",
        "tokens --help",
        "help tokens import",
    ] {
        commands.push((line.to_owned(), bare(line)));
    }
    for line in ["demo", "simulate --listen 127.0.0.1:0"] {
        commands.push((line.to_owned(), bare(line)));
    }
    commands
}

#[tokio::test]
async fn a_closed_pipe_ends_every_command_quietly() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    for (line, command) in printing(&proxy) {
        let ended = output(command, closed_pipe()).await;
        let said = errors(ended.stderr);
        assert_eq!((ended.status.code(), &*said), (Some(0), ""), "{line}");
    }
}

#[tokio::test]
async fn an_output_that_cannot_be_written_is_exit_code_1_and_a_sentence() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    for (line, command) in printing(&proxy) {
        let ended = output(command, full()).await;
        let said = errors(ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{line}: {said}");
        let sentence = "error: standard output cannot be written: No space left on device";
        assert!(said.starts_with(sentence), "{line}: {said}");
        assert_eq!(said.lines().count(), 1, "{line}: {said}");
    }
}

#[tokio::test]
async fn an_error_that_nobody_reads_keeps_its_exit_code() {
    let damoov = damoov().await;
    let good = proxy(&damoov).start().await;
    let builder = proxy(&damoov).set("listen", "0.0.0.0:8080");
    let store = builder.store();
    let wrong = builder.stopped(&store);
    let nobody = user(7);
    for stderr in [|| Stdio::from(closed_pipe()), || Stdio::from(full())] {
        for (command, code) in [
            (wrong.command("check"), 64),
            (wrong.command("run"), 64),
            (wrong.command("tokens list"), 64),
            (good.command(&format!("tokens show {nobody}")), 1),
            (good.command("tokens import --from /nowhere"), 1),
            (bare("tokens show nobody"), 2),
            (bare("no-such-command"), 2),
        ] {
            let mut command = command;
            let called = format!("{command:?}");
            command.stderr(stderr());
            let status = tokio::task::spawn_blocking(move || command.status().unwrap());
            assert_eq!(status.await.unwrap().code(), Some(code), "{called}");
        }
    }
}

#[tokio::test]
async fn the_configuration_is_named_before_the_command_or_after_it() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let config = proxy.config().display().to_string();
    for line in [
        format!("--config {config} tokens list"),
        format!("tokens --config {config} list"),
        format!("tokens list --config {config}"),
        format!("--config {config} check --offline"),
    ] {
        let ended = captured(bare(&line)).await;
        assert_eq!(ended.status.code(), Some(0), "{line}: {ended:?}");
    }
    for line in ["demo", "simulate"] {
        let ended = captured(bare(&format!("--config {config} {line}"))).await;
        assert_eq!(ended.status.code(), Some(2), "{line}: {ended:?}");
    }
}

//! Waiting for what happens beside the test.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Runs a command to its end, beside everything else, and keeps what it prints.
pub async fn captured(mut command: Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

/// What a command prints, on both its outputs, and its exit code.
pub async fn said(command: Command) -> (Option<i32>, String) {
    let output = captured(command).await;
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// Polls until `condition` holds; 30 s are never.
pub async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let polling = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), polling)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

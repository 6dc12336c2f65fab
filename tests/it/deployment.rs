//! The files in `config/` that deploy the proxy: read by the tools that would refuse them, and held to what
//! those tools cannot know.

mod debian;
mod docker;
mod kubernetes;

use std::path::Path;
use std::process::Command;

/// A file or folder of `config/`.
fn config(name: &str) -> String {
    format!("{}/config/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn text(name: &str) -> String {
    let path = config(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Panics with what the command said unless it succeeds. Returns what it said.
fn succeed(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; {}", crate::harness::programs::HINT));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{command:?}\n{said}");
    said
}

/// A configuration that is deployed is one that `check` accepts.
fn check_offline(file: &str) {
    let mut check = Command::new(env!("CARGO_BIN_EXE_damoov-proxy"));
    check.args(["check", "--offline", "--config"]);
    succeed(check.arg(Path::new(&config(file))));
}

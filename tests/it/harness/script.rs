//! A client that others wrote, as a process that a test leads step by step.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::programs::HINT;

/// Longer than any step takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client's process. Killed when dropped.
pub struct Script {
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::UnboundedReceiver<String>,
    folder: TempDir,
}

impl Script {
    /// Runs `tests/clients/<name>` by an interpreter.
    pub fn start(interpreter: Command, name: &str, arguments: &[&str]) -> Script {
        let folder = tempfile::tempdir().unwrap();
        Script::start_in(folder, interpreter, name, arguments)
    }

    /// The same, with a folder that its arguments name.
    pub fn start_in(
        folder: TempDir,
        mut interpreter: Command,
        name: &str,
        arguments: &[&str],
    ) -> Script {
        let errors = File::create(folder.path().join("errors")).unwrap();
        let mut child = interpreter
            .arg(format!(
                "{}/tests/clients/{name}",
                env!("CARGO_MANIFEST_DIR")
            ))
            .args(arguments)
            // How soon websockets tries again if nobody listens, in seconds.
            .env("WEBSOCKETS_BACKOFF_INITIAL_DELAY", "0.02")
            .env("WEBSOCKETS_BACKOFF_MIN_DELAY", "0.02")
            .env("WEBSOCKETS_BACKOFF_MAX_DELAY", "0.02")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{interpreter:?}: {error}; {HINT}"));
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::unbounded_channel();
        // Ends with the process.
        std::thread::spawn(move || {
            for line in output.lines() {
                let _ = sender.send(line.unwrap());
            }
        });
        Script {
            input: child.stdin.take(),
            child,
            lines,
            folder,
        }
    }

    /// Lets it take one step, and reads what came of it.
    pub async fn step(&mut self, step: &str) -> Value {
        self.tell(step);
        self.line().await
    }

    /// Writes a line.
    pub fn tell(&mut self, line: &str) {
        let input = self.input.as_mut().expect("not at its end");
        if let Err(error) = writeln!(input, "{line}") {
            panic!("it takes no line: {error}\n{}", self.errors());
        }
    }

    /// Reads a line, which is JSON unless a library has something to say.
    pub async fn line(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.lines.recv()).await;
        match line {
            Ok(Some(line)) => serde_json::from_str(&line)
                .unwrap_or_else(|_| panic!("the library says {line:?}\n{}", self.errors())),
            Ok(None) => panic!("it ended:\n{}\n({HINT})", self.errors()),
            Err(_) => panic!("it says nothing:\n{}", self.errors()),
        }
    }

    /// Ends its input; it must then end by itself, without an error.
    pub async fn end(mut self) {
        drop(self.input.take());
        let rest = async { while self.lines.recv().await.is_some() {} };
        let ended = tokio::time::timeout(PATIENCE, rest).await;
        assert!(ended.is_ok(), "it does not end:\n{}", self.errors());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}:\n{}", self.errors());
    }

    fn errors(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("errors")).unwrap_or_default()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! Tests that need a process to kill or to starve: the test binary runs itself again, with a part to
//! play in a directory.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

const PART: &str = "STORE_TEST_PART";
const DIRECTORY: &str = "STORE_TEST_DIRECTORY";

/// A process that plays a part. Killed when dropped.
pub(super) struct Actor {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Actor {
    /// Starts one. `test` is the full name of the test that asks for its [`part`].
    pub(super) fn play(test: &str, part: &str, directory: &Path) -> Actor {
        // A shell first: it makes a too large file an error of the write, not the process's end.
        let mut child = Command::new("/bin/sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .arg(test)
            .env(PART, part)
            .env(DIRECTORY, directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Actor { child, lines }
    }

    /// What the actor says next.
    pub(super) fn hear(&mut self) -> Option<String> {
        let said = |line: String| line.split_once("says ").map(|(_, said)| said.to_owned());
        self.lines.by_ref().map_while(Result::ok).find_map(said)
    }

    /// SIGKILL; returns what was said until then.
    pub(super) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::iter::from_fn(|| self.hear()).collect()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // Already gone where the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The part that this process is to play, and where; `None` in the tests themselves.
pub(super) fn part() -> Option<(String, PathBuf)> {
    Some((env::var(PART).ok()?, env::var(DIRECTORY).ok()?.into()))
}

/// Tells the parent.
#[expect(clippy::print_stdout, reason = "the parent reads it")]
pub(super) fn say(what: impl std::fmt::Display) {
    println!("\nsays {what}");
}

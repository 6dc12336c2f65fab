//! How every command prints: its answer to standard output, what went wrong to standard error. A
//! reader that went away (`tokens list | head`) is no error, and a failing write never panics.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Failure;

/// Prints `text` and a line break to standard output, at once.
///
/// # Errors
///
/// [`Failure::Output`]: nobody will read it. The command has no more to do.
pub fn print(text: &str) -> Result<(), Failure> {
    write(format!("{text}\n").as_bytes())
}

/// Prints as [`print()`] does, on a thread of its own: standard output may be a pipe that nobody reads,
/// and the runtime has signals to hear.
///
/// # Errors
///
/// As [`print()`].
pub async fn print_aside(text: String) -> Result<(), Failure> {
    let (done, printed) = oneshot::channel();
    let printing = thread::Builder::new().spawn(move || {
        // The receiver is gone if the command has ended.
        let _ = done.send(print(&text));
    });
    printing.map_err(Failure::Output)?;
    printed.await.expect("the thread sends before it ends")
}

/// Writes these bytes to standard output, at once.
///
/// # Errors
///
/// As [`print()`].
pub fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(Failure::Output)
}

/// Prints a message for the person at the terminal, on standard error. A message that cannot be
/// written is dropped.
pub fn say(text: &str) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// A duration for people, rounded down to two digits or so: `45s`, `90m`, `23h`, `60d`.
pub fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        172_800.. => format!("{}d", seconds / 86_400),
    }
}

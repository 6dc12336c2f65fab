//! How every command prints: its answer to standard output, what went wrong to standard error. A
//! reader that went away (`tokens list | head`) is no error, and a failing write never panics.

use std::io::{self, Write};

use super::Failure;

/// Prints `text` and a line break to standard output, at once.
///
/// # Errors
///
/// [`Failure::Output`]: nobody will read it. The command has no more to do.
pub fn print(text: &str) -> Result<(), Failure> {
    write(format!("{text}\n").as_bytes())
}

/// Writes these bytes to standard output, at once.
///
/// # Errors
///
/// As [`print`].
pub fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(Failure::Output)
}

/// Says something to the person at the terminal, on standard error. A message that cannot be
/// written there can be written nowhere.
pub fn say(text: &str) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

//! How every command prints: its answer to standard output, what went wrong to standard error. A
//! reader that went away (`tokens list | head`) is no error, and a failing write never panics.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use clap::{Args, ColorChoice};
use serde::Serialize;
use tokio::sync::oneshot;

use super::Failure;

/// In which form a command prints its answer.
#[derive(Clone, Copy, Debug, Args)]
pub struct Format {
    /// Print JSON: one object on each line
    #[arg(long)]
    json: bool,
}

impl Format {
    /// Whether a program reads the answer.
    pub fn is_json(self) -> bool {
        self.json
    }
}

/// Prints `text` and a line break to standard output, at once.
///
/// # Errors
///
/// [`Failure::Output`]: nobody will read it. The command has no more to do.
pub fn print(text: &str) -> Result<(), Failure> {
    write(format!("{text}\n").as_bytes())
}

/// Prints `value` as one line of JSON.
///
/// # Errors
///
/// As [`print()`].
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(&serde_json::to_string(value).map_err(Failure::other)?)
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
    let text = match is_coloured(&io::stderr()) {
        true => coloured(text),
        false => text.to_owned(),
    };
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Whether somebody looks at this who wants colours.
fn is_coloured(output: &impl IsTerminal) -> bool {
    output.is_terminal() && colours() != ColorChoice::Never
}

/// Whether a terminal may have colours (<https://no-color.org>). Asked for what clap prints as well, which
/// by itself takes a set `CI` for a terminal with colours.
pub fn colours() -> ColorChoice {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
    match is_set("NO_COLOR") || is_dumb {
        true => ColorChoice::Never,
        false => ColorChoice::Auto,
    }
}

/// The words that say how bad a line is, at its beginning, in colours.
fn coloured(text: &str) -> String {
    const COLOURS: [(&str, &str); 2] = [("error", "\x1b[1;31m"), ("warning", "\x1b[1;33m")];
    let paint = |line: &str| {
        let painted = COLOURS.into_iter().find_map(|(word, colour)| {
            let rest = line
                .strip_prefix(word)
                .filter(|rest| rest.starts_with(':'))?;
            Some(format!("{colour}{word}\x1b[0m{rest}"))
        });
        painted.unwrap_or_else(|| line.to_owned())
    };
    let lines: Vec<_> = text.split('\n').map(paint).collect();
    lines.join("\n")
}

/// Who runs the command, for the audit log.
pub fn user_id() -> u32 {
    rustix::process::getuid().as_raw()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_of_a_line_says_in_colours_how_bad_it_is() {
        assert_eq!(
            coloured("warning: old\nnothing\nerror: gone: error: x"),
            "\x1b[1;33mwarning\x1b[0m: old\nnothing\n\x1b[1;31merror\x1b[0m: gone: error: x"
        );
        for plain in ["", "errors: 3", " error: x", "an error: x"] {
            assert_eq!(coloured(plain), plain);
        }
    }
}

//! Lines that are written regardless of the filter, and without `tracing`: why the process ends,
//! panics, and the state of the log itself. They look like all other lines.

use std::fmt::Write;
use std::panic::PanicHookInfo;

use super::Format;
use super::writer::Lines;

/// How bad it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Level {
    Error,
    Warn,
}

/// One line.
#[derive(Debug)]
pub(super) struct Line<'l> {
    pub(super) target: &'l str,
    pub(super) message: &'l str,
    pub(super) fields: &'l [(&'l str, Value<'l>)],
}

/// What stands in a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'l> {
    Text(&'l str),
    Count(u64),
    Seconds(f64),
}

impl Line<'_> {
    /// The line as of now, its end included.
    pub(super) fn write(&self, format: Format, level: Level) -> String {
        let now = jiff::Timestamp::now();
        let level = match level {
            Level::Error => "ERROR",
            Level::Warn => "WARN",
        };
        let Line {
            target,
            message,
            fields,
        } = self;
        let mut line = String::new();
        match format {
            Format::Json => {
                // Written piece by piece, so that the fields stand in the order of all other lines.
                let _ = write!(
                    line,
                    r#"{{"timestamp":"{now:.6}","level":"{level}","message":{}"#,
                    quoted(message)
                );
                for (name, value) in *fields {
                    let value: serde_json::Value = match *value {
                        Value::Text(text) => text.into(),
                        Value::Count(count) => count.into(),
                        Value::Seconds(seconds) => seconds.into(),
                    };
                    let _ = write!(line, ",{}:{value}", quoted(name));
                }
                let _ = writeln!(line, r#","target":{}}}"#, quoted(target));
            }
            Format::Text => {
                let _ = write!(line, "{now:.6} {level:>5} {target}: {message}");
                for (name, value) in *fields {
                    let _ = match value {
                        Value::Text(text) => write!(line, " {name}={text}"),
                        Value::Count(count) => write!(line, " {name}={count}"),
                        Value::Seconds(seconds) => write!(line, " {name}={seconds}"),
                    };
                }
                line.push('\n');
            }
        }
        line
    }
}

fn quoted(text: &str) -> serde_json::Value {
    text.into()
}

/// Panics go through the log from here on: its thread may be the only one that can be kept waiting
/// by standard error. Only what the code itself says is repeated, for a message that was put together
/// while the process ran might hold a caller's text.
pub(super) fn log_panics(lines: Lines) {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let location = panic.location().map(ToString::to_string);
        let mut fields = vec![
            ("thread", Value::Text(thread.name().unwrap_or("unnamed"))),
            (
                "location",
                Value::Text(location.as_deref().unwrap_or("unknown")),
            ),
        ];
        fields.extend(static_message(panic).map(|message| ("says", Value::Text(message))));
        let line = Line {
            target: "panic",
            message: "a thread panicked",
            fields: &fields,
        };
        lines.say(Level::Error, &line);
    }));
}

/// The message, if it stands in the code as it is.
fn static_message<'p>(panic: &'p PanicHookInfo<'_>) -> Option<&'p str> {
    panic.payload().downcast_ref::<&'static str>().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line<'static> = Line {
        target: "panic",
        message: "a \"thread\"\npanicked",
        fields: &[("thread", Value::Text("worker-0"))],
    };

    #[test]
    fn a_line_in_json_is_one_object_whatever_it_says() {
        let line = LINE.write(Format::Json, Level::Error);
        assert_eq!(line.matches('\n').count(), 1);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["message"], "a \"thread\"\npanicked");
        assert_eq!(
            (&line["level"], &line["target"]),
            (&"ERROR".into(), &"panic".into())
        );
        assert_eq!(line["thread"], "worker-0");
        let timestamp = line["timestamp"].as_str().unwrap();
        assert_eq!(timestamp.len(), "2026-11-22T12:00:00.000001Z".len());
    }

    #[test]
    fn a_line_for_people_has_the_same() {
        let line = LINE.write(Format::Text, Level::Warn);
        let (_, line) = line.split_once("Z ").unwrap();
        assert_eq!(
            line,
            " WARN panic: a \"thread\"\npanicked thread=worker-0\n"
        );
    }

    /// Says to the test below that it runs in a process of its own, whose panics are logged.
    const APART: &str = "DAMOOV_PROXY_TEST_PANICS";

    #[test]
    fn a_panic_is_a_line_that_repeats_nothing_but_what_stands_in_the_code() {
        if std::env::var_os(APART).is_some() {
            let log = crate::telemetry::Log::open(Format::Json).unwrap();
            log_panics(log.lines().clone());
            let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
            let put_together = format!("{}-of-a-caller", "text");
            let panics = move || -> () { panic!("{put_together}") };
            let _ = named("first").spawn(panics).unwrap().join();
            let written = || -> () { panic!("as it is written") };
            let _ = named("second").spawn(written).unwrap().join();
            return;
        }
        let name = "a_panic_is_a_line_that_repeats_nothing_but_what_stands_in_the_code";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--nocapture", name])
            .env(APART, "1")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("text-of-a-caller"), "{said}");
        let object = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok();
        let lines: Vec<_> = said.lines().filter_map(object).collect();
        let [first, second] = &lines[..] else {
            panic!("{said}")
        };
        assert_eq!(
            (&first["thread"], &second["thread"]),
            (&"first".into(), &"second".into())
        );
        assert_eq!(
            (&first["target"], &first["level"]),
            (&"panic".into(), &"ERROR".into())
        );
        assert!(first["says"].is_null(), "{first}");
        assert_eq!(second["says"], "as it is written");
        let place = first["location"].as_str().unwrap();
        assert!(place.starts_with("src/telemetry/line.rs:"), "{place}");
    }
}

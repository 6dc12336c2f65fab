//! Lines that are written regardless of the filter, and without `tracing`: why the process ends,
//! panics, and the state of the log itself. They look like all other lines.

use std::fmt::Write;

use super::Format;

/// How bad it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Level {
    Error,
    Warn,
}

impl From<Level> for tracing::Level {
    fn from(level: Level) -> tracing::Level {
        match level {
            Level::Error => tracing::Level::ERROR,
            Level::Warn => tracing::Level::WARN,
        }
    }
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
}

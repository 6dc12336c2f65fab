//! Panics in the log.

use std::panic::PanicHookInfo;

use super::line::{Level, Line, Value};
use super::writer::Lines;

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
    use crate::telemetry::Format;

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
        assert!(place.starts_with("src/telemetry/panics.rs:"), "{place}");
    }
}

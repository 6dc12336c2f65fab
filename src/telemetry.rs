//! Logs: the subscriber and its filter, and the thread that writes ([`Log`]). Requests have a log of
//! their own, [`access`]. A failure that lasts is logged once, as an [`episode`]. Never sees a secret.

pub mod access;
pub mod episode;
mod hex;
mod line;
mod log_name;
mod lost;
mod output;
mod panics;
pub mod recent;
pub mod seldom;
mod trace_id;
mod writer;

use std::env;
use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::DefaultGuard;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt, FilterFn, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Filter, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, reload};

pub use log_name::LogName;
pub use lost::Lost;
pub use trace_id::TraceId;
pub use writer::{Health, Lines, Log};

/// Crates whose debug and trace events may show header fields, key material, or what is stored.
const CAPPED: [&str; 7] = [
    "hyper",
    "hyper_util",
    "rustls",
    "tokio_postgres",
    "tokio_rustls",
    "tokio_tungstenite",
    "tungstenite",
];

/// Part of the configuration: `[log]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How a line is written.
    pub format: Format,
    /// What is logged if the environment does not say; `None`: info, or what `RUST_LOG` says.
    pub level: Option<LevelFilter>,
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object on each line.
    Json,
    /// For people.
    Text,
}

/// Whose lines are lost together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// One line for each request.
    Access,
    /// Events of the target `audit`.
    Audit,
    /// All others.
    Other,
}

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not valid.
    #[error("{variable} is not a log filter")]
    Filter {
        /// The environment variable it was read from.
        variable: &'static str,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A word in the filter is neither a level nor `TARGET=LEVEL`: it would switch everything off.
    #[error(
        "{variable}: expected a level (off, error, warn, info, debug, trace) or TARGET=LEVEL, not {word:?}"
    )]
    Level {
        /// The environment variable it was read from.
        variable: &'static str,
        /// The word.
        word: String,
    },
    /// Logging has been started before.
    #[error("logging was started twice")]
    Twice(#[from] TryInitError),
}

impl Log {
    /// Starts the thread that writes to standard error; [`Log::follow`] gives it events.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn open(format: Format) -> io::Result<Log> {
        Log::start(format)
    }

    /// Logs events and panics from here on. What is logged says `DAMOOV_PROXY_LOG`, else `level`, else
    /// `RUST_LOG`; else it is info. A filter names levels, for all targets or one:
    /// `info,damoov_proxy::store=debug,access=off`.
    pub fn follow(&self, level: Option<LevelFilter>) -> Result<LogLevel, Error> {
        let lines = self.lines();
        let filter = filter(level)?;
        lines.want_access(wants_access(&filter));
        let (filter, handle) = reload::Layer::new(filter);
        let begun = subscriber(lines.format(), filter, Events(lines.clone()))
            .with(lines.recent().layer())
            .try_init();
        begun?;
        panics::log_panics(lines.clone());
        let lines = lines.clone();
        Ok(LogLevel { handle, lines })
    }

    /// Logs why the process ends, regardless of the filter.
    pub fn fatal(&self, message: &str) {
        let line = line::Line {
            target: "damoov_proxy",
            message,
            fields: &[],
        };
        self.lines().say(line::Level::Error, &line);
    }
}

/// What is logged, which may change while the process runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogLevel {
    handle: reload::Handle<Targets, Registry>,
    lines: Lines,
}

impl LogLevel {
    /// From here on the configuration says `level`; what the environment says still comes first.
    ///
    /// # Errors
    ///
    /// [`Error::Filter`], [`Error::Level`].
    pub fn set(&self, level: Option<LevelFilter>) -> Result<(), Error> {
        let filter = filter(level)?;
        self.lines.want_access(wants_access(&filter));
        // It fails only if the subscriber is gone: then nothing is logged anyway.
        let _ = self.handle.reload(filter);
        Ok(())
    }
}

/// Writes the events of the target `audit` to standard error while the guard lives, on this thread and as
/// `settings` say: commands that change a store beside a proxy have no [`Log`]. A terminal gets none, for
/// it keeps no lines, and what the command says stands there.
///
/// # Errors
///
/// The filter is not valid.
pub fn audit_command(settings: Settings) -> Result<Option<DefaultGuard>, Error> {
    let wanted = filter(settings.level)?;
    if io::stderr().is_terminal() {
        return Ok(None);
    }
    let is_audit = FilterFn::new(|event: &Metadata<'_>| event.target() == "audit");
    let lines = subscriber(settings.format, wanted.and(is_audit), io::stderr);
    Ok(Some(tracing::subscriber::set_default(lines)))
}

/// What is to be logged; see [`Log::follow`].
fn filter(level: Option<LevelFilter>) -> Result<Targets, Error> {
    let set = |variable| {
        let text = env::var(variable).ok()?;
        // As `${LOG:-}` leaves it.
        (!text.trim().is_empty()).then_some((variable, text))
    };
    let asked = set("DAMOOV_PROXY_LOG").or_else(|| match level {
        Some(level) => Some(("[log] level", level.to_string())),
        None => set("RUST_LOG"),
    });
    let (variable, text) = asked.unwrap_or(("", "info".to_owned()));
    if let Some(word) = text.split(',').find(|item| is_no_level(item)) {
        let word = word.to_owned();
        return Err(Error::Level { variable, word });
    }
    text.parse()
        .map_err(|source| Error::Filter { variable, source })
}

/// Whether the filter wants access events. The filter itself is asked: a question to the subscriber that no
/// event follows would leave its answer to the next event of this thread.
fn wants_access(filter: &Targets) -> bool {
    filter.would_enable("access", &tracing::Level::INFO)
}

/// Whether an item of a filter names no target, and no level either.
fn is_no_level(item: &str) -> bool {
    let item = item.trim();
    item.is_empty() || (!item.contains('=') && item.parse::<LevelFilter>().is_err())
}

/// Logs events of at least `level`, if the environment does not say otherwise.
///
/// # Errors
///
/// [`Log::open`], [`Log::follow`].
#[cfg(feature = "simulator")]
pub fn start(settings: Settings) -> io::Result<(Log, LogLevel)> {
    let log = Log::open(settings.format)?;
    let level = log.follow(settings.level).map_err(io::Error::other)?;
    Ok((log, level))
}

/// Leaves each event for the thread that writes.
struct Events(Lines);

/// One event, which comes as a whole.
struct Event<'e> {
    lines: &'e Lines,
    target: Target,
}

impl<'w> MakeWriter<'w> for Events {
    type Writer = Event<'w>;

    fn make_writer(&'w self) -> Event<'w> {
        Event {
            lines: &self.0,
            target: Target::Other,
        }
    }

    fn make_writer_for(&'w self, event: &Metadata<'_>) -> Event<'w> {
        let target = match event.target() {
            "access" => Target::Access,
            "audit" => Target::Audit,
            _ => Target::Other,
        };
        Event {
            target,
            ..self.make_writer()
        }
    }
}

impl io::Write for Event<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines
            .leave(self.target, &String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn subscriber<F, W>(
    format: Format,
    filter: F,
    writer: W,
) -> impl Subscriber + for<'s> LookupSpan<'s> + Send + Sync
where
    F: Filter<Registry> + Send + Sync + 'static,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // Its own complaints would go to standard error directly, and wait for it.
    let lines = tracing_subscriber::fmt::layer()
        .log_internal_errors(false)
        .with_writer(writer);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        Format::Json => lines.json().flatten_event(true).boxed(),
        Format::Text => lines.with_ansi(false).boxed(),
    };
    // Besides, not within, the filter that was asked for: no directive gets around it.
    let cap = FilterFn::new(is_allowed).with_max_level_hint(LevelFilter::TRACE);
    tracing_subscriber::registry().with(lines.with_filter(filter.and(cap)))
}

fn is_allowed(event: &Metadata<'_>) -> bool {
    let its_crate = event.target().split("::").next().unwrap_or_default();
    *event.level() <= tracing::Level::INFO || !CAPPED.contains(&its_crate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, filter: &str, events: impl FnOnce()) -> String {
        let page = Page::default();
        let writer = page.clone();
        let filter: Targets = filter.parse().unwrap();
        let subscriber = subscriber(format, filter, move || writer.clone());
        tracing::subscriber::with_default(subscriber, events);
        let page = page.0.lock().unwrap().clone();
        String::from_utf8(page).unwrap()
    }

    #[test]
    fn crates_that_see_header_fields_log_nothing_below_info() {
        for filter in [
            "trace",
            "hyper=trace,hyper_util::rt=trace,trace",
            "rustls=debug,trace",
        ] {
            let text = logged(Format::Text, filter, || {
                tracing::trace!(target: "hyper::proto::h1", "secret");
                tracing::debug!(target: "hyper_util::rt", "secret");
                tracing::debug!(target: "rustls", "secret");
                tracing::warn!(target: "hyper", "shown");
                tracing::trace!(target: "hyperactive", "also shown");
            });
            assert!(!text.contains("secret"), "{filter}: {text}");
            assert!(
                text.contains("shown") && text.contains("also shown"),
                "{filter}: {text}"
            );
        }
    }

    #[test]
    fn a_word_that_is_no_level_is_told_from_one() {
        for level in [
            "info",
            " WARN",
            "off",
            "access=off",
            "damoov_proxy::store=debug",
        ] {
            assert!(!is_no_level(level), "{level}");
        }
        for word in ["", " ", "verbose", "bogus[level"] {
            assert!(is_no_level(word), "{word}");
        }
    }

    #[test]
    fn json_has_one_object_a_line_with_the_fields_at_the_top() {
        let text = logged(Format::Json, "info", || {
            tracing::info!(target: "access", status = 200, route = "/trips");
            tracing::debug!("not asked for");
        });
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["target"], "access");
        assert_eq!(
            (&line["status"], &line["route"]),
            (&200.into(), &"/trips".into())
        );
    }
}

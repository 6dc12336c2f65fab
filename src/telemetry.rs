//! Logs: the subscriber and what it lets through; requests have a log of their own, [`access`]. Never
//! sees a secret.

pub mod access;

use std::env;

use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt, FilterFn, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry};

/// Crates whose debug and trace events may show header fields or key material.
const CAPPED: [&str; 8] = [
    "h2",
    "hyper",
    "hyper_rustls",
    "hyper_util",
    "rustls",
    "tokio_rustls",
    "tokio_tungstenite",
    "tungstenite",
];

/// Part of the configuration: `[log]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not one.
    #[error("{variable} is not a log filter")]
    Filter {
        /// The environment variable it was read from.
        variable: &'static str,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody else logs already.
    #[error("logging was started twice")]
    Twice(#[from] TryInitError),
}

/// Logs to standard error from here on, filtered by `DAMOOV_PROXY_LOG`, else `RUST_LOG`, else at
/// info. A filter names levels, for all targets or one: `info,damoov_proxy::store=debug,access=off`.
pub fn start(format: Format) -> Result<(), Error> {
    start_at(format, "info")
}

/// The same, at another level where the environment names none.
pub fn start_at(format: Format, level: &str) -> Result<(), Error> {
    let asked = ["DAMOOV_PROXY_LOG", "RUST_LOG"]
        .into_iter()
        .find_map(|variable| Some((variable, env::var(variable).ok()?)));
    let (variable, text) = asked.unwrap_or(("", level.to_owned()));
    let filter = text
        .parse()
        .map_err(|source| Error::Filter { variable, source })?;
    subscriber(format, filter, std::io::stderr).try_init()?;
    Ok(())
}

fn subscriber<W>(format: Format, filter: Targets, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
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
        let filter = filter.parse().unwrap();
        let subscriber = subscriber(format, filter, move || writer.clone());
        tracing::subscriber::with_default(subscriber, events);
        let page = page.0.lock().unwrap().clone();
        String::from_utf8(page).unwrap()
    }

    #[test]
    fn crates_that_see_header_fields_say_nothing_below_info_whatever_is_asked_for() {
        for filter in [
            "trace",
            "hyper=trace,h2::frame=trace,trace",
            "rustls=debug,trace",
        ] {
            let text = logged(Format::Text, filter, || {
                tracing::trace!(target: "hyper::proto::h1", "secret");
                tracing::debug!(target: "h2::frame", "secret");
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

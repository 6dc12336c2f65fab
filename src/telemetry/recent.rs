//! The newest events of the log that a person must see: errors, warnings, and those of the target `audit`.
//! Kept in bounded memory for whoever looks, whatever the filter of the log says; nothing that logs waits for
//! a reader. They are those of the log, and hold no more than it does.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// How many are kept.
pub const KEPT: usize = 200;
/// What is kept of one text, in bytes.
const LONGEST: usize = 1024;
/// How many fields of one event are kept.
const FIELDS: usize = 24;

/// The newest events. Clones are of the same ones.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    kept: Mutex<Kept>,
    /// How many there have been; watched by readers.
    count: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The newest last; as JSON.
    events: VecDeque<Arc<str>>,
    /// How many there have been.
    count: u64,
}

/// Reads them one after the other, the oldest that is kept first. If it is slow it misses some.
#[derive(Debug)]
pub struct Reader {
    recent: Recent,
    count: watch::Receiver<u64>,
    /// How many it has passed.
    passed: u64,
}

impl Recent {
    /// Reads from the oldest one on that is kept.
    pub fn reader(&self) -> Reader {
        Reader {
            recent: self.clone(),
            count: self.0.count.subscribe(),
            passed: 0,
        }
    }

    /// What keeps the events of a subscriber.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'s> LookupSpan<'s>,
    {
        let wanted = FilterFn::new(is_kept).with_max_level_hint(LevelFilter::INFO);
        Keeping(self.clone()).with_filter(wanted)
    }

    /// Keeps an event that is no event of a subscriber.
    pub(super) fn keep(&self, level: Level, target: &str, message: &str) {
        let noted = Noted {
            message: cut(message),
            ..Noted::default()
        };
        self.push(&noted.shown(level, target));
    }

    /// Keeps a warning.
    #[cfg(test)]
    pub(crate) fn keep_warning(&self, message: &str) {
        self.keep(Level::WARN, "test", message);
    }

    fn push(&self, shown: &Shown<'_>) {
        let event = serde_json::to_string(shown).expect("texts and numbers are JSON");
        let mut kept = self.kept();
        kept.events.push_back(event.into());
        if kept.events.len() > KEPT {
            kept.events.pop_front();
        }
        kept.count += 1;
        // Under the lock, so that the number only grows.
        self.0.count.send_replace(kept.count);
    }

    /// A panic hook uses it as well, hence even after a panic under the lock.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// The next ones, as JSON on one line each; waits until there is one.
    pub async fn next(&mut self) -> Vec<Arc<str>> {
        let passed = self.passed;
        // The sender lives in self, so this cannot fail.
        let _ = self.count.wait_for(|count| *count > passed).await;
        let kept = self.recent.kept();
        let new = usize::try_from(kept.count - passed).unwrap_or(usize::MAX);
        let skipped = kept.events.len().saturating_sub(new);
        self.passed = kept.count;
        kept.events.iter().skip(skipped).cloned().collect()
    }
}

fn is_kept(event: &Metadata<'_>) -> bool {
    *event.level() <= Level::WARN || (event.target() == "audit" && *event.level() <= Level::INFO)
}

/// Keeps events.
struct Keeping(Recent);

impl<S: Subscriber> Layer<S> for Keeping {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut noted = Noted::default();
        event.record(&mut noted);
        let metadata = event.metadata();
        self.0
            .push(&noted.shown(*metadata.level(), metadata.target()));
    }
}

/// What an event says.
#[derive(Debug, Default)]
struct Noted {
    message: String,
    /// Of an event that came by way of the crate `log`.
    target: Option<String>,
    fields: Map<String, Value>,
}

/// An event as it is told.
#[derive(Serialize)]
struct Shown<'e> {
    at: String,
    level: &'static str,
    target: &'e str,
    message: &'e str,
    fields: &'e Map<String, Value>,
}

impl Noted {
    fn shown<'e>(&'e self, level: Level, target: &'e str) -> Shown<'e> {
        Shown {
            at: format!("{:.3}", jiff::Timestamp::now()),
            level: level.as_str(),
            target: self.target.as_deref().unwrap_or(target),
            message: &self.message,
            fields: &self.fields,
        }
    }

    fn note(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("log.target", Value::String(text)) => self.target = Some(text),
            (name, _) if name.starts_with("log.") => {}
            (name, value) => {
                if self.fields.len() < FIELDS {
                    self.fields.insert(name.to_owned(), value);
                }
            }
        }
    }
}

impl Visit for Noted {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.note(field, cut(&format!("{value:?}")).into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.note(field, cut(value).into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.note(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.note(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.note(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.note(field, value.into());
    }
}

/// The text, or its beginning if it is long.
fn cut(text: &str) -> String {
    match text.len() <= LONGEST {
        true => text.to_owned(),
        false => format!("{}…", &text[..text.floor_char_boundary(LONGEST)]),
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn kept(events: impl FnOnce()) -> Vec<Value> {
        let recent = Recent::default();
        let subscriber = tracing_subscriber::registry().with(recent.layer());
        tracing::subscriber::with_default(subscriber, events);
        let kept = recent.kept();
        let parsed = kept.events.iter();
        parsed
            .map(|event| serde_json::from_str(event).unwrap())
            .collect()
    }

    #[test]
    fn warnings_and_what_was_done_are_kept_and_nothing_else() {
        let kept = kept(|| {
            tracing::warn!(host = "api.example", tries = 3, "a host\nfails");
            tracing::info!("starting");
            tracing::info!(target: "access", status = 200);
            tracing::info!(target: "audit", principal = %"a1b2", "forget");
            tracing::debug!(target: "audit", "detail");
        });
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert_eq!(kept[0]["message"], "a host\nfails");
        assert_eq!(kept[0]["level"], "WARN");
        assert_eq!(kept[0]["fields"]["host"], "api.example");
        assert_eq!(kept[0]["fields"]["tries"], 3);
        assert_eq!(kept[1]["target"], "audit");
        assert_eq!(kept[1]["fields"]["principal"], "a1b2");
        let at = kept[0]["at"].as_str().unwrap();
        assert!(at.parse::<jiff::Timestamp>().is_ok(), "{at}");
    }

    #[test]
    fn the_newest_are_kept_and_of_each_no_more_than_so_much() {
        let kept = kept(|| {
            for number in 0..KEPT + 7 {
                tracing::warn!(number, long = "é".repeat(9_999), "again");
            }
        });
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept[0]["fields"]["number"], 7);
        assert!(kept[0]["fields"]["long"].as_str().unwrap().len() < LONGEST + 8);
    }

    #[tokio::test]
    async fn a_reader_gets_those_that_are_kept_and_then_each_that_comes() {
        let recent = Recent::default();
        let event = |message: &str| recent.keep(Level::WARN, "t", message);
        let said = |events: Vec<Arc<str>>| {
            let parsed = events.iter();
            let parsed = parsed.map(|event| serde_json::from_str::<Value>(event).unwrap());
            parsed
                .map(|event| event["message"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        event("1");
        event("2");
        let mut reader = recent.reader();
        assert_eq!(said(reader.next().await), ["1", "2"]);
        event("3");
        assert_eq!(said(reader.next().await), ["3"]);
        for number in 0..KEPT + 5 {
            event(&number.to_string());
        }
        assert_eq!(said(reader.next().await)[0], "5", "it missed some");
    }
}

//! Which principals a listing shows.

use std::time::Duration;

use clap::Args;

use super::super::notes::{NoteName, notes};
use crate::clock::Timestamp;
use crate::config::parse_duration;
use crate::directory::Directory;
use crate::principal::InstanceId;
use crate::store::Entry;

/// Filters as they are written; all of them must let a principal through.
#[derive(Debug, Args)]
pub(super) struct Filters {
    /// Only users of this instance, by its id or its configured name
    #[arg(long, value_name = "ID|NAME")]
    instance: Option<String>,
    /// Only principals of which this was noted
    #[arg(long, value_name = "NAME")]
    note: Option<NoteName>,
    /// Only pairs that were received longer ago than this, such as 30d
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Option<Duration>,
    /// Only pairs that were received since then, such as 12h
    #[arg(long, value_name = "AGE", value_parser = age)]
    younger_than: Option<Duration>,
}

/// Filters as they are meant.
#[derive(Debug, Default)]
pub(super) struct Filter {
    instance: Option<InstanceId>,
    note: Option<NoteName>,
    older_than: Option<Duration>,
    younger_than: Option<Duration>,
}

impl Filters {
    /// Looks up what they name. The error says what could be named.
    pub(super) fn resolve(&self, directory: &Directory) -> Result<Filter, String> {
        let instance = self.instance.as_deref();
        Ok(Filter {
            instance: instance
                .map(|name| instance_of(name, directory))
                .transpose()?,
            note: self.note,
            older_than: self.older_than,
            younger_than: self.younger_than,
        })
    }
}

impl Filter {
    /// Whether the entry is shown at `now`.
    pub(super) fn lets(&self, entry: &Entry, now: Timestamp) -> bool {
        let record = entry.record.as_ref();
        let instance = match record {
            Some(record) => record.instance,
            None => entry.notes.registered_in,
        };
        let age = record.map(|record| now.since(record.received));
        let is_noted = |note| notes(entry, now).iter().any(|(name, _)| *name == note);
        self.instance.is_none_or(|wanted| instance == Some(wanted))
            && self.note.is_none_or(is_noted)
            && self
                .older_than
                .is_none_or(|than| age.is_some_and(|age| age > than))
            && self
                .younger_than
                .is_none_or(|than| age.is_some_and(|age| age < than))
    }
}

/// The instance of this name or id. One that is not configured any more may still have users.
fn instance_of(text: &str, directory: &Directory) -> Result<InstanceId, String> {
    let named = directory.instance_named(text).map(|instance| instance.id);
    named
        .or_else(|| InstanceId::parse(text).ok())
        .ok_or_else(|| {
            let names: Vec<_> = directory.instances().iter().map(|i| &*i.name).collect();
            format!(
                "--instance: neither an id of 32 hex digits nor a configured name; configured are: {}",
                match names.is_empty() {
                    true => "none".to_owned(),
                    false => names.join(", "),
                }
            )
        })
}

fn age(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .ok_or_else(|| "expected a duration, such as 45s, 30m, 12h, 1h30m or 30d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Generation, KeyId, Notes, Record, RunId};

    const HOUR: Duration = Duration::from_secs(3600);

    fn instance(digit: char) -> InstanceId {
        InstanceId::parse(&digit.to_string().repeat(32)).unwrap()
    }

    /// A pair of instance 1 that was received an hour ago and is dead, and when that is.
    fn pair() -> (Entry, Timestamp) {
        let received = Timestamp::from_millis(1_000_000);
        let entry = Entry {
            generation: Generation(2),
            record: Some(Record {
                instance: Some(instance('1')),
                known: true,
                sealed: Vec::new(),
                key: KeyId([0; 4]),
                received,
                expires: received,
                run: RunId(uuid::Uuid::nil()),
            }),
            notes: Notes {
                refresh_dead: Some(Generation(2)),
                ..Notes::default()
            },
            ..Entry::default()
        };
        (entry, received.plus(HOUR))
    }

    #[test]
    fn each_filter_lets_through_what_it_names_and_nothing_else() {
        let (pair, now) = pair();
        let registered = Entry {
            notes: Notes {
                registered_in: Some(instance('2')),
                ..Notes::default()
            },
            ..Entry::default()
        };
        let second = Duration::from_secs(1);
        let older = |than| Filter {
            older_than: Some(than),
            ..Filter::default()
        };
        let younger = |than| Filter {
            younger_than: Some(than),
            ..Filter::default()
        };
        let of = |digit| Filter {
            instance: Some(instance(digit)),
            ..Filter::default()
        };
        let noted = |note| Filter {
            note: Some(note),
            ..Filter::default()
        };
        for (filter, of_pair, of_registered) in [
            (Filter::default(), true, true),
            (of('1'), true, false),
            (of('2'), false, true),
            (of('3'), false, false),
            (noted(NoteName::Dead), true, false),
            (noted(NoteName::Registered), false, true),
            (noted(NoteName::Contested), false, false),
            (older(HOUR - second), true, false),
            (older(HOUR), false, false),
            (younger(HOUR + second), true, false),
            (younger(HOUR), false, false),
        ] {
            assert_eq!(filter.lets(&pair, now), of_pair, "{filter:?}");
            assert_eq!(filter.lets(&registered, now), of_registered, "{filter:?}");
        }
    }

    #[test]
    fn all_filters_must_let_an_entry_through() {
        let (pair, now) = pair();
        let both = |digit, note| Filter {
            instance: Some(instance(digit)),
            note: Some(note),
            ..Filter::default()
        };
        assert!(both('1', NoteName::Dead).lets(&pair, now));
        assert!(!both('1', NoteName::Rejected).lets(&pair, now));
        assert!(!both('2', NoteName::Dead).lets(&pair, now));
    }

    #[test]
    fn an_age_is_written_as_in_the_configuration() {
        assert_eq!(age("1h30m"), Ok(HOUR.mul_f64(1.5)));
        assert_eq!(age("60d"), Ok(HOUR * 24 * 60));
        for wrong in ["", "5", "1month", "-5s", "soon"] {
            assert!(age(wrong).unwrap_err().contains("1h30m"), "{wrong}");
        }
    }
}

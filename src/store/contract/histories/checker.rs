//! Whether one store could have answered a history of calls: pure, so that forged histories test it.
//!
//! A call took effect once, somewhere between its beginning and its answer. What is found is certain: where
//! that leaves several orders, the one in the store's favour is taken.

mod holders;

use std::collections::HashMap;
use std::time::Duration;

use self::holders::{reads_from_before_a_commit, two_holders};
use crate::clock::Timestamp;
use crate::store::{Entry, Generation, LeaseId, Record, Version};

/// One call about one user, as its caller saw it.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) of: u64,
    /// Since the history began.
    pub(super) called: Duration,
    /// The same.
    pub(super) answered: Duration,
    pub(super) call: Call,
}

/// What was called, and what the answer was.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Leased {
        id: LeaseId,
        ttl: Duration,
        granted: bool,
        read: Entry,
    },
    Extended {
        id: LeaseId,
        ttl: Duration,
        held: bool,
    },
    Released {
        id: LeaseId,
    },
    Committed {
        record: Record,
        over: Version,
        lease: Option<LeaseId>,
        superseded_by: Option<Entry>,
    },
    Noted {
        displaced: Timestamp,
    },
    Forgotten {
        was_there: bool,
    },
    Restored {
        entry: Entry,
        written: bool,
    },
    Loaded {
        read: Entry,
    },
    Claimed {
        hold: Duration,
    },
}

/// Engines count in milliseconds, so that what they end may end this much early.
const PRECISION: Duration = Duration::from_millis(1);

/// What no store that keeps its promises answers; empty if there is nothing.
pub(super) fn findings(events: &[Event]) -> Vec<String> {
    let mut users: Vec<u64> = events.iter().map(|event| event.of).collect();
    users.sort_unstable();
    users.dedup();
    let mut findings = Vec::new();
    for of in users {
        let events: Vec<_> = events.iter().filter(|event| event.of == of).collect();
        for found in [
            two_holders(&events),
            reads_from_before_a_commit(&events),
            generations_with_two_contents(&events),
            versions_that_went_back(&events),
            overwritten_values(&events),
            pairs_claimed_twice(&events),
        ] {
            findings.extend(found.into_iter().map(|what| format!("user {of}: {what}")));
        }
    }
    findings
}

/// What an event says of the version that stood at some moment of it.
enum Sight {
    Exactly(Version),
    AtLeast(Version),
}

fn sight(event: &Event) -> Option<Sight> {
    match &event.call {
        Call::Leased { read, .. } | Call::Loaded { read } => Some(Sight::Exactly(read.version())),
        Call::Committed {
            superseded_by: Some(stands),
            ..
        } => Some(Sight::Exactly(stands.version())),
        Call::Committed { over, .. } => Some(Sight::Exactly(Version {
            generation: over.generation.next(),
            epoch: over.epoch,
        })),
        Call::Restored {
            entry,
            written: true,
        } => Some(Sight::AtLeast(entry.version())),
        // It did not outrank what stood there.
        Call::Restored {
            entry,
            written: false,
        } => Some(Sight::AtLeast(Version {
            generation: Generation(0),
            epoch: entry.epoch,
        })),
        _ => None,
    }
}

/// What was read, if anything was.
fn read(event: &Event) -> Option<&Entry> {
    match &event.call {
        Call::Leased { read, .. } | Call::Loaded { read } => Some(read),
        Call::Committed { superseded_by, .. } => superseded_by.as_ref(),
        _ => None,
    }
}

fn generations_with_two_contents(events: &[&Event]) -> Vec<String> {
    let mut contents: HashMap<Version, Option<&Record>> = HashMap::new();
    let mut found = Vec::new();
    for event in events {
        let (version, content) = match (&event.call, read(event)) {
            (Call::Committed { over, .. }, Some(stands)) if stands.version() == *over => {
                found.push(format!("superseded by what it was to replace: {event:?}"));
                continue;
            }
            (_, Some(read)) => (read.version(), read.record.as_ref()),
            (Call::Committed { record, over, .. }, None) => {
                let generation = over.generation.next();
                let epoch = over.epoch;
                (Version { generation, epoch }, Some(record))
            }
            _ => continue,
        };
        let known = *contents.entry(version).or_insert(content);
        // What is forgotten gets another epoch, what is restored another generation.
        if known != content {
            found.push(format!("{version:?} was {known:?}, and now: {event:?}"));
        }
    }
    found
}

fn versions_that_went_back(events: &[&Event]) -> Vec<String> {
    let mut found = Vec::new();
    for (before, after) in in_order(events) {
        let (Some(earlier), Some(Sight::Exactly(later))) = (sight(before), sight(after)) else {
            continue;
        };
        let (Sight::Exactly(earlier) | Sight::AtLeast(earlier)) = earlier;
        let between =
            |event: &&&Event| event.called >= before.answered && event.answered <= after.called;
        let (mut generations, mut epochs) = (0, 0);
        for event in events.iter().filter(between) {
            match event.call {
                Call::Committed {
                    superseded_by: None,
                    ..
                } => generations += 1,
                Call::Forgotten { was_there: true } => epochs += 1,
                _ => {}
            }
        }
        let is_ahead = later.generation.0 >= earlier.generation.0 + generations
            && later.epoch >= earlier.epoch + epochs;
        if !is_ahead {
            found.push(format!(
                "{generations} commits and {epochs} forgets between {before:?} and {after:?}"
            ));
        }
    }
    found
}

/// A value that was read must be one that was written, and not overwritten for certain before it was read.
fn overwritten_values(events: &[&Event]) -> Vec<String> {
    let mut found = unwritten(
        events,
        |entry| entry.record.clone(),
        |call| match call {
            Call::Committed {
                record,
                superseded_by: None,
                ..
            } => Some(Some(record.clone())),
            _ => None,
        },
    );
    found.extend(unwritten(
        events,
        |entry| entry.notes.displaced,
        |call| match call {
            Call::Noted { displaced } => Some(Some(*displaced)),
            _ => None,
        },
    ));
    found
}

/// Of one value of the entries: `of` is it, and `written` what a call writes that writes it alone.
fn unwritten<T: PartialEq>(
    events: &[&Event],
    of: impl Fn(&Entry) -> Option<T>,
    written: impl Fn(&Call) -> Option<Option<T>>,
) -> Vec<String> {
    let mut writes = vec![(Duration::ZERO, Duration::ZERO, None)];
    for event in events {
        let value = match &event.call {
            Call::Forgotten { was_there: true } => Some(None),
            Call::Restored {
                entry,
                written: true,
            } => Some(of(entry)),
            call => written(call),
        };
        writes.extend(value.map(|value| (event.called, event.answered, value)));
    }
    let mut found = Vec::new();
    for event in events {
        let Some(value) = read(event).map(&of) else {
            continue;
        };
        let may_be_it = writes.iter().any(|(called, answered, written)| {
            let overwritten = writes.iter().any(|(next_called, next_answered, _)| {
                next_called > answered && *next_answered < event.called
            });
            *written == value && *called <= event.answered && !overwritten
        });
        if !may_be_it {
            found.push(format!("not what was written last: {event:?}"));
        }
    }
    found
}

fn pairs_claimed_twice(events: &[&Event]) -> Vec<String> {
    let claims: Vec<_> = events
        .iter()
        .filter_map(|event| match event.call {
            Call::Claimed { hold } => Some((*event, hold)),
            _ => None,
        })
        .collect();
    pairs(&claims)
        .filter(|((one, hold), (other, other_hold))| {
            let (hold, other_hold) = (
                hold.saturating_sub(PRECISION),
                other_hold.saturating_sub(PRECISION),
            );
            // A new pair is not the one that was claimed.
            let is_new = events.iter().any(|event| {
                matches!(event.call, Call::Committed { .. } | Call::Restored { .. })
                    && event.answered >= one.called.min(other.called)
                    && event.called <= one.answered.max(other.answered)
            });
            let within =
                other.answered < one.called + hold && one.answered < other.called + other_hold;
            within && !is_new
        })
        .map(|((one, _), (other, _))| format!("claimed twice: {one:?} and {other:?}"))
        .collect()
}

/// Each two of them.
fn pairs<T>(all: &[T]) -> impl Iterator<Item = (&T, &T)> {
    all.iter()
        .enumerate()
        .flat_map(|(n, one)| all[n + 1..].iter().map(move |other| (one, other)))
}

/// Each two of which one was answered before the other began.
fn in_order<'a>(events: &'a [&'a Event]) -> impl Iterator<Item = (&'a Event, &'a Event)> {
    let follows = |before: &Event, after: &Event| before.answered < after.called;
    events.iter().flat_map(move |before| {
        let after = events.iter().filter(move |after| follows(before, after));
        after.map(move |after| (*before, *after))
    })
}

#[cfg(test)]
mod tests;

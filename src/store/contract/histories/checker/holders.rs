//! Who held a lease when, as far as the answers make that certain.

use std::time::Duration;

use super::{Call, Event, PRECISION, pairs};
use crate::store::LeaseId;

/// A time for which a lease was certainly held.
#[derive(Clone, Copy, Debug)]
struct Hold {
    id: LeaseId,
    from: Duration,
    until: Duration,
}

/// A lease is held from the answer that grants or extends it until its ttl is over, counted from that call,
/// or until its holder does something else with it.
fn holds(events: &[&Event]) -> Vec<Hold> {
    let mut holds = Vec::new();
    for event in events {
        let (id, ttl) = match event.call {
            Call::Leased {
                id,
                ttl,
                granted: true,
                ..
            }
            | Call::Extended {
                id,
                ttl,
                held: true,
            } => (id, ttl),
            _ => continue,
        };
        let next = events
            .iter()
            .filter(|next| next.called >= event.answered && lease_of(next) == Some(id))
            .min_by_key(|next| next.called);
        let over = (event.called + ttl).saturating_sub(PRECISION);
        let until = match next {
            // Nobody had it in between, or it could not have been extended.
            Some(Event {
                called,
                call: Call::Extended { held: true, .. },
                ..
            }) => *called,
            Some(next) => next.called.min(over),
            None => over,
        };
        holds.push(Hold {
            id,
            from: event.answered,
            until,
        });
    }
    holds
}

/// The lease that a call is about.
fn lease_of(event: &Event) -> Option<LeaseId> {
    match event.call {
        Call::Leased { id, .. } | Call::Extended { id, .. } | Call::Released { id } => Some(id),
        Call::Committed { lease, .. } => lease,
        _ => None,
    }
}

pub(super) fn two_holders(events: &[&Event]) -> Vec<String> {
    let holds = holds(events);
    let overlap = |one: &Hold, other: &Hold| {
        one.id != other.id && one.from < other.until && other.from < one.until
    };
    pairs(&holds)
        .filter(|(one, other)| overlap(one, other))
        .map(|(one, other)| format!("two holders: {one:?} and {other:?}"))
        .collect()
}

/// A lease that was granted because a commit ended the one before must come with what was committed.
pub(super) fn reads_from_before_a_commit(events: &[&Event]) -> Vec<String> {
    let mut found = Vec::new();
    for event in events {
        let Call::Committed {
            over,
            lease: Some(ended),
            superseded_by: None,
            ..
        } = &event.call
        else {
            continue;
        };
        let of_it: Vec<_> = events
            .iter()
            .filter(|other| lease_of(other) == Some(*ended) && other.called < event.called)
            .collect();
        let held = of_it.iter().max_by_key(|other| other.called);
        let (taken, until) = match held.map(|held| (held, &held.call)) {
            Some((
                taken,
                Call::Leased {
                    ttl, granted: true, ..
                },
            )) => (taken, taken.called + *ttl),
            Some((
                taken,
                Call::Extended {
                    ttl, held: true, ..
                },
            )) => (taken, taken.called + *ttl),
            _ => continue,
        };
        for next in events {
            let Call::Leased {
                id,
                granted: true,
                read,
                ..
            } = &next.call
            else {
                continue;
            };
            let follows =
                id != ended && next.called > taken.answered && next.answered + PRECISION < until;
            // Given back before, it was free for another reason.
            let released = events.iter().any(|other| {
                matches!(other.call, Call::Released { id } if id == *ended)
                    && other.called < event.answered
            });
            if follows && !released && read.generation <= over.generation {
                found.push(format!("{next:?} does not show {event:?}"));
            }
        }
    }
    found
}

//! Of each user: one refresh at a time, each pair redeemed once, nothing goes back.

use std::collections::HashMap;

use damoov_proxy::principal::Principal;
use damoov_proxy::simulator::{Called, Entry, Fate, Serial, Verdict};

use super::history::{History, arrived_pair, broken, door, is_answered};
use super::{Rule, Violation};

pub(super) fn judge(history: &History<'_>, found: &mut Vec<Violation>) {
    for (user, entries) in &history.users {
        let refreshes: Vec<_> = entries
            .iter()
            .filter(|entry| entry.called == Called::Refresh)
            .copied()
            .collect();
        one_at_a_time(history, user, &refreshes, found);
        redeemed_once(history, user, &refreshes, found);
        only_forward(history, user, entries, found);
    }
}

fn one_at_a_time(
    history: &History<'_>,
    user: &Principal,
    refreshes: &[&Entry],
    found: &mut Vec<Violation>,
) {
    let mut under_way: Vec<&Entry> = Vec::new();
    for call in refreshes {
        under_way.retain(|other| other.end.is_none_or(|end| end.at > call.arrived));
        for other in &under_way {
            if !was_given_up(history, other, call) {
                let by = format!(
                    "{user}: {} refreshes at {} while {} does since {}",
                    door(call),
                    call.arrived.number,
                    door(other),
                    other.arrived.number
                );
                broken(found, Rule::OneRefreshAtATime, by);
            }
        }
        under_way.push(call);
    }
}

/// Whether nobody waited for `other` any more when `call` arrived: Damoov sees a hang-up late.
fn was_given_up(history: &History<'_>, other: &Entry, call: &Entry) -> bool {
    let hung_up = other.end.is_none_or(|end| end.fate == Fate::HungUp);
    let by_itself = other.door == call.door;
    let killed = || history.is_killed(door(other), other.arrived, call.arrived);
    hung_up && (by_itself || killed())
}

fn redeemed_once(
    history: &History<'_>,
    user: &Principal,
    refreshes: &[&Entry],
    found: &mut Vec<Violation>,
) {
    let mut last = HashMap::<Serial, &Entry>::new();
    let mut children = HashMap::<Serial, Serial>::new();
    for call in refreshes {
        let Some(presented) = call.presented else {
            continue;
        };
        if let Some(issued) = call.issued
            && *children.entry(presented).or_insert(issued.serial) != issued.serial
        {
            let by = format!("{user}: pair {} was redeemed for two others", presented.0);
            broken(found, Rule::RedeemedOnce, by);
        }
        let before = last.insert(presented, call);
        if let Some(before) = before
            && !may_be_repeated(history, before, call)
        {
            let by = format!(
                "{user}: {} presents pair {} at {}, {:?} for {} at {}",
                door(call),
                presented.0,
                call.arrived.number,
                before.verdict,
                door(before),
                before.arrived.number
            );
            broken(found, Rule::RedeemedOnce, by);
        }
    }
}

/// Whether the pair that `before` presented may be presented by `call` again.
fn may_be_repeated(history: &History<'_>, before: &Entry, call: &Entry) -> bool {
    if !is_answered(before) || history.may_be_lost(before) || history.is_behind(call.arrived) {
        return true;
    }
    match before.verdict {
        Some(Verdict::Granted) => false,
        Some(Verdict::Rejected) => history.is_suspended(call.arrived),
        Some(Verdict::Faulted | Verdict::Limited) | None => true,
    }
}

fn only_forward(
    history: &History<'_>,
    user: &Principal,
    entries: &[&Entry],
    found: &mut Vec<Violation>,
) {
    let mut newest = Serial(0);
    // Pairs that arrived count from when they did, not from when they were asked for.
    let mut arriving: Vec<&Entry> = Vec::new();
    for call in entries {
        arriving.retain(|other| {
            let is_there = other.end.is_some_and(|end| end.at < call.arrived);
            if let Some(serial) = arrived_pair(other)
                && is_there
                && !history.may_be_lost(other)
            {
                newest = newest.max(serial);
            }
            !is_there
        });
        arriving.push(call);
        let (Called::Refresh, Some(presented)) = (call.called, call.presented) else {
            continue;
        };
        if presented < newest && !history.is_behind(call.arrived) {
            let by = format!(
                "{user}: {} presents pair {} at {}, where {} is known",
                door(call),
                presented.0,
                call.arrived.number,
                newest.0
            );
            broken(found, Rule::OnlyForward, by);
        }
        newest = newest.max(presented);
    }
}

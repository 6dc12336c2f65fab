//! What was noted of a principal, by names that a listing is filtered by, and in words.

use clap::ValueEnum;

use crate::cli::output::rough;
use crate::clock::Timestamp;
use crate::store::Entry;

/// A note, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum NoteName {
    /// Its RefreshToken was rejected: the next renewal logs in
    Dead,
    /// The answer to its last refresh was lost
    AnswerLost,
    /// Its login was rejected, and is not tried again yet
    Rejected,
    /// Another program logs it in as well: no login yet
    Contested,
    /// Its newest token was rejected, too: no 401 renews it yet
    Suppressed,
    /// It has no pair, but is registered in an instance
    Registered,
}

/// What stands in the way of this principal's renewal at `now`.
pub(super) fn notes(entry: &Entry, now: Timestamp) -> Vec<(NoteName, String)> {
    let notes = &entry.notes;
    let until = |name, what: &str, until: Option<Timestamp>| {
        let until = until.filter(|until| *until > now)?;
        Some((name, format!("{what} for {}", rough(until.since(now)))))
    };
    let of_this_pair = |name, what: &str, noted| {
        (noted == Some(entry.generation)).then(|| (name, what.to_owned()))
    };
    let rejected = notes.rejected.map(|rejected| rejected.until);
    [
        of_this_pair(NoteName::Dead, "RefreshToken dead", notes.refresh_dead),
        of_this_pair(NoteName::AnswerLost, "answer lost", notes.answer_lost),
        until(NoteName::Rejected, "login rejected", rejected),
        until(NoteName::Contested, "contested", notes.contested_until),
        until(NoteName::Suppressed, "suppressed", notes.suppressed_until),
        notes
            .registered_in
            .map(|instance| (NoteName::Registered, format!("registered in {instance}"))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

//! What `warm` says: of single lines and of the whole while it runs, and at its end.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::duration;
use crate::cli::output::rough;
use crate::cli::progress::{Meter, Shown, Total};
use crate::store::LoginBudget;

/// Counts the lines, and shows how far they are done.
pub(super) struct Report {
    counts: Cell<Counts>,
    /// Of the file; `None` of a pipe.
    lines: Option<u64>,
    /// As the store said last, and when that was.
    budget: RefCell<Option<(LoginBudget, Instant)>>,
    /// What it waits for, and until when.
    waits: Cell<Option<(WaitsFor, Instant)>>,
    meter: Meter,
}

/// What became of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    pub(super) logged_in: u64,
    pub(super) had_a_pair: u64,
    /// Their login was rejected.
    pub(super) rejected: u64,
    /// They name nobody.
    pub(super) bad: u64,
    /// Another try may help.
    pub(super) failed: u64,
}

/// What became of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    LoggedIn,
    HadAPair,
    /// A sentence says why, here and below.
    Rejected(String),
    Bad(String),
    Failed(String),
}

/// Why it does not log in now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// The next slot of the budget.
    Slot,
    /// The end of a block.
    Block,
    /// The end of a suspension.
    Suspension,
    /// Damoov's Auth endpoints.
    Api,
    /// The store.
    Store,
}

impl Report {
    pub(super) fn new(lines: Option<u64>) -> Report {
        let total = lines.map_or(Total::Unknown, Total::Entries);
        Report {
            counts: Cell::default(),
            lines,
            budget: RefCell::default(),
            waits: Cell::default(),
            meter: Meter::new(total, Shown::AsBar),
        }
    }

    /// What became of all lines so far.
    pub(super) fn counts(&self) -> Counts {
        self.counts.get()
    }

    /// Counts a line, and says what needs a word.
    pub(super) fn count(&self, number: usize, outcome: Outcome) {
        let mut counts = self.counts.get();
        let (count, why) = match outcome {
            Outcome::LoggedIn => (&mut counts.logged_in, None),
            Outcome::HadAPair => (&mut counts.had_a_pair, None),
            Outcome::Rejected(why) => (&mut counts.rejected, Some(why)),
            Outcome::Bad(why) => (&mut counts.bad, Some(why)),
            Outcome::Failed(why) => (&mut counts.failed, Some(why)),
        };
        *count += 1;
        self.counts.set(counts);
        if let Some(why) = why {
            self.meter.say(&format!("line {number}: {why}"));
        }
        self.show();
    }

    /// What the store says of the budget now.
    pub(super) fn note_budget(&self, budget: LoginBudget) {
        *self.budget.borrow_mut() = Some((budget, Instant::now()));
    }

    /// It waits for this, about so long; `None`: no more.
    pub(super) fn note_wait(&self, waits: Option<(WaitsFor, Duration)>) {
        let until = |(what, left)| (what, Instant::now() + left);
        self.waits.set(waits.map(until));
        self.show();
    }

    /// Brings the bar up to date, or writes a line if one is due.
    pub(super) fn show(&self) {
        self.meter.show(self.counts().all(), || self.text());
    }

    fn text(&self) -> String {
        let mut text = self.counts().to_string();
        if let Some((what, until)) = self.waits.get() {
            let left = rough(until.saturating_duration_since(Instant::now()));
            text.push_str(&match what {
                WaitsFor::Slot => format!("; next login in {left}"),
                WaitsFor::Block => format!("; Damoov blocks logins for {left} more"),
                WaitsFor::Suspension => {
                    "; waits until Damoov accepts RefreshTokens again (login_suspended)".to_owned()
                }
                WaitsFor::Api => "; waits for Damoov's Auth endpoints".to_owned(),
                WaitsFor::Store => "; waits for the store".to_owned(),
            });
        }
        if let Some(left) = self.left() {
            text.push_str(&format!("; at most {} left", rough(left)));
        }
        text
    }

    /// How long the rest takes if each line of it needs a login, and nobody else logs in.
    fn left(&self) -> Option<Duration> {
        let budget = self.budget.borrow();
        let (budget, said) = budget.as_ref()?;
        let lines = self.lines?.saturating_sub(self.counts().all());
        let left = duration::of_logins(lines, budget);
        Some(left.saturating_sub(said.elapsed()))
    }
}

impl Counts {
    /// Lines that are done.
    pub(super) fn all(&self) -> u64 {
        self.logged_in + self.had_a_pair + self.rejected + self.bad + self.failed
    }
}

/// As `logged in 12, had a pair 500, rejected 1, bad 0, failed 0`.
impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counts {
            logged_in,
            had_a_pair,
            rejected,
            bad,
            failed,
        } = self;
        write!(
            f,
            "logged in {logged_in}, had a pair {had_a_pair}, rejected {rejected}, bad {bad}, failed {failed}"
        )
    }
}

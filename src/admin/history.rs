//! What happened in the last hour, step by step, so that somebody who opens the dashboard late sees it. Pure.

use std::collections::VecDeque;

use serde::Serialize;

use super::time::at;
use crate::metrics::Totals;

/// Seconds that one step spans. Steps begin at multiples of it, by the wall clock.
pub(super) const STEP: u64 = 10;
/// Steps that are kept: an hour.
pub(super) const STEPS: usize = 360;

/// The steps of the last hour.
#[derive(Debug)]
pub(super) struct History {
    /// The newest last; always [`STEPS`].
    steps: VecDeque<Totals>,
    /// The number of the step under way, counted from the epoch.
    under_way: u64,
    /// What there was when it began.
    at_its_beginning: Totals,
}

/// Some of the newest steps, one list for each number, the newest last.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Shown {
    step_seconds: u64,
    steps: usize,
    /// When the newest one ended.
    end: String,
    requests: Vec<u64>,
    failed: Vec<u64>,
    refreshes: Vec<u64>,
    logins: Vec<u64>,
    renewals_failed: Vec<u64>,
}

impl History {
    /// Nothing happened yet. `now`: seconds since the epoch.
    pub(super) fn new(now: u64) -> History {
        History {
            steps: [Totals::default(); STEPS].into(),
            under_way: now / STEP,
            at_its_beginning: Totals::default(),
        }
    }

    /// Ends the steps that are over; `totals` is what has happened since the process began. Steps in which
    /// the machine slept are empty. If the clock went back, the step under way ends as well, and the next one
    /// is that of the new time.
    pub(super) fn note(&mut self, now: u64, totals: Totals) {
        let step = now / STEP;
        if step == self.under_way {
            return;
        }
        self.push(totals.since(&self.at_its_beginning));
        let slept = step.saturating_sub(self.under_way + 1).min(STEPS as u64);
        for _ in 0..slept {
            self.push(Totals::default());
        }
        self.under_way = step;
        self.at_its_beginning = totals;
    }

    fn push(&mut self, step: Totals) {
        self.steps.pop_front();
        self.steps.push_back(step);
    }

    /// Requests that failed lately: in the last minute that is over, and in the step under way if `totals`
    /// is what there is now.
    pub(super) fn failed_lately(&self, totals: Totals) -> u64 {
        let steps = self.steps.iter().rev().take(6);
        let over: u64 = steps.map(|step| step.failed).sum();
        over + totals.since(&self.at_its_beginning).failed
    }

    /// The newest `count` steps that are over.
    pub(super) fn newest(&self, count: usize) -> Shown {
        let skipped = STEPS - count.min(STEPS);
        let each = |of: fn(&Totals) -> u64| self.steps.iter().skip(skipped).map(of).collect();
        Shown {
            step_seconds: STEP,
            steps: STEPS - skipped,
            end: at(self.under_way * STEP),
            requests: each(|step| step.requests),
            failed: each(|step| step.failed),
            refreshes: each(|step| step.refreshes),
            logins: each(|step| step.logins),
            renewals_failed: each(|step| step.renewals_failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(requests: u64) -> Totals {
        Totals {
            requests,
            failed: requests / 2,
            ..Totals::default()
        }
    }

    #[test]
    fn an_hour_of_steps_is_kept_and_each_holds_what_happened_in_it() {
        let mut history = History::new(1_000);
        for second in 1_001..=1_000 + 2 * 3_600 {
            history.note(second, requests(second - 1_000));
        }
        let shown = history.newest(STEPS);
        assert_eq!(shown.steps, 360);
        assert_eq!(shown.requests, [10; 360]);
        assert_eq!(shown.failed, [5; 360]);
        assert_eq!(shown.end, "1970-01-01T02:16:40Z");
        assert_eq!(history.newest(1).requests, [10]);
    }

    #[test]
    fn steps_that_the_machine_slept_through_are_empty() {
        let mut history = History::new(0);
        history.note(10, requests(7));
        history.note(45, requests(8));
        let shown = history.newest(5);
        assert_eq!(shown.requests, [0, 7, 1, 0, 0]);
        assert_eq!(shown.end, "1970-01-01T00:00:40Z");
        history.note(u64::MAX / 2, requests(8));
        assert_eq!(history.newest(STEPS).requests, [0; STEPS]);
    }

    #[test]
    fn a_clock_that_goes_back_ends_one_step() {
        let mut history = History::new(1_000);
        history.note(10, requests(3));
        assert_eq!(history.newest(2).requests, [0, 3]);
        history.note(15, requests(4));
        history.note(20, requests(5));
        assert_eq!(history.newest(2).requests, [3, 2], "it goes on from there");
    }

    #[test]
    fn what_failed_lately_is_of_the_last_minute_and_the_step_under_way() {
        let mut history = History::new(0);
        history.note(10, requests(100));
        for step in 2..=6 {
            history.note(step * 10, requests(100));
        }
        assert_eq!(history.failed_lately(requests(104)), 52);
        history.note(70, requests(104));
        assert_eq!(history.failed_lately(requests(104)), 2);
    }
}

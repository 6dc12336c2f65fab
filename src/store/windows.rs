//! The arithmetic of the login budget: sliding windows, reserve, block and halving. Pure: an engine
//! loads a group's [`History`], asks it, and makes what changed durable.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::store::{Class, LoginBudget, LoginWindow, LoginWindows, Slot};

/// What a store remembers of one group's logins. The default: none yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// When slots were taken, ascending; none older than the largest window at the last take.
    pub taken: Vec<Timestamp>,
    /// No login at all before this.
    pub blocked_until: Option<Timestamp>,
    /// All windows are halved before this.
    pub halved_until: Option<Timestamp>,
}

impl History {
    /// Takes a slot if every window has one for `class`. Changes the history even where it has
    /// none, so it is to be stored either way.
    pub fn take(&mut self, class: Class, windows: &LoginWindows, now: Timestamp) -> Slot {
        self.settle(windows, now);
        let slot = self.slot(class, windows, now);
        if slot == Slot::Taken {
            self.taken.push(now);
        }
        slot
    }

    /// Counts a slot that was taken at `taken` from `ended` on, when its login was answered.
    pub fn end(&mut self, taken: Timestamp, ended: Timestamp) {
        if let Some(found) = self.taken.iter().position(|at| *at == taken) {
            self.taken[found] = ended.max(taken);
            self.taken.sort_unstable();
        }
    }

    /// Blocks and halves. Neither end is ever brought forward.
    pub fn block(&mut self, blocked_until: Timestamp, halved_until: Option<Timestamp>) {
        self.blocked_until = self.blocked_until.max(Some(blocked_until));
        self.halved_until = self.halved_until.max(halved_until);
    }

    /// The state at `now`.
    pub fn budget(&self, windows: &LoginWindows, now: Timestamp) -> LoginBudget {
        let mut settled = self.clone();
        settled.settle(windows, now);
        let blocked_until = self.blocked_until.filter(|until| *until > now);
        let halved_until = self.halved_until.filter(|until| *until > now);
        let remaining = windows.windows.iter().map(|window| {
            let limit = limit(window, halved_until.is_some());
            limit.saturating_sub(settled.inside(window, now).len())
        });
        let remaining = match blocked_until {
            Some(_) => 0,
            None => remaining.min().unwrap_or(0),
        };
        let limits = windows.windows.iter();
        let limits = limits.map(|window| limit(window, halved_until.is_some()));
        LoginBudget {
            limit: u32::try_from(limits.min().unwrap_or(0)).unwrap_or(u32::MAX),
            next: match settled.slot(Class::Known, windows, now) {
                Slot::Taken => None,
                Slot::Wait { until, .. } => Some(until),
            },
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            blocked_until,
            halved_until,
        }
    }

    /// A slot taken in the future was taken before the clock jumped back: at `now` at the latest.
    /// Counting it from `now` on frees it neither early nor years late.
    fn settle(&mut self, windows: &LoginWindows, now: Timestamp) {
        for at in &mut self.taken {
            *at = (*at).min(now);
        }
        let largest = windows.windows.iter().map(|window| window.per).max();
        self.taken
            .retain(|at| at.plus(largest.unwrap_or(Duration::ZERO)) > now);
    }

    fn slot(&self, class: Class, windows: &LoginWindows, now: Timestamp) -> Slot {
        if let Some(until) = self.blocked_until.filter(|until| *until > now) {
            return Slot::Wait {
                until,
                blocked: true,
            };
        }
        let halved_until = self.halved_until.filter(|until| *until > now);
        let Some(mut until) = self.full_until(class, windows, halved_until.is_some(), now) else {
            return Slot::Taken;
        };
        if let Some(halved_until) = halved_until {
            // The end of the halving may free a slot before a halved window does.
            let whole = self.full_until(class, windows, false, now);
            until = until.min(halved_until.max(whole.unwrap_or(now)));
        }
        Slot::Wait {
            until,
            blocked: false,
        }
    }

    /// When every window will have a slot for `class`; none when all have one now.
    fn full_until(
        &self,
        class: Class,
        windows: &LoginWindows,
        halved: bool,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let full_until = |window: &LoginWindow| {
            let limit = limit(window, halved);
            // One slot is always left to newcomers, who would otherwise wait for ever.
            let usable = match class {
                Class::Known => limit,
                Class::New => limit - (windows.reserve as usize).min(limit - 1),
            };
            let inside = self.inside(window, now);
            let excess = inside.len().checked_sub(usable)?;
            Some(inside[excess].plus(window.per))
        };
        windows.windows.iter().filter_map(full_until).max()
    }

    /// The slots taken within `window` before `now`.
    fn inside(&self, window: &LoginWindow, now: Timestamp) -> &[Timestamp] {
        let first = self.taken.partition_point(|at| at.plus(window.per) <= now);
        &self.taken[first..]
    }
}

/// How many logins `window` allows: at least 1.
fn limit(window: &LoginWindow, halved: bool) -> usize {
    let logins = if halved {
        window.logins / 2
    } else {
        window.logins
    };
    logins.max(1) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn windows(windows: &[(u32, u32)], reserve: u32) -> LoginWindows {
        let window = |&(logins, per)| LoginWindow {
            logins,
            per: SECOND * per,
        };
        LoginWindows {
            group: "default".into(),
            windows: windows.iter().map(window).collect(),
            reserve,
        }
    }

    fn wait(seconds: i64) -> Slot {
        Slot::Wait {
            until: at(seconds),
            blocked: false,
        }
    }

    #[test]
    fn a_slot_comes_back_when_its_window_has_slid_past_it() {
        let (mut history, windows) = (History::default(), windows(&[(2, 60)], 0));
        assert_eq!(history.take(Class::Known, &windows, at(0)), Slot::Taken);
        assert_eq!(history.take(Class::Known, &windows, at(10)), Slot::Taken);
        assert_eq!(history.take(Class::Known, &windows, at(59)), wait(60));
        assert_eq!(history.take(Class::Known, &windows, at(60)), Slot::Taken);
        assert_eq!(history.take(Class::Known, &windows, at(61)), wait(70));
    }

    #[test]
    fn all_windows_must_allow_a_login() {
        let (mut history, windows) = (History::default(), windows(&[(2, 10), (3, 100)], 0));
        for now in [0, 1, 11] {
            assert_eq!(history.take(Class::Known, &windows, at(now)), Slot::Taken);
        }
        assert_eq!(history.take(Class::Known, &windows, at(30)), wait(100));
    }

    #[test]
    fn newcomers_leave_the_reserve_of_every_window_alone() {
        let (mut history, windows) = (History::default(), windows(&[(3, 60)], 1));
        assert_eq!(history.take(Class::New, &windows, at(0)), Slot::Taken);
        assert_eq!(history.take(Class::New, &windows, at(1)), Slot::Taken);
        assert_eq!(history.take(Class::New, &windows, at(2)), wait(60));
        assert_eq!(history.take(Class::Known, &windows, at(2)), Slot::Taken);
        assert_eq!(history.take(Class::Known, &windows, at(3)), wait(60));
        // Two of three slots must be free before a newcomer leaves one.
        assert_eq!(history.take(Class::New, &windows, at(3)), wait(61));
    }

    #[test]
    fn a_reserve_as_large_as_the_window_leaves_newcomers_one_slot() {
        let (mut history, windows) = (History::default(), windows(&[(1, 60)], 5));
        assert_eq!(history.take(Class::New, &windows, at(0)), Slot::Taken);
        assert_eq!(history.take(Class::New, &windows, at(1)), wait(60));
    }

    #[test]
    fn a_block_stands_whatever_the_windows_say_and_is_never_brought_forward() {
        let (mut history, windows) = (History::default(), windows(&[(4, 60)], 0));
        history.block(at(500), None);
        history.block(at(100), None);
        let blocked = Slot::Wait {
            until: at(500),
            blocked: true,
        };
        assert_eq!(history.take(Class::Known, &windows, at(499)), blocked);
        assert_eq!(history.budget(&windows, at(499)).remaining, 0);
        assert_eq!(history.take(Class::Known, &windows, at(500)), Slot::Taken);
    }

    #[test]
    fn halved_windows_allow_half_but_one_at_least() {
        let (mut history, windows) = (History::default(), windows(&[(5, 60), (1, 10)], 3));
        history.block(at(0), Some(at(30)));
        assert_eq!(history.budget(&windows, at(0)).remaining, 1);
        assert_eq!(history.take(Class::New, &windows, at(0)), Slot::Taken);
        assert_eq!(history.take(Class::Known, &windows, at(10)), Slot::Taken);
        // The whole windows would allow a third once the halving ends, long before second 60.
        assert_eq!(history.take(Class::Known, &windows, at(20)), wait(30));
        assert_eq!(history.budget(&windows, at(30)).halved_until, None);
        assert_eq!(history.take(Class::Known, &windows, at(30)), Slot::Taken);
    }

    #[test]
    fn a_clock_that_jumped_years_ahead_and_back_blocks_for_one_window_only() {
        let (mut history, windows) = (History::default(), windows(&[(1, 60)], 0));
        let year = 365 * 86_400;
        assert_eq!(history.take(Class::Known, &windows, at(year)), Slot::Taken);
        assert_eq!(history.take(Class::Known, &windows, at(5)), wait(65));
        assert_eq!(history.take(Class::Known, &windows, at(65)), Slot::Taken);
    }

    #[derive(Clone, Debug)]
    struct Step {
        /// Seconds that really pass.
        passes: i64,
        /// Seconds that the wall clock jumps back.
        jump: i64,
        class: Class,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let jump = prop_oneof![8 => Just(0), 1 => 0..5i64, 1 => 0..100_000i64];
        let class = prop_oneof![Just(Class::Known), Just(Class::New)];
        let step = (0..20i64, jump, class).prop_map(|(passes, jump, class)| Step {
            passes,
            jump,
            class,
        });
        prop::collection::vec(step, 1..120)
    }

    proptest! {
        #[test]
        fn no_sliding_window_is_ever_exceeded_even_if_the_clock_jumps_back(
            steps in steps(),
            limits in prop::collection::vec((1..6u32, 1..90u32), 1..4),
            reserve in 0..3u32,
        ) {
            let windows = windows(&limits, reserve);
            let mut history = History::default();
            let (mut real, mut offset) = (0, 1_000_000);
            let mut logins = Vec::new();
            for step in steps {
                real += step.passes;
                offset -= step.jump;
                let now = at(real + offset);
                let before = history.clone();
                match history.take(step.class, &windows, now) {
                    Slot::Taken => logins.push(real),
                    Slot::Wait { until, .. } => {
                        // The wait is honest: not a millisecond too long or too short.
                        prop_assert!(until > now);
                        let early = until.minus(Duration::from_millis(1));
                        prop_assert_ne!(history.clone().take(step.class, &windows, early), Slot::Taken);
                        prop_assert_eq!(history.clone().take(step.class, &windows, until), Slot::Taken);
                    }
                }
                let budget = before.budget(&windows, now);
                let mut taken = 0;
                let mut all = before;
                while all.take(Class::Known, &windows, now) == Slot::Taken {
                    taken += 1;
                }
                prop_assert_eq!(budget.remaining, taken);
            }
            for (limit, per) in limits {
                for first in &logins {
                    let span = *first..first + i64::from(per);
                    let inside = logins.iter().filter(|at| span.contains(at)).count();
                    prop_assert!(inside <= limit as usize, "{inside} logins in {per} s");
                }
            }
        }
    }
}

//! The guard against a broken deploy of the API: when RefreshTokens of many principals are rejected
//! at once, it is the API that is wrong, not they. Then logins of those who hold a pair are
//! suspended, and once a minute it is tried whether the API works again.
//!
//! A principal that logged in since then is a witness: its RefreshToken is new, so that a rejection
//! of it speaks against the API, and costs no login. Without a witness one of those who wait logs in.

use std::collections::{HashSet, VecDeque};
use std::sync::Mutex;

use crate::principal::Principal;

/// So many distinct principals in a row make a mass rejection.
const MANY: usize = 5;
/// So many probes in a row that log in prove that the pairs really were dead.
const PROVEN: u32 = 5;
/// Beside witnesses, every so many probes one is a login all the same: a witness may have been
/// logged in by somebody else.
const DOUBT: u32 = 60;

/// Counts rejections and, once there are many, holds logins back.
#[derive(Debug)]
pub(super) struct MassRejection {
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Nothing is wrong.
    Counting {
        /// The distinct principals whose refresh was rejected since one last succeeded.
        rejected: Vec<Principal>,
        /// Those of them that have logged in since.
        witnesses: VecDeque<Principal>,
    },
    /// Logins of those who hold a pair wait.
    Suspended {
        /// Who was rejected and wants to be probed, in rotation.
        waiting: VecDeque<Principal>,
        /// The same as a set.
        is_waiting: HashSet<Principal>,
        /// Who logged in since the rejections began, in rotation.
        witnesses: VecDeque<Principal>,
        /// Probes so far.
        probes: u32,
        /// Probes in a row that logged in.
        logged_in: u32,
    },
}

/// What a rejection means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This RefreshToken is dead.
    Dead,
    /// The API is broken, as of now. The notes on these principals are to be withdrawn.
    Broken(Vec<Principal>),
    /// The API was broken already.
    StillBroken,
}

/// How it is tried whether the API works again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// Refresh this principal's pair, which is new; do not log it in.
    Refresh(Principal),
    /// Refresh this principal's pair, and log it in if that is rejected.
    LogIn(Principal),
}

impl State {
    fn calm() -> State {
        State::Counting {
            rejected: Vec::new(),
            witnesses: VecDeque::new(),
        }
    }

    /// Remembers who wants to be probed. A witness needs not.
    fn enqueue(&mut self, principal: &Principal) {
        if let State::Suspended {
            waiting,
            is_waiting,
            witnesses,
            ..
        } = self
            && !witnesses.contains(principal)
            && is_waiting.insert(principal.clone())
        {
            waiting.push_back(principal.clone());
        }
    }
}

impl MassRejection {
    pub(super) fn new() -> MassRejection {
        MassRejection {
            state: Mutex::new(State::calm()),
        }
    }

    /// A refresh succeeded: true when this ends a suspension.
    pub(super) fn refreshed(&self) -> bool {
        let before = std::mem::replace(&mut *self.lock(), State::calm());
        matches!(before, State::Suspended { .. })
    }

    /// A refresh of `principal` was definitely rejected. Only `counted` ones (not preceded by a
    /// lost answer or a crash) make a mass rejection.
    pub(super) fn rejected(&self, principal: &Principal, counted: bool) -> Verdict {
        let mut state = self.lock();
        match &mut *state {
            State::Suspended { .. } => {
                state.enqueue(principal);
                Verdict::StillBroken
            }
            State::Counting {
                rejected,
                witnesses,
            } => {
                if counted && !rejected.contains(principal) {
                    rejected.push(principal.clone());
                }
                if rejected.len() < MANY {
                    return Verdict::Dead;
                }
                let (rejected, witnesses) = (std::mem::take(rejected), std::mem::take(witnesses));
                *state = State::Suspended {
                    waiting: VecDeque::new(),
                    is_waiting: HashSet::new(),
                    witnesses,
                    probes: 0,
                    logged_in: 0,
                };
                state.enqueue(principal);
                Verdict::Broken(rejected)
            }
        }
    }

    /// `principal` logged in: its RefreshToken is new.
    pub(super) fn logged_in(&self, principal: &Principal) {
        let mut state = self.lock();
        let witnesses = match &mut *state {
            State::Counting { rejected, .. } if !rejected.contains(principal) => return,
            State::Counting { witnesses, .. } => witnesses,
            State::Suspended {
                waiting,
                is_waiting,
                witnesses,
                ..
            } => {
                if is_waiting.remove(principal) {
                    waiting.retain(|waits| waits != principal);
                }
                witnesses
            }
        };
        if !witnesses.contains(principal) {
            witnesses.push_back(principal.clone());
        }
    }

    /// Whether logins of those who hold a pair, as `principal` does, are suspended; if so it will
    /// be probed in its turn.
    pub(super) fn hold(&self, principal: &Principal) -> bool {
        let mut state = self.lock();
        state.enqueue(principal);
        matches!(*state, State::Suspended { .. })
    }

    /// Whether `principal` was rejected during this suspension: no need to ask again before its
    /// probe.
    pub(super) fn is_waiting(&self, principal: &Principal) -> bool {
        match &*self.lock() {
            State::Counting { .. } => false,
            State::Suspended { is_waiting, .. } => is_waiting.contains(principal),
        }
    }

    /// What to try next.
    pub(super) fn next_probe(&self) -> Option<Probe> {
        let mut state = self.lock();
        let State::Suspended {
            waiting,
            is_waiting,
            witnesses,
            probes,
            ..
        } = &mut *state
        else {
            return None;
        };
        *probes += 1;
        if *probes % DOUBT != 0
            && let Some(witness) = witnesses.pop_front()
        {
            witnesses.push_back(witness.clone());
            return Some(Probe::Refresh(witness));
        }
        let next = waiting.pop_front()?;
        is_waiting.remove(&next);
        Some(Probe::LogIn(next))
    }

    /// A probe's refresh was rejected and it logged in, or did not: true when this ends the
    /// suspension.
    pub(super) fn probe_ended(&self, success: bool) -> bool {
        let mut state = self.lock();
        let State::Suspended { logged_in, .. } = &mut *state else {
            return false;
        };
        *logged_in = if success { *logged_in + 1 } else { 0 };
        let proven = *logged_in >= PROVEN;
        if proven {
            *state = State::calm();
        }
        proven
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no code panics under this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(number: usize) -> Principal {
        Principal::Account(number.to_string().into())
    }

    fn broken() -> MassRejection {
        let guard = MassRejection::new();
        for number in 0..4 {
            assert_eq!(guard.rejected(&principal(number), true), Verdict::Dead);
        }
        let all = (0..5).map(principal).collect();
        assert_eq!(guard.rejected(&principal(4), true), Verdict::Broken(all));
        guard
    }

    #[test]
    fn the_fifth_distinct_principal_makes_a_mass_rejection() {
        let guard = broken();
        assert!(guard.hold(&principal(4)));
        assert_eq!(guard.rejected(&principal(9), true), Verdict::StillBroken);
    }

    #[test]
    fn the_same_principal_counts_once_and_a_lost_answer_not_at_all() {
        let guard = MassRejection::new();
        for _ in 0..20 {
            assert_eq!(guard.rejected(&principal(1), true), Verdict::Dead);
        }
        for number in 2..20 {
            assert_eq!(guard.rejected(&principal(number), false), Verdict::Dead);
        }
        assert!(!guard.hold(&principal(4)));
    }

    #[test]
    fn a_successful_refresh_resets_the_count_and_ends_a_suspension() {
        let guard = MassRejection::new();
        for number in 0..4 {
            guard.rejected(&principal(number), true);
        }
        assert!(!guard.refreshed());
        assert_eq!(guard.rejected(&principal(4), true), Verdict::Dead);

        let guard = broken();
        assert!(guard.refreshed());
        assert!(!guard.hold(&principal(4)));
    }

    #[test]
    fn probes_come_in_rotation_and_five_that_log_in_end_it() {
        let guard = broken();
        guard.rejected(&principal(7), true);
        guard.rejected(&principal(7), true);
        assert_eq!(guard.next_probe(), Some(Probe::LogIn(principal(4))));
        assert!(!guard.is_waiting(&principal(4)));
        assert_eq!(guard.next_probe(), Some(Probe::LogIn(principal(7))));
        assert_eq!(guard.next_probe(), None);

        for logged_in in [true, true, true, true, false, true, true, true, true] {
            assert!(!guard.probe_ended(logged_in));
        }
        assert!(guard.probe_ended(true));
        assert!(!guard.hold(&principal(4)));
    }

    #[test]
    fn with_a_witness_a_probe_costs_a_login_once_in_a_while_only() {
        let guard = MassRejection::new();
        guard.rejected(&principal(0), true);
        guard.logged_in(&principal(0));
        guard.logged_in(&principal(99));
        for number in 1..5 {
            guard.rejected(&principal(number), true);
        }
        for probe in 1..60 {
            assert_eq!(
                guard.next_probe(),
                Some(Probe::Refresh(principal(0))),
                "{probe}"
            );
            assert_eq!(guard.rejected(&principal(0), true), Verdict::StillBroken);
            assert!(!guard.is_waiting(&principal(0)));
        }
        assert_eq!(guard.next_probe(), Some(Probe::LogIn(principal(4))));
    }

    #[test]
    fn a_probe_that_was_rejected_and_logged_in_is_a_witness_and_waits_no_more() {
        let guard = broken();
        assert_eq!(guard.next_probe(), Some(Probe::LogIn(principal(4))));
        assert_eq!(guard.rejected(&principal(4), true), Verdict::StillBroken);
        guard.logged_in(&principal(4));
        assert!(!guard.is_waiting(&principal(4)));
        for _ in 2..DOUBT {
            assert_eq!(guard.next_probe(), Some(Probe::Refresh(principal(4))));
        }
        assert_eq!(guard.next_probe(), None);
    }

    #[test]
    fn a_witness_that_logs_in_again_is_one_witness() {
        let guard = MassRejection::new();
        for _ in 0..3 {
            guard.rejected(&principal(0), true);
            guard.logged_in(&principal(0));
        }
        guard.rejected(&principal(1), true);
        guard.logged_in(&principal(1));
        for number in 2..5 {
            guard.rejected(&principal(number), true);
        }
        for witness in [0, 1, 0, 1] {
            assert_eq!(guard.next_probe(), Some(Probe::Refresh(principal(witness))));
        }
    }
}

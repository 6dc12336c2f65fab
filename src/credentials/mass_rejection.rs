//! The guard against a broken deploy of the API: when RefreshTokens of many principals are rejected
//! at once, it is the API that is wrong, not they. Then logins of those who hold a pair are
//! suspended, and one of them is probed a minute (design.md, "Mass rejection").

use std::collections::{HashSet, VecDeque};
use std::sync::Mutex;

use crate::principal::Principal;

/// So many distinct principals in a row make a mass rejection.
const MANY: usize = 5;
/// So many probes in a row that log in prove that the pairs really were dead.
const PROVEN: u32 = 5;

/// Counts rejections and, once there are many, holds logins back.
#[derive(Debug)]
pub(super) struct MassRejection {
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// The distinct principals whose refresh was rejected since one last succeeded.
    Counting(Vec<Principal>),
    /// Logins of those who hold a pair wait.
    Suspended {
        /// Who was rejected and wants to be probed, in rotation.
        waiting: VecDeque<Principal>,
        /// The same as a set.
        is_waiting: HashSet<Principal>,
        /// Probes in a row that logged in.
        probed: u32,
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

impl MassRejection {
    pub(super) fn new() -> MassRejection {
        MassRejection {
            state: Mutex::new(State::Counting(Vec::new())),
        }
    }

    /// A refresh succeeded: true when this ends a suspension.
    pub(super) fn refreshed(&self) -> bool {
        let mut state = self.lock();
        let ended = matches!(*state, State::Suspended { .. });
        *state = State::Counting(Vec::new());
        ended
    }

    /// A refresh of `principal` was definitely rejected. Only `counted` ones (not preceded by a
    /// lost answer or a crash) make a mass rejection.
    pub(super) fn rejected(&self, principal: &Principal, counted: bool) -> Verdict {
        let mut state = self.lock();
        match &mut *state {
            State::Suspended { .. } => {
                enqueue(&mut state, principal);
                Verdict::StillBroken
            }
            State::Counting(principals) => {
                if counted && !principals.contains(principal) {
                    principals.push(principal.clone());
                }
                if principals.len() < MANY {
                    return Verdict::Dead;
                }
                let principals = std::mem::take(principals);
                *state = State::Suspended {
                    waiting: VecDeque::new(),
                    is_waiting: HashSet::new(),
                    probed: 0,
                };
                enqueue(&mut state, principal);
                Verdict::Broken(principals)
            }
        }
    }

    /// Whether logins of those who hold a pair, as `principal` does, are suspended; if so it will
    /// be probed in its turn.
    pub(super) fn hold(&self, principal: &Principal) -> bool {
        let mut state = self.lock();
        enqueue(&mut state, principal);
        matches!(*state, State::Suspended { .. })
    }

    /// Whether `principal` was rejected during this suspension: no need to ask again before its
    /// probe.
    pub(super) fn is_waiting(&self, principal: &Principal) -> bool {
        match &*self.lock() {
            State::Counting(_) => false,
            State::Suspended { is_waiting, .. } => is_waiting.contains(principal),
        }
    }

    /// Who is probed next; it may log in once.
    pub(super) fn next_probe(&self) -> Option<Principal> {
        match &mut *self.lock() {
            State::Counting(_) => None,
            State::Suspended {
                waiting,
                is_waiting,
                ..
            } => {
                let next = waiting.pop_front()?;
                is_waiting.remove(&next);
                Some(next)
            }
        }
    }

    /// A probe's refresh was rejected and it logged in, or did not: true when this ends the
    /// suspension.
    pub(super) fn probe_ended(&self, logged_in: bool) -> bool {
        let mut state = self.lock();
        let State::Suspended { probed, .. } = &mut *state else {
            return false;
        };
        *probed = if logged_in { *probed + 1 } else { 0 };
        let proven = *probed >= PROVEN;
        if proven {
            *state = State::Counting(Vec::new());
        }
        proven
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no code panics under this lock")
    }
}

fn enqueue(state: &mut State, principal: &Principal) {
    if let State::Suspended {
        waiting,
        is_waiting,
        ..
    } = state
        && is_waiting.insert(principal.clone())
    {
        waiting.push_back(principal.clone());
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
        assert_eq!(guard.next_probe(), Some(principal(4)));
        assert!(!guard.is_waiting(&principal(4)));
        assert_eq!(guard.next_probe(), Some(principal(7)));
        assert_eq!(guard.next_probe(), None);

        for logged_in in [true, true, true, true, false, true, true, true, true] {
            assert!(!guard.probe_ended(logged_in));
        }
        assert!(guard.probe_ended(true));
        assert!(!guard.hold(&principal(4)));
    }
}

//! The back-off of each principal: after one of its calls failed, its next one waits. Calls of other
//! principals do not.

use std::time::Duration;

use moka::sync::Cache;

use super::Standing;
use crate::clock::{Clock, Moment};
use crate::credentials::Error;
use crate::principal::Principal;

/// Principals remembered; beyond it some are forgotten early.
const MOST: u64 = 65_536;

/// How the rests of a principal grow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps {
    first: Duration,
    factor: u32,
    longest: Duration,
}

/// Refreshes are free: three tries are 1 s and 2 s apart.
pub(crate) const REFRESH: Steps = Steps {
    first: Duration::from_secs(1),
    factor: 2,
    longest: Duration::from_secs(30),
};
/// Each login costs a slot: one principal takes no more than two in a minute.
pub(crate) const LOGIN: Steps = Steps {
    first: Duration::from_secs(15),
    factor: 4,
    longest: Duration::from_secs(600),
};

/// The back-off of each principal.
#[derive(Debug)]
pub(crate) struct OwnBackoff {
    rests: Cache<Principal, Rest>,
    steps: Steps,
    clock: Clock,
}

/// One principal's.
#[derive(Clone, Debug)]
pub(crate) struct Rest {
    /// Calls that failed since one was answered.
    failures: u32,
    /// No call before.
    pub(crate) until: Moment,
    /// What the last one failed with.
    pub(crate) error: Error,
}

impl OwnBackoff {
    pub(crate) fn new(steps: Steps, clock: Clock) -> OwnBackoff {
        let remembered = clock.to_real(steps.longest.saturating_mul(2));
        OwnBackoff {
            rests: Cache::builder()
                .max_capacity(MOST)
                .time_to_live(remembered)
                .build(),
            steps,
            clock,
        }
    }

    /// The rest of `principal`, unless it is over.
    pub(crate) fn rest(&self, principal: &Principal) -> Option<Rest> {
        let rest = self.rests.get(principal)?;
        (rest.until > self.clock.now()).then_some(rest)
    }

    /// What its last calls say of `principal`.
    pub(crate) fn standing(&self, principal: &Principal) -> Standing {
        match self.rests.contains_key(principal) {
            true => Standing::Failing,
            false => Standing::Good,
        }
    }

    /// A call of `principal` failed.
    pub(crate) fn failed(&self, principal: &Principal, error: Error) {
        let failures = self.rests.get(principal).map_or(0, |rest| rest.failures);
        let Steps {
            first,
            factor,
            longest,
        } = self.steps;
        let rest = first.saturating_mul(factor.saturating_pow(failures));
        // Up to a tenth later, so that principals that failed together do not call together.
        let late = 1.0 + fastrand::f64() / 10.0;
        let rest = Rest {
            failures: failures.saturating_add(1),
            until: self.clock.now().plus(rest.min(longest).mul_f64(late)),
            error,
        };
        self.rests.insert(principal.clone(), rest);
    }

    /// A call of `principal` was answered.
    pub(crate) fn answered(&self, principal: &Principal) {
        if self.rests.contains_key(principal) {
            self.rests.invalidate(principal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_principal_rests_longer_each_time_and_nobody_else_does() {
        let clock = Clock::real();
        let backoff = OwnBackoff::new(LOGIN, clock);
        let who = |name: &str| Principal::Account(name.into());
        for seconds in [15, 60, 240, 600, 600] {
            backoff.failed(&who("a"), Error::BadResponse);
            let rest = backoff.rest(&who("a")).unwrap();
            let left = rest.until.since(clock.now()).as_secs();
            assert!((seconds..=seconds * 11 / 10).contains(&left), "{left}");
            assert_eq!(rest.error, Error::BadResponse);
            assert!(backoff.rest(&who("b")).is_none());
            clock.sleep_until(rest.until).await;
            assert!(backoff.rest(&who("a")).is_none());
        }
        backoff.answered(&who("a"));
        backoff.failed(&who("a"), Error::Timeout);
        let left = backoff.rest(&who("a")).unwrap().until.since(clock.now());
        assert!(left < Duration::from_secs(17));
    }
}

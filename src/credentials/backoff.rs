//! Patience with the host of the Auth endpoints: after a transient failure nobody calls it for a
//! while, and all who want to share that wait.

use std::sync::Mutex;
use std::time::Duration;

use crate::clock::{Clock, Moment};

/// The first wait; it doubles with each failure: three tries are 1 s and 2 s apart.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait that doubling leads to.
const LONGEST: Duration = Duration::from_secs(30);

/// The back-off of one host.
#[derive(Debug)]
pub(super) struct Backoff {
    state: Mutex<State>,
    clock: Clock,
}

#[derive(Debug)]
struct State {
    failures: u32,
    until: Moment,
}

impl Backoff {
    pub(super) fn new(clock: Clock) -> Backoff {
        Backoff {
            state: Mutex::new(State {
                failures: 0,
                until: clock.now(),
            }),
            clock,
        }
    }

    /// When the host may be called again; in the past when it may be now.
    pub(super) fn until(&self) -> Moment {
        self.state
            .lock()
            .expect("no code panics under this lock")
            .until
    }

    /// The host answered.
    pub(super) fn succeeded(&self) {
        self.state
            .lock()
            .expect("no code panics under this lock")
            .failures = 0;
    }

    /// A call failed; `retry_after` where the host said how long. Calls that were under way
    /// together count as one failure.
    pub(super) fn failed(&self, retry_after: Option<Duration>) {
        let now = self.clock.now();
        let mut state = self.state.lock().expect("no code panics under this lock");
        if now >= state.until {
            let doubled = FIRST
                .saturating_mul(1 << state.failures.min(10))
                .min(LONGEST);
            state.failures += 1;
            state.until = now.plus(doubled);
        }
        if let Some(retry_after) = retry_after {
            state.until = state.until.max(now.plus(retry_after));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_a_limit_and_a_success_starts_over() {
        let clock = Clock::real();
        let backoff = Backoff::new(clock);
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            backoff.failed(None);
            backoff.failed(None);
            assert_eq!(
                backoff.until().since(clock.now()),
                Duration::from_secs(seconds)
            );
            clock.sleep_until(backoff.until()).await;
        }
        backoff.succeeded();
        backoff.failed(None);
        assert_eq!(backoff.until().since(clock.now()), FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_host_asks_for_is_kept() {
        let clock = Clock::real();
        let backoff = Backoff::new(clock);
        backoff.failed(Some(Duration::from_secs(100)));
        assert_eq!(backoff.until().since(clock.now()), Duration::from_secs(100));
    }
}

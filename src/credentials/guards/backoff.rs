//! The back-off of the host of the Auth endpoints.
//!
//! ```text
//!          the host fails                    the rest is over
//!   open ─────────────────▶ resting ────────────────────────▶ trying: one call goes first
//!     ▲                        ▲                                   │        │
//!     │                        └──────────── it fails: rests longer┘        │
//!     └────────── it is answered: the others follow, more each second ──────┘
//! ```
//!
//! A failure that may be one principal's alone is counted against that principal ([`own`]), and against
//! the host only if several principals in a row have it.

pub(crate) mod own;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::{Clock, Moment};
use crate::principal::Principal;

/// The first rest; it doubles with each failure: three tries are 1 s and 2 s apart.
const FIRST: Duration = Duration::from_secs(1);
/// The longest rest that doubling leads to: one call in this time is no burden for a sick host.
const LONGEST: Duration = Duration::from_secs(8);
/// The failures of this many distinct principals in a row are the host's.
const SEVERAL: usize = 3;
/// This many of the calls that were held up follow in the first second; the rate grows evenly.
const FOLLOW: f64 = 40.0;
/// A principal whose own calls fail waits this much longer before it goes first: it lets others try.
const ASIDE: Duration = Duration::from_millis(100);

/// The back-off of one host.
#[derive(Debug)]
pub(crate) struct Backoff {
    /// Changed by every call that ends. One lock, because phase, count and turns change together; never
    /// held while a call waits.
    state: Mutex<State>,
    /// Wakes the calls that wait, when the phase changed.
    changed: Notify,
    clock: Clock,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Rests since the host last answered.
    rests: u32,
    /// The principals whose calls failed since the host last answered: their hashes, each once.
    in_a_row: Vec<u64>,
    /// When the host last answered after a rest, and how many have followed since.
    reopened: Moment,
    followed: u32,
    /// Of the last call that went first.
    serial: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The host may be called.
    Open,
    /// The host is not called before `until`.
    Resting {
        until: Moment,
        /// The host itself said how long: not even a probe calls it.
        told: bool,
    },
    /// The call with this serial number goes first.
    Trying(u64),
}

/// Whose failure it is that a call brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It may be this principal's alone.
    Own,
    /// The host's: no call would have been answered. There is no connection, or the host says so, and
    /// perhaps for how long.
    Hosts(Option<Duration>),
}

/// What is known of a principal that wants to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    /// Its last calls failed, perhaps by its own fault: as the call that goes first it would tell little.
    Failing,
}

/// The host rests for longer than any caller is patient.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resting;

/// The right to make one call. End it with [`Permit::answered`] or [`Permit::failed`]; if it is dropped,
/// nothing is concluded about the host.
#[derive(Debug)]
#[must_use = "it is good for one call"]
pub(crate) struct Permit<'a> {
    backoff: &'a Backoff,
    /// Its serial number, if it goes first.
    first: Option<u64>,
}

impl Backoff {
    pub(crate) fn new(clock: Clock) -> Backoff {
        Backoff {
            state: Mutex::new(State {
                phase: Phase::Open,
                rests: 0,
                in_a_row: Vec::new(),
                reopened: clock.now(),
                followed: 0,
                serial: 0,
            }),
            changed: Notify::new(),
            clock,
        }
    }

    /// Waits until the host may be called, as long as `patience` allows, which is read again after each
    /// wait: it grows when others join.
    pub(crate) async fn pass(
        &self,
        standing: Standing,
        patience: impl Fn() -> Moment,
    ) -> Result<Permit<'_>, Resting> {
        let aside = match standing {
            Standing::Good => Duration::ZERO,
            Standing::Failing => ASIDE,
        };
        let mut was_held = false;
        let mut turn = None;
        loop {
            let changed = self.changed.notified();
            let now = self.clock.now();
            let until = {
                let mut state = self.lock();
                match state.phase {
                    Phase::Open if !was_held => return Ok(self.permit(None)),
                    Phase::Open => match *turn.get_or_insert_with(|| state.turn(now, patience())) {
                        turn if turn <= now => return Ok(self.permit(None)),
                        turn => turn,
                    },
                    Phase::Resting { until, .. } => match until.plus(aside) {
                        until if until <= now => {
                            return Ok(self.permit(Some(state.goes_first())));
                        }
                        until if until > patience() => return Err(Resting),
                        until => until,
                    },
                    Phase::Trying(_) => match patience() {
                        over if over <= now => return Err(Resting),
                        patience => patience,
                    },
                }
            };
            was_held = true;
            tokio::select! {
                () = self.clock.sleep_until(until) => {}
                () = changed => {}
            }
            if self.lock().phase != Phase::Open {
                turn = None;
            }
        }
    }

    /// The right to call the host at this very moment, if it may be called.
    pub(crate) fn pass_now(&self) -> Option<Permit<'_>> {
        let mut state = self.lock();
        match state.phase {
            Phase::Open => Some(self.permit(None)),
            Phase::Resting { until, .. } if until <= self.clock.now() => {
                Some(self.permit(Some(state.goes_first())))
            }
            Phase::Resting { .. } | Phase::Trying(_) => None,
        }
    }

    /// Whether nothing is known against the host.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().phase == Phase::Open
    }

    /// The right to call the host although it may rest: for a call that finds out whether it works.
    /// `None` if the host itself said how long to leave it alone.
    pub(crate) fn probe(&self) -> Option<Permit<'_>> {
        let mut state = self.lock();
        match state.phase {
            Phase::Open | Phase::Trying(_) => Some(self.permit(None)),
            Phase::Resting { until, told: true } if until > self.clock.now() => None,
            Phase::Resting { .. } => Some(self.permit(Some(state.goes_first()))),
        }
    }

    fn permit(&self, first: Option<u64>) -> Permit<'_> {
        Permit {
            backoff: self,
            first,
        }
    }

    fn answered(&self, first: Option<u64>) {
        let mut state = self.lock();
        state.in_a_row.clear();
        state.rests = 0;
        if first.is_some_and(|first| state.phase == Phase::Trying(first)) {
            state.phase = Phase::Open;
            state.reopened = self.clock.now();
            state.followed = 0;
            self.changed.notify_waiters();
        }
    }

    fn failed(&self, first: Option<u64>, who: &Principal, failure: Failure) {
        let now = self.clock.now();
        let mut state = self.lock();
        let before = state.phase;
        let is_first = first.is_some_and(|first| state.phase == Phase::Trying(first));
        let is_hosts = match failure {
            Failure::Hosts(_) => true,
            Failure::Own => state.several_failed(who),
        };
        // Calls that were under way together count as one failure.
        if is_first || is_hosts && state.phase == Phase::Open {
            let longer = FIRST.saturating_mul(1 << state.rests.min(10)).min(LONGEST);
            state.rests += 1;
            state.phase = Phase::Resting {
                until: now.plus(longer),
                told: false,
            };
        }
        if let Failure::Hosts(Some(told)) = failure {
            let told = now.plus(told);
            let until = match state.phase {
                Phase::Resting { until, .. } => until,
                Phase::Open | Phase::Trying(_) => now,
            };
            if told >= until {
                state.phase = Phase::Resting {
                    until: told,
                    told: true,
                };
            }
        }
        if state.phase != before {
            self.changed.notify_waiters();
        }
    }

    /// The call that went first was not made after all.
    fn abandoned(&self, first: u64) {
        let mut state = self.lock();
        if state.phase == Phase::Trying(first) {
            let until = self.clock.now();
            state.phase = Phase::Resting { until, told: false };
            self.changed.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics under this lock")
    }
}

impl State {
    /// The serial number of the call that goes first from now on.
    fn goes_first(&mut self) -> u64 {
        self.serial += 1;
        self.phase = Phase::Trying(self.serial);
        self.serial
    }

    /// When the next of the calls that were held up may be made: at a random time within its patience if
    /// its turn would come too late.
    fn turn(&mut self, now: Moment, patience: Moment) -> Moment {
        // The time after which that many calls have followed, at a rate that grows evenly.
        let ahead = f64::from(self.followed);
        let seconds = (1.0 + 2.0 * ahead / FOLLOW).sqrt() - 1.0;
        self.followed = self.followed.saturating_add(1);
        let jitter = 1.0 + fastrand::f64() / 10.0;
        let turn = self
            .reopened
            .plus(Duration::from_secs_f64(seconds * jitter));
        match turn < patience {
            true => turn,
            false => now.plus(patience.since(now).mul_f64(fastrand::f64())),
        }
    }

    /// Counts a failure of `who`. Returns true if several distinct principals failed in a row.
    fn several_failed(&mut self, who: &Principal) -> bool {
        let mut hasher = DefaultHasher::new();
        who.hash(&mut hasher);
        let hash = hasher.finish();
        if self.in_a_row.len() < SEVERAL && !self.in_a_row.contains(&hash) {
            self.in_a_row.push(hash);
        }
        self.in_a_row.len() >= SEVERAL
    }
}

impl Permit<'_> {
    /// Whether others wait for the outcome of this call.
    pub(crate) fn goes_first(&self) -> bool {
        self.first.is_some()
    }

    /// The host answered.
    pub(crate) fn answered(mut self) {
        self.backoff.answered(self.first.take());
    }

    /// The call, which `who` made, failed.
    pub(crate) fn failed(mut self, who: &Principal, failure: Failure) {
        self.backoff.failed(self.first.take(), who, failure);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(first) = self.first.take() {
            self.backoff.abandoned(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn who(number: usize) -> Principal {
        Principal::Account(number.to_string().into())
    }

    /// Passes at once.
    fn pass(backoff: &Backoff) -> Permit<'_> {
        let passed = backoff
            .pass(Standing::Good, || backoff.clock.now())
            .now_or_never();
        passed.expect("nothing is waited for").unwrap()
    }

    fn rests_for(backoff: &Backoff) -> Duration {
        match backoff.lock().phase {
            Phase::Resting { until, .. } => until.since(backoff.clock.now()),
            Phase::Open | Phase::Trying(_) => Duration::ZERO,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rests_double_up_to_a_limit_and_an_answer_starts_over() {
        let clock = Clock::real();
        let backoff = Backoff::new(clock);
        for seconds in [1, 2, 4, 8, 8] {
            let together = [pass(&backoff), backoff.permit(None)];
            for permit in together {
                permit.failed(&who(0), Failure::Hosts(None));
            }
            assert_eq!(rests_for(&backoff), SECOND * seconds);
            clock.sleep(rests_for(&backoff)).await;
        }
        pass(&backoff).answered();
        pass(&backoff).failed(&who(0), Failure::Hosts(None));
        assert_eq!(rests_for(&backoff), FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_host_asks_for_is_kept_and_no_probe_disturbs_it() {
        let clock = Clock::real();
        let backoff = Backoff::new(clock);
        for _ in 0..2 {
            let told = Failure::Hosts(Some(SECOND * 100));
            backoff.permit(None).failed(&who(0), told);
            assert_eq!(rests_for(&backoff), SECOND * 100);
        }
        assert!(backoff.probe().is_none());
        let impatient = backoff
            .pass(Standing::Good, || clock.now().plus(SECOND * 99))
            .await;
        assert_eq!(impatient.err(), Some(Resting));
        let before = clock.now();
        let patient = backoff
            .pass(Standing::Good, || before.plus(SECOND * 101))
            .await;
        patient.unwrap().answered();
        assert!(clock.now().since(before) >= SECOND * 100);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_the_hosts_only_if_several_in_a_row_have_them() {
        let backoff = Backoff::new(Clock::real());
        for _ in 0..10 {
            for number in [0, 1, 1, 0] {
                pass(&backoff).failed(&who(number), Failure::Own);
            }
            pass(&backoff).answered();
        }
        for number in [0, 1, 2] {
            assert_eq!(rests_for(&backoff), Duration::ZERO);
            pass(&backoff).failed(&who(number), Failure::Own);
        }
        assert_eq!(rests_for(&backoff), FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn one_goes_first_and_the_others_rest_again_when_it_fails() {
        let clock = Clock::real();
        let backoff = Backoff::new(clock);
        pass(&backoff).failed(&who(0), Failure::Hosts(None));
        let patience = clock.now().plus(SECOND * 20);
        let (called, held) = (Cell::new(0), Cell::new(0));
        let calls = (0..300).map(|_| async {
            match backoff.pass(Standing::Good, || patience).await {
                Ok(permit) => {
                    called.set(called.get() + 1);
                    clock.sleep(SECOND / 10).await;
                    permit.failed(&who(0), Failure::Own);
                }
                Err(Resting) => held.set(held.get() + 1),
            }
        });
        join_all(calls).await;
        // After 1, 2, 4 and 8 s; a fifth would come after their patience.
        assert_eq!((called.get(), held.get()), (4, 296));
    }

    #[tokio::test(start_paused = true)]
    async fn a_principal_whose_calls_fail_leaves_it_to_others_to_go_first() {
        let clock = Clock::real();
        let backoff = Backoff::new(clock);
        for others in [false, true] {
            pass(&backoff).failed(&who(0), Failure::Hosts(None));
            let patience = clock.now().plus(SECOND * 20);
            let failing = async {
                let permit = backoff.pass(Standing::Failing, || patience).await.unwrap();
                assert_eq!(permit.goes_first(), !others);
                permit.answered();
            };
            let other = async {
                if others {
                    let permit = backoff.pass(Standing::Good, || patience).await.unwrap();
                    assert!(permit.goes_first());
                    permit.answered();
                }
            };
            tokio::join!(failing, other);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_others_follow_when_the_first_was_answered_and_never_all_at_once() {
        let clock = Clock::real();
        let backoff = Backoff::new(clock);
        pass(&backoff).failed(&who(0), Failure::Hosts(Some(SECOND * 3)));
        let patience = clock.now().plus(SECOND * 20);
        let calls = (0..1_000).map(|_| async {
            let permit = backoff.pass(Standing::Good, || patience).await.unwrap();
            let at = clock.now().as_millis();
            clock.sleep(SECOND / 10).await;
            permit.answered();
            at
        });
        let mut calls = join_all(calls).await;
        calls.sort_unstable();
        assert!(calls[1] >= calls[0] + 100, "they wait for the first");
        assert!(calls[999] <= calls[0] + 8_000, "{}", calls[999] - calls[0]);
        let most_of = |calls: &[u64]| {
            let within = |from: u64| calls.partition_point(|at| *at < from + 250);
            let most = calls.iter().enumerate();
            most.map(|(before, at)| within(*at) - before).max()
        };
        assert!(most_of(&calls[..300]) < Some(50), "{:?}", most_of(&calls));
        assert!(most_of(&calls) < Some(90), "{:?}", most_of(&calls));
    }

    #[tokio::test(start_paused = true)]
    async fn those_whose_turn_would_come_too_late_go_while_they_are_patient() {
        let clock = Clock::real();
        let backoff = Backoff::new(clock);
        pass(&backoff).failed(&who(0), Failure::Hosts(None));
        let patience = clock.now().plus(SECOND * 3);
        let calls = (0..5_000).map(|_| async {
            backoff
                .pass(Standing::Good, || patience)
                .await
                .unwrap()
                .answered();
            clock.now()
        });
        let calls = join_all(calls).await;
        assert!(calls.iter().all(|at| *at <= patience));
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_call_that_is_not_made_lets_another_go() {
        let clock = Clock::real();
        let backoff = Backoff::new(clock);
        pass(&backoff).failed(&who(0), Failure::Hosts(None));
        clock.sleep(FIRST).await;
        let first = pass(&backoff);
        assert!(first.goes_first() && backoff.pass_now().is_none());
        drop(first);
        let second = backoff.pass_now().unwrap();
        assert!(second.goes_first());
        second.answered();
        assert!(!pass(&backoff).goes_first());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_goes_first_while_the_host_rests() {
        let backoff = Backoff::new(Clock::real());
        pass(&backoff).failed(&who(0), Failure::Hosts(None));
        backoff.probe().unwrap().answered();
        assert!(!pass(&backoff).goes_first());
    }
}

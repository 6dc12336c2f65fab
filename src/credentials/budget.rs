//! Waiting for a login slot: first come first served within a class, honest about how long it takes.
//! The slots themselves are the store's.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Mutex as Line, Notify};

use super::Error;
use super::counted::counted;
use crate::clock::{Clock, Moment};
use crate::metrics::{Metrics, StoreOperation};
use crate::store::{Class, LoginBudget, LoginWindow, LoginWindows, Slot, SlotId, Store};
use crate::telemetry::episode::Episode;

/// Who stands in line gives up so long before its patience ends, in real time.
const EARLY: Duration = Duration::from_millis(500);
/// The budget suffices again once nobody was refused for this long.
const QUIET: Duration = Duration::from_secs(60);
/// Who waits looks this often whether an operator has ended a block, or another process has given a
/// slot back.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// However fast the clock of a test is, no oftener than this in real time.
const AT_MOST_EVERY: Duration = Duration::from_millis(20);
/// After a 429 the windows are halved for so long.
const HALVED_FOR: Duration = Duration::from_secs(24 * 3600);

/// Hands out login slots.
#[derive(Debug)]
pub(super) struct Budget {
    windows: LoginWindows,
    /// The block after a 429 that does not say how long.
    blocked_for: Duration,
    known: Queue,
    new: Queue,
    /// A slot was given back.
    freed: Notify,
    /// No slot comes in time.
    exhausted: Episode,
    /// Damoov answered a login with 429.
    blocked: Episode,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// Those of one class that wait for a slot.
#[derive(Debug, Default)]
struct Queue {
    /// Its holder is the next to get a slot.
    front: Line<()>,
    /// How many wait, the front included.
    length: AtomicU32,
    /// What the store last said about the next slot.
    next: Mutex<Next>,
}

/// When a slot comes; the default: at once, as far as is known.
#[derive(Clone, Copy, Debug, Default)]
struct Next {
    slot: Moment,
    /// Whether a block stands in the way, rather than the windows.
    blocked: bool,
}

impl Queue {
    fn next(&self) -> Next {
        *self.next.lock().expect("no code panics under this lock")
    }

    fn learn(&self, next: Next) {
        *self.next.lock().expect("no code panics under this lock") = next;
    }
}

impl Budget {
    pub(super) fn new(
        windows: LoginWindows,
        blocked_for: Duration,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Budget {
        Budget {
            windows,
            blocked_for,
            known: Queue::default(),
            new: Queue::default(),
            freed: Notify::new(),
            exhausted: Episode::ending_after(QUIET),
            blocked: Episode::new(),
            clock,
            metrics,
        }
    }

    /// Takes a slot, waiting for one that comes before `patience` ends. `patience` is asked again
    /// after each wait: it grows when others join. Answers which slot was taken.
    pub(super) async fn take(
        &self,
        store: &dyn Store,
        class: Class,
        patience: impl Fn() -> Moment,
    ) -> Result<SlotId, Error> {
        let queue = match class {
            Class::Known => &self.known,
            Class::New => &self.new,
        };
        let ahead = queue.length.fetch_add(1, Ordering::AcqRel);
        let _leaves = Leaves(&queue.length);
        // An operator may have ended a block meanwhile: the store knows, and is asked in turn.
        if ahead > 0 && !queue.next().blocked {
            self.within(self.expected(queue, class, ahead), patience())?;
        }
        let wait = self.clock.to_real(patience().since(self.clock.now()));
        // A little before those who wait lose patience, or they would not be told why.
        let wait = wait - EARLY.min(wait / 10);
        let Ok(_front) = tokio::time::timeout(wait, queue.front.lock()).await else {
            return Err(self.refusal(self.expected(queue, class, ahead.max(1))));
        };
        let id = SlotId(uuid::Uuid::new_v4());
        loop {
            let freed = self.freed.notified();
            let slot = store.take_login(id, class, &self.windows).await;
            match counted(&self.metrics, StoreOperation::Budget, slot)? {
                Slot::Taken => {
                    self.slots_come();
                    queue.learn(Next::default());
                    return Ok(id);
                }
                Slot::Wait { left, blocked } => {
                    let slot = self.clock.now().plus(left);
                    let next = Next { slot, blocked };
                    queue.learn(next);
                    self.within(next, patience())?;
                    let look_again = self.clock.to_real(LOOK_AGAIN).max(AT_MOST_EVERY);
                    tokio::select! {
                        () = self.clock.sleep_until(slot) => {}
                        () = tokio::time::sleep(look_again) => {}
                        () = freed => {}
                    }
                }
            }
        }
    }

    /// The login of the slot `taken` was answered, or its answer lost. Where this cannot
    /// be written the slot counts from when it was taken.
    pub(super) async fn end(&self, store: &dyn Store, taken: SlotId) {
        let ended = store.end_login(&self.windows.group, taken).await;
        if let Err(error) = counted(&self.metrics, StoreOperation::Budget, ended) {
            tracing::warn!(%error, "the end of a login could not be written");
        }
    }

    /// The login of the slot `taken` was not sent: whoever waits for one may have it at once. Where
    /// this cannot be written the slot stays taken.
    pub(super) async fn give_back(&self, store: &dyn Store, taken: SlotId) {
        let given = store.give_login_back(&self.windows.group, taken).await;
        if let Err(error) = counted(&self.metrics, StoreOperation::Budget, given) {
            tracing::warn!(%error, "a login slot that was not used could not be given back");
            return;
        }
        for queue in [&self.known, &self.new] {
            queue.learn(Next::default());
        }
        self.freed.notify_waiters();
    }

    /// When, at the earliest, a slot comes for whoever has `ahead` others before it.
    fn expected(&self, queue: &Queue, class: Class, ahead: u32) -> Next {
        let reserve = match class {
            Class::Known => 0,
            Class::New => self.windows.reserve,
        };
        let of = |window: &LoginWindow| {
            let usable = window.logins.saturating_sub(reserve).max(1);
            window.per.saturating_mul(ahead / usable)
        };
        let later = self
            .windows
            .windows
            .iter()
            .map(of)
            .max()
            .unwrap_or_default();
        let next = queue.next();
        if next.slot == Moment::default() {
            // Nothing is known that would keep anybody from standing in line.
            return next;
        }
        Next {
            slot: next.slot.plus(later),
            ..next
        }
    }

    /// An error that says how long, unless the slot comes before `patience` ends.
    fn within(&self, next: Next, patience: Moment) -> Result<(), Error> {
        if next.slot.max(self.clock.now()) <= patience {
            return Ok(());
        }
        Err(self.refusal(next))
    }

    fn refusal(&self, next: Next) -> Error {
        let retry_after = self.clock.to_real(next.slot.since(self.clock.now()));
        let seconds = retry_after.as_secs();
        if next.blocked {
            if self.blocked.failed() {
                tracing::warn!(seconds, "logins are blocked: who needs one is refused");
            }
            return Error::LoginBlocked { retry_after };
        }
        if self.exhausted.failed() {
            tracing::warn!(
                seconds,
                "the login budget is used up: who needs a login sooner than a slot comes is refused"
            );
        }
        Error::BudgetExhausted { retry_after }
    }

    /// Whether somebody was refused for want of a slot, and the slots have not sufficed since.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted.is_failing()
    }

    /// A slot was taken.
    fn slots_come(&self) {
        if let Some(over) = self.blocked.worked() {
            let (seconds, hurt) = (over.seconds(), over.hurt);
            tracing::warn!(seconds, hurt, "logins are no longer blocked");
        }
        if let Some(over) = self.exhausted.worked() {
            let (seconds, hurt) = (over.seconds(), over.hurt);
            tracing::warn!(seconds, hurt, "the login budget suffices again");
        }
    }

    /// Damoov answered a login with 429: nobody logs in for as long as is returned, in real time.
    /// True if that is to be told.
    pub(super) async fn block(
        &self,
        store: &dyn Store,
        retry_after: Option<Duration>,
    ) -> Result<(Duration, bool), Error> {
        let blocked = retry_after.unwrap_or(self.blocked_for);
        let is_news = self.blocked.failed();
        store
            .block_logins(&self.windows.group, blocked, Some(HALVED_FOR))
            .await?;
        Ok((self.clock.to_real(blocked), is_news))
    }

    /// What the store says of it now.
    pub(super) async fn state(&self, store: &dyn Store) -> Result<LoginBudget, Error> {
        Ok(store.login_budget(&self.windows).await?)
    }

    /// Brings the metrics up to date.
    pub(super) async fn report(&self, store: &dyn Store) -> Result<(), Error> {
        let state = self.state(store).await?;
        self.metrics
            .login_budget_remaining
            .set(state.remaining.into());
        let limits = state.windows.iter().map(|window| window.limit);
        self.metrics
            .login_budget_limit
            .set(limits.min().unwrap_or(0).into());
        let seconds = |left: Duration| self.clock.to_real(left).as_secs_f64();
        self.metrics
            .login_budget_next
            .set(seconds(state.next_known));
        self.metrics
            .login_blocked_seconds
            .set(seconds(state.blocked));
        Ok(())
    }
}

/// Leaves the queue when dropped.
struct Leaves<'a>(&'a AtomicU32);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::store::contract::run;
    use crate::store::sqlite::{self, Sqlite};

    const HOUR: Duration = Duration::from_secs(3600);

    /// A budget of one login in `per`, and a clock on which a minute passes in a second.
    fn budget(per: Duration) -> (Budget, Sqlite, Clock, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::scaled(60);
        let store = sqlite::open(directory.path(), run(), clock).unwrap();
        let windows = LoginWindows {
            group: "default".into(),
            windows: vec![LoginWindow { logins: 1, per }],
            reserve: 0,
        };
        let budget = Budget::new(windows, HOUR, clock, Arc::new(Metrics::new()));
        (budget, store, clock, directory)
    }

    #[tokio::test]
    async fn a_slot_that_comes_too_late_is_refused_at_once_and_says_when_it_comes() {
        let (budget, store, clock, _directory) = budget(HOUR);
        let take = |patience| {
            let until = clock.now().plus(patience);
            budget.take(&store, Class::Known, move || until)
        };
        assert!(take(Duration::ZERO).await.is_ok());
        let Err(Error::BudgetExhausted { retry_after }) = take(HOUR / 2).await else {
            panic!("no slot is free")
        };
        assert!(
            (50..=60).contains(&retry_after.as_secs()),
            "{retry_after:?}"
        );
    }

    #[tokio::test]
    async fn those_who_wait_get_their_slots_one_after_the_other() {
        let (budget, store, clock, _directory) = budget(Duration::from_secs(12));
        let started = clock.wall();
        let until = clock.now().plus(HOUR);
        let takes = (0..4).map(|_| async {
            let taken = budget.take(&store, Class::New, || until).await;
            (taken, clock.wall())
        });
        for (place, (taken, at)) in (0..).zip(join_all(takes).await) {
            assert!(taken.is_ok());
            assert!(at >= started.plus(Duration::from_secs(12) * place));
        }
    }

    #[tokio::test]
    async fn a_slot_that_is_given_back_goes_to_whoever_waits_for_one() {
        let (budget, store, clock, _directory) = budget(HOUR);
        let patience = clock.now().plus(HOUR * 2);
        let first = budget
            .take(&store, Class::Known, || patience)
            .await
            .unwrap();
        for by_another_process in [false, true] {
            let waits = budget.take(&store, Class::New, || patience);
            let gives_back = async {
                tokio::task::yield_now().await;
                match by_another_process {
                    false => budget.give_back(&store, first).await,
                    true => store.give_login_back("default", first).await.unwrap(),
                }
            };
            let before = clock.now();
            let (taken, ()) = tokio::join!(waits, gives_back);
            assert!(clock.now().since(before) < HOUR / 2);
            store
                .give_login_back("default", taken.unwrap())
                .await
                .unwrap();
            let again = store.take_login(first, Class::Known, &budget.windows);
            assert_eq!(again.await, Ok(Slot::Taken));
        }
    }

    #[tokio::test]
    async fn a_block_is_called_one_to_everybody_who_stands_in_line() {
        let (budget, store, clock, _directory) = budget(HOUR);
        budget.block(&store, None).await.unwrap();
        for _ in 0..2 {
            let until = clock.now().plus(Duration::from_secs(10));
            let takes = (0..4).map(|_| budget.take(&store, Class::Known, || until));
            for taken in join_all(takes).await {
                assert!(
                    matches!(taken, Err(Error::LoginBlocked { .. })),
                    "{taken:?}"
                );
            }
        }
    }
}

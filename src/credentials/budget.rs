//! Waiting for a login slot: first come first served within a class, honest about how long it takes.
//! The slots themselves are the store's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Mutex as Line;

use super::Error;
use super::counted::counted;
use crate::clock::{Clock, Moment, Timestamp};
use crate::metrics::{Metrics, StoreOperation};
use crate::store::{Class, LoginWindow, LoginWindows, Slot, Store};

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
    /// When the next slot comes, as the store last said.
    next_slot: AtomicI64,
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
            clock,
            metrics,
        }
    }

    /// Takes a slot, waiting for one that comes before `patience` ends. `patience` is asked again
    /// after each wait: it grows when others join.
    pub(super) async fn take(
        &self,
        store: &dyn Store,
        class: Class,
        patience: impl Fn() -> Moment,
    ) -> Result<(), Error> {
        let queue = match class {
            Class::Known => &self.known,
            Class::New => &self.new,
        };
        let ahead = queue.length.fetch_add(1, Ordering::AcqRel);
        let _leaves = Leaves(&queue.length);
        if ahead > 0 {
            self.within(self.expected(queue, class, ahead), false, patience())?;
        }
        let wait = self.clock.to_real(patience().since(self.clock.now()));
        let Ok(_front) = tokio::time::timeout(wait, queue.front.lock()).await else {
            let expected = self.expected(queue, class, ahead.max(1));
            let retry_after = self.clock.to_real(expected.since(self.clock.wall()));
            return Err(Error::BudgetExhausted { retry_after });
        };
        loop {
            let slot = store
                .take_login(class, &self.windows, self.clock.wall())
                .await;
            match counted(&self.metrics, StoreOperation::Budget, slot)? {
                Slot::Taken => return Ok(()),
                Slot::Wait { until, blocked } => {
                    queue.next_slot.store(until.as_millis(), Ordering::Release);
                    self.within(until, blocked, patience())?;
                    self.clock.sleep(until.since(self.clock.wall())).await;
                }
            }
        }
    }

    /// When, at the earliest, a slot comes for whoever has `ahead` others before it.
    fn expected(&self, queue: &Queue, class: Class, ahead: u32) -> Timestamp {
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
        Timestamp::from_millis(queue.next_slot.load(Ordering::Acquire)).plus(later)
    }

    /// An error that says how long, unless `slot` comes before `patience` ends.
    fn within(&self, slot: Timestamp, blocked: bool, patience: Moment) -> Result<(), Error> {
        let wait = slot.since(self.clock.wall());
        if self.clock.now().plus(wait) <= patience {
            return Ok(());
        }
        let retry_after = self.clock.to_real(wait);
        Err(if blocked {
            Error::LoginBlocked { retry_after }
        } else {
            Error::BudgetExhausted { retry_after }
        })
    }

    /// Damoov answered a login with 429: nobody logs in until then.
    pub(super) async fn block(
        &self,
        store: &dyn Store,
        retry_after: Option<Duration>,
    ) -> Result<Duration, Error> {
        let (now, blocked) = (self.clock.wall(), retry_after.unwrap_or(self.blocked_for));
        let halved = Some(now.plus(HALVED_FOR));
        store
            .block_logins(&self.windows.group, now.plus(blocked), halved)
            .await?;
        Ok(self.clock.to_real(blocked))
    }

    /// Brings the metrics up to date.
    pub(super) async fn report(&self, store: &dyn Store) -> Result<(), Error> {
        let now = self.clock.wall();
        let state = store.login_budget(&self.windows, now).await?;
        self.metrics
            .login_budget_remaining
            .set(state.remaining.into());
        let blocked = state
            .blocked_until
            .map_or(Duration::ZERO, |until| until.since(now));
        self.metrics.login_blocked_seconds.set(
            self.clock
                .to_real(blocked)
                .as_secs()
                .try_into()
                .unwrap_or(i64::MAX),
        );
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

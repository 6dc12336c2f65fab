//! Which side of an exchange is still (stalled), and since when, if the exchange did not end at once. The
//! caller's connection notes when it waits for its caller, the answer's content when it waits for the
//! API. The pool reads it when it has to choose an exchange to end. Everything of one exchange stays on
//! its worker's thread.

use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};

use tokio::time::Instant;

/// Whom an exchange waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The API, which sends nothing although it may.
    Upstream,
    /// The caller, which does not read what it is given.
    Caller,
}

/// Since when each side of one exchange has been still.
#[derive(Debug, Default)]
pub struct Stalls {
    /// `None` while the API sends.
    upstream: Cell<Option<Instant>>,
    /// `None` while the caller reads.
    caller: Cell<Option<Instant>>,
    /// Whether the exchange is to end. Set by the pool, seen by the task of the caller's connection.
    ended: Cell<bool>,
    /// The task of the caller's connection, which is woken to notice the end.
    task: RefCell<Option<Waker>>,
}

impl Stalls {
    /// The exchange waits for this side. Since when: `since`, unless that was noted before.
    pub fn waiting_for(&self, side: Side, since: Instant, cx: &Context<'_>) -> Instant {
        let cell = self.of(side);
        let since = cell.get().unwrap_or(since);
        cell.set(Some(since));
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        since
    }

    /// This side has sent something, or taken it.
    pub fn progressed(&self, side: Side) {
        self.of(side).set(None);
    }

    /// The side that has been still for longest, and since when; `None` if both move.
    pub fn longest(&self) -> Option<(Instant, Side)> {
        let still = |side| Some((self.of(side).get()?, side));
        match (still(Side::Upstream), still(Side::Caller)) {
            (Some(upstream), Some(caller)) if caller.0 < upstream.0 => Some(caller),
            (None, caller) => caller,
            (upstream, _) => upstream,
        }
    }

    /// Ends the exchange: its task is woken, and breaks it off.
    pub fn end(&self) {
        self.ended.set(true);
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    /// Whether it is to be broken off.
    pub fn is_ended(&self) -> bool {
        self.ended.get()
    }

    fn of(&self, side: Side) -> &Cell<Option<Instant>> {
        match side {
            Side::Upstream => &self.upstream,
            Side::Caller => &self.caller,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::time::Duration;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_side_that_waits_longest_counts_until_it_moves() {
        let woken = Arc::<Counted>::default();
        let waker = Waker::from(woken.clone());
        let cx = Context::from_waker(&waker);
        let stalls = Stalls::default();
        assert_eq!(stalls.longest(), None);
        let early = Instant::now();
        let late = early + Duration::from_secs(1);
        assert_eq!(stalls.waiting_for(Side::Upstream, late, &cx), late);
        assert_eq!(stalls.longest(), Some((late, Side::Upstream)));
        stalls.waiting_for(Side::Caller, early, &cx);
        assert_eq!(stalls.longest(), Some((early, Side::Caller)));
        assert_eq!(stalls.waiting_for(Side::Caller, late, &cx), early);
        stalls.progressed(Side::Caller);
        assert_eq!(stalls.longest(), Some((late, Side::Upstream)));
        stalls.progressed(Side::Upstream);
        assert_eq!(stalls.longest(), None);
        assert!(!stalls.is_ended());
        stalls.end();
        assert!(stalls.is_ended());
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    }
}

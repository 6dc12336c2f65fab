//! Timers that stay armed from request to request. Arming and disarming a timer of tokio takes a lock
//! and a walk through its wheel, and nearly every request is answered long before its deadline: so a
//! timer is left as it is, and armed anew only when it goes off too early.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that may go off too early, and then looks again.
#[derive(Debug)]
pub struct LazyTimer(Pin<Box<Sleep>>);

/// Timers of one worker that are not in use; still armed as they were.
#[derive(Debug, Default)]
pub struct TimerPool(RefCell<Vec<LazyTimer>>);

/// A timer that goes back when it is dropped.
#[derive(Debug)]
pub struct PooledTimer<'a> {
    timer: Option<LazyTimer>,
    to: &'a TimerPool,
}

impl LazyTimer {
    /// Goes off at `at` for the first time, or earlier if asked to.
    pub fn new(at: Instant) -> LazyTimer {
        LazyTimer(Box::pin(sleep_until(at)))
    }

    /// Ready once `deadline` has passed; it may be another one each time.
    pub fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.deadline() > deadline {
            self.0.as_mut().reset(deadline);
        }
        loop {
            ready!(self.0.as_mut().poll(cx));
            if self.0.deadline() >= deadline {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(deadline);
        }
    }
}

impl TimerPool {
    /// A timer for a wait that ends at `deadline` to begin with.
    pub fn pooled(&self, deadline: Instant) -> PooledTimer<'_> {
        PooledTimer {
            timer: Some(self.take(deadline)),
            to: self,
        }
    }

    /// One to keep until it is put back.
    pub fn take(&self, deadline: Instant) -> LazyTimer {
        let known = self.0.borrow_mut().pop();
        known.unwrap_or_else(|| LazyTimer::new(deadline))
    }

    /// Takes one back.
    pub fn put(&self, timer: LazyTimer) {
        self.0.borrow_mut().push(timer);
    }

    /// What `future` comes to; `None` if that is not before `deadline`.
    pub async fn until<F: Future>(&self, deadline: Instant, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut timer = self.pooled(deadline);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => timer.poll(deadline, cx).map(|()| None),
        })
        .await
    }
}

impl PooledTimer<'_> {
    /// As [`LazyTimer::poll`].
    pub fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.timer {
            Some(timer) => timer.poll(deadline, cx),
            None => Poll::Pending,
        }
    }
}

impl Drop for PooledTimer<'_> {
    fn drop(&mut self) {
        self.to.0.borrow_mut().extend(self.timer.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_at_the_deadline_it_is_asked_for_last() {
        let start = Instant::now();
        let mut timer = LazyTimer::new(start + SECOND);
        for seconds in [3, 2, 7] {
            let deadline = Instant::now() + seconds * SECOND;
            poll_fn(|cx| timer.poll(deadline, cx)).await;
            assert_eq!(Instant::now(), deadline);
        }
        assert_eq!(start.elapsed(), 12 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_lent_before_waits_for_its_new_deadline() {
        let timers = TimerPool::default();
        for _ in 0..3 {
            let deadline = Instant::now() + 5 * SECOND;
            let answer = timers.until(deadline, tokio::time::sleep(4 * SECOND));
            assert_eq!(answer.await, Some(()));
            assert_eq!(timers.0.borrow().len(), 1);

            let deadline = Instant::now() + 5 * SECOND;
            assert_eq!(timers.until(deadline, pending::<()>()).await, None);
            assert_eq!(Instant::now(), deadline);
        }
    }
}

//! The answers of one host that are on their way to their callers and did not end at once. While
//! somebody waits for a connection, the one that has been still for longest gives way: its exchange
//! is ended. Knows who is still, and nothing of what is said.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::host::Host;
use crate::metrics::{CutLabels, CutReason, Stalled};
use crate::stalls::{Side, Stalls};
use crate::timer::LazyTimer;
use crate::upstream::{Broken, Error};

/// An exchange that is still for less gives way to nobody.
const GIVES_WAY: Duration = Duration::from_secs(5);

/// Who waits for a connection looks again after this at the latest.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The exchanges of one host on one worker, and who waits for them to end.
#[derive(Debug, Default)]
pub(super) struct Streaming {
    /// In no order; each knows its own index.
    exchanges: RefCell<Vec<Rc<Exchange>>>,
    /// Requests that wait for a connection.
    waiting: Cell<usize>,
    /// Exchanges that were told to end and have not.
    ending: Cell<usize>,
}

#[derive(Debug, Default)]
struct Exchange {
    stalls: Rc<Stalls>,
    /// Where it is in the list.
    index: Cell<usize>,
}

/// An answer in the list of its host, until this is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    exchange: Rc<Exchange>,
    host: Rc<Host>,
    /// Once the API was waited for.
    timer: Option<LazyTimer>,
    /// How much has gone out of a request that is not yet sent whole.
    written: u64,
}

/// Counts somebody who waits, until this is dropped.
struct Waiting<'a>(&'a Cell<usize>);

impl Streaming {
    fn enter(&self) -> Rc<Exchange> {
        let exchange = Rc::<Exchange>::default();
        let mut exchanges = self.exchanges.borrow_mut();
        exchange.index.set(exchanges.len());
        exchanges.push(exchange.clone());
        exchange
    }

    fn leave(&self, exchange: &Exchange) {
        let mut exchanges = self.exchanges.borrow_mut();
        let index = exchange.index.get();
        exchanges.swap_remove(index);
        if let Some(moved) = exchanges.get(index) {
            moved.index.set(index);
        }
        if exchange.stalls.is_ended() {
            self.ending.set(self.ending.get() - 1);
        }
    }

    fn wait(&self) -> Waiting<'_> {
        self.waiting.set(self.waiting.get() + 1);
        Waiting(&self.waiting)
    }

    /// Ends the stillest exchange for somebody who waits, if enough have not been ended yet; and whom
    /// it waited for. Else when to look again.
    fn give_way(&self, now: Instant) -> Result<Side, Instant> {
        let later = now + LOOK_AGAIN;
        if self.ending.get() >= self.waiting.get() {
            return Err(later);
        }
        let exchanges = self.exchanges.borrow();
        let still = exchanges.iter().filter_map(|exchange| {
            let stalls = &exchange.stalls;
            let (since, side) = stalls.longest().filter(|_| !stalls.is_ended())?;
            Some((since, side, stalls))
        });
        let Some((since, side, stalls)) = still.min_by_key(|(since, ..)| *since) else {
            return Err(later);
        };
        if since + GIVES_WAY > now {
            return Err(later.min(since + GIVES_WAY));
        }
        stalls.end();
        self.ending.set(self.ending.get() + 1);
        Ok(side)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Watch {
    pub(super) fn new(host: &Rc<Host>) -> Watch {
        Watch {
            exchange: host.streaming.enter(),
            host: host.clone(),
            timer: None,
            written: 0,
        }
    }

    pub(super) fn stalls(&self) -> &Rc<Stalls> {
        &self.exchange.stalls
    }

    /// A piece came.
    pub(super) fn moved(&self) {
        self.stalls().progressed(Side::Upstream);
    }

    /// The API is waited for: ready once that is to end. `written` is how much has gone out of a
    /// request that is not yet sent whole: while that moves, the API is not still.
    pub(super) fn poll_end(&mut self, written: u64, cx: &mut Context<'_>) -> Poll<Broken> {
        let since = self.since(written, cx);
        if self.stalls().is_ended() {
            return Poll::Ready(Broken::GaveWay);
        }
        let deadline = since + self.host.limits.stall_timeout;
        let timer = match &mut self.timer {
            Some(timer) => timer,
            None => self.timer.insert(self.host.timers.take(deadline)),
        };
        ready!(timer.poll(deadline, cx));
        self.host.count_cut(Stalled::Upstream, CutReason::Timeout);
        drop(self.host.target.failed(Error::Broken(Broken::Stalled)));
        Poll::Ready(Broken::Stalled)
    }

    /// The answer is over, and nothing moves of the request: ready once somebody else needs the
    /// connection.
    pub(super) fn poll_needed(&mut self, written: u64, cx: &mut Context<'_>) -> Poll<()> {
        self.since(written, cx);
        match self.stalls().is_ended() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Since when the API is waited for; now at the latest.
    fn since(&mut self, written: u64, cx: &mut Context<'_>) -> Instant {
        if written != self.written {
            self.written = written;
            self.moved();
        }
        self.stalls()
            .waiting_for(Side::Upstream, Instant::now(), cx)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.host.streaming.leave(&self.exchange);
        if let Some(timer) = self.timer.take() {
            self.host.timers.put(timer);
        }
    }
}

impl Host {
    /// The right to use a connection, once there is one; until `deadline`.
    pub(super) async fn free_place(
        &self,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(permit) = self.free.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = self.streaming.wait();
        let mut acquiring = pin!(self.free.clone().acquire_owned());
        loop {
            let again = match self.streaming.give_way(Instant::now()) {
                Ok(side) => {
                    self.count_cut(side.into(), CutReason::GaveWay);
                    self.target.condition.gave_way(side);
                    continue;
                }
                Err(again) => again.min(deadline),
            };
            match self.timers.until(again, acquiring.as_mut()).await {
                Some(permit) => return Ok(permit.expect("the semaphore is never closed")),
                None if Instant::now() >= deadline => return Err(Error::Busy),
                None => {}
            }
        }
    }

    fn count_cut(&self, stalled: Stalled, reason: CutReason) {
        let labels = CutLabels { stalled, reason };
        self.cut.get_or_create(&labels).inc();
    }
}

impl From<Side> for Stalled {
    fn from(side: Side) -> Stalled {
        match side {
            Side::Upstream => Stalled::Upstream,
            Side::Caller => Stalled::Caller,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_stillest_gives_way_one_for_each_who_waits_and_none_that_moves() {
        let streaming = Streaming::default();
        let cx = Context::from_waker(Waker::noop());
        let start = Instant::now();
        let now = start + 60 * SECOND;
        let moving = streaming.enter();
        let still = |seconds: u32, side| {
            let exchange = streaming.enter();
            let since = start + seconds * SECOND;
            exchange.stalls.waiting_for(side, since, &cx);
            exchange
        };
        let later = still(3, Side::Upstream);
        let first = still(1, Side::Caller);
        let last = still(58, Side::Upstream);
        let second = still(2, Side::Upstream);

        assert_eq!(streaming.give_way(now), Err(now + SECOND), "nobody waits");
        let one = streaming.wait();
        assert_eq!(streaming.give_way(now), Ok(Side::Caller));
        assert!(first.stalls.is_ended());
        assert_eq!(streaming.give_way(now), Err(now + SECOND), "one is enough");
        let other = streaming.wait();
        assert_eq!(streaming.give_way(now), Ok(Side::Upstream));
        assert!(second.stalls.is_ended());
        // The first one ends, and its index goes to somebody else.
        streaming.leave(&first);
        assert_eq!(streaming.give_way(now), Ok(Side::Upstream));
        assert!(later.stalls.is_ended());
        streaming.leave(&later);
        streaming.leave(&second);
        assert_eq!(
            streaming.give_way(now),
            Err(now + SECOND),
            "it is still for 2 s"
        );
        let soon = now + 2 * SECOND;
        assert_eq!(streaming.give_way(soon), Err(start + 63 * SECOND));
        assert_eq!(streaming.give_way(start + 63 * SECOND), Ok(Side::Upstream));
        drop((one, other));
        streaming.leave(&moving);
        streaming.leave(&last);
        assert!(streaming.exchanges.borrow().is_empty());
        assert_eq!((streaming.waiting.get(), streaming.ending.get()), (0, 0));
    }
}

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

use super::Host;
use crate::alarm::Alarm;
use crate::metrics::{CutLabels, CutReason, Stalled};
use crate::stillness::{Side, Stillness};
use crate::upstream::{Broken, Error};

/// An exchange that is still for less gives way to nobody.
const GIVES_WAY: Duration = Duration::from_secs(5);

/// Who waits for a connection looks again after this at the latest.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The exchanges of one host on one worker, and who waits for them to end.
#[derive(Debug, Default)]
pub(super) struct Passing {
    /// In no order; each knows its own place.
    exchanges: RefCell<Vec<Rc<Exchange>>>,
    /// Requests that wait for a connection.
    waiting: Cell<usize>,
    /// Exchanges that were told to end and have not.
    ending: Cell<usize>,
}

#[derive(Debug, Default)]
struct Exchange {
    stillness: Rc<Stillness>,
    /// Where it is in the list.
    place: Cell<usize>,
}

/// An answer in the list of its host, until this is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    exchange: Rc<Exchange>,
    host: Rc<Host>,
    /// Once the API was waited for.
    timer: Option<Alarm>,
    /// How much has gone out of a request that is not yet sent whole.
    written: u64,
}

/// Counts somebody who waits, until this is dropped.
struct Waiting<'a>(&'a Cell<usize>);

impl Passing {
    fn enter(&self) -> Rc<Exchange> {
        let exchange = Rc::<Exchange>::default();
        let mut exchanges = self.exchanges.borrow_mut();
        exchange.place.set(exchanges.len());
        exchanges.push(exchange.clone());
        exchange
    }

    fn leave(&self, exchange: &Exchange) {
        let mut exchanges = self.exchanges.borrow_mut();
        let place = exchange.place.get();
        exchanges.swap_remove(place);
        if let Some(moved) = exchanges.get(place) {
            moved.place.set(place);
        }
        if exchange.stillness.is_ended() {
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
            let stillness = &exchange.stillness;
            let (since, side) = stillness.stillest().filter(|_| !stillness.is_ended())?;
            Some((since, side, stillness))
        });
        let Some((since, side, stillness)) = still.min_by_key(|(since, ..)| *since) else {
            return Err(later);
        };
        if since + GIVES_WAY > now {
            return Err(later.min(since + GIVES_WAY));
        }
        stillness.end();
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
            exchange: host.passing.enter(),
            host: host.clone(),
            timer: None,
            written: 0,
        }
    }

    pub(super) fn stillness(&self) -> &Rc<Stillness> {
        &self.exchange.stillness
    }

    /// A piece came.
    pub(super) fn moved(&self) {
        self.stillness().moved(Side::Upstream);
    }

    /// The API is waited for: ready once that is to end. `written` is how much has gone out of a
    /// request that is not yet sent whole: while that moves, the API is not still.
    pub(super) fn poll_end(&mut self, written: u64, cx: &mut Context<'_>) -> Poll<Broken> {
        let since = self.since(written, cx);
        if self.stillness().is_ended() {
            return Poll::Ready(Broken::GaveWay);
        }
        let deadline = since + self.host.limits.stall_timeout;
        let timer = match &mut self.timer {
            Some(timer) => timer,
            None => self.timer.insert(self.host.alarms.take(deadline)),
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
        match self.stillness().is_ended() {
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
        self.stillness().waits(Side::Upstream, Instant::now(), cx)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.host.passing.leave(&self.exchange);
        if let Some(timer) = self.timer.take() {
            self.host.alarms.put(timer);
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
        let _waiting = self.passing.wait();
        let mut acquiring = pin!(self.free.clone().acquire_owned());
        loop {
            let again = match self.passing.give_way(Instant::now()) {
                Ok(side) => {
                    self.count_cut(side.into(), CutReason::GaveWay);
                    self.target.condition.gave_way(side);
                    continue;
                }
                Err(again) => again.min(deadline),
            };
            match self.alarms.until(again, acquiring.as_mut()).await {
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
        let passing = Passing::default();
        let cx = Context::from_waker(Waker::noop());
        let start = Instant::now();
        let now = start + 60 * SECOND;
        let moving = passing.enter();
        let still = |seconds: u32, side| {
            let exchange = passing.enter();
            let since = start + seconds * SECOND;
            exchange.stillness.waits(side, since, &cx);
            exchange
        };
        let later = still(3, Side::Upstream);
        let first = still(1, Side::Caller);
        let last = still(58, Side::Upstream);
        let second = still(2, Side::Upstream);

        assert_eq!(passing.give_way(now), Err(now + SECOND), "nobody waits");
        let one = passing.wait();
        assert_eq!(passing.give_way(now), Ok(Side::Caller));
        assert!(first.stillness.is_ended());
        assert_eq!(passing.give_way(now), Err(now + SECOND), "one is enough");
        let other = passing.wait();
        assert_eq!(passing.give_way(now), Ok(Side::Upstream));
        assert!(second.stillness.is_ended());
        // The first one ends, and its place goes to somebody else.
        passing.leave(&first);
        assert_eq!(passing.give_way(now), Ok(Side::Upstream));
        assert!(later.stillness.is_ended());
        passing.leave(&later);
        passing.leave(&second);
        assert_eq!(
            passing.give_way(now),
            Err(now + SECOND),
            "it is still for 2 s"
        );
        let soon = now + 2 * SECOND;
        assert_eq!(passing.give_way(soon), Err(start + 63 * SECOND));
        assert_eq!(passing.give_way(start + 63 * SECOND), Ok(Side::Upstream));
        drop((one, other));
        passing.leave(&moving);
        passing.leave(&last);
        assert!(passing.exchanges.borrow().is_empty());
        assert_eq!((passing.waiting.get(), passing.ending.get()), (0, 0));
    }
}

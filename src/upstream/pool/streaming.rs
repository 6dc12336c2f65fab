//! The answers of one host that are on their way to their callers and did not end at once. While
//! a request waits for a connection, the exchange that has been still for longest gives way: it is
//! ended. Knows which side is still, and nothing of what is sent.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::stalls::{Side, Stalls};

/// An exchange that has been still for less than this does not give way.
const GIVES_WAY: Duration = Duration::from_secs(5);

/// A request that waits for a connection looks again after this at the latest.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The exchanges of one host on one worker, and how many requests wait for one of them to end.
#[derive(Debug, Default)]
pub(super) struct Streaming {
    /// In no order; each knows its own index, so that leaving takes no search.
    exchanges: RefCell<Vec<Rc<Exchange>>>,
    /// Requests that wait for a connection.
    waiting: Cell<usize>,
    /// Exchanges that were told to end and have not.
    ending: Cell<usize>,
}

/// One of these answers.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// Which side is still; the caller's connection shares it.
    pub(super) stalls: Rc<Stalls>,
    /// Where it is in the list.
    index: Cell<usize>,
}

/// Counts one request that waits, until this is dropped.
pub(super) struct Waiting<'a>(&'a Cell<usize>);

impl Streaming {
    pub(super) fn enter(&self) -> Rc<Exchange> {
        let exchange = Rc::<Exchange>::default();
        let mut exchanges = self.exchanges.borrow_mut();
        exchange.index.set(exchanges.len());
        exchanges.push(exchange.clone());
        exchange
    }

    pub(super) fn leave(&self, exchange: &Exchange) {
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

    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.set(self.waiting.get() + 1);
        Waiting(&self.waiting)
    }

    /// Ends the exchange that has been still for longest, unless as many are ending as requests wait.
    /// Returns the side that was still, or when to look again.
    pub(super) fn give_way(&self, now: Instant) -> Result<Side, Instant> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Waker};

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

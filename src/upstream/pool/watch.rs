//! An answer that does not end at once: how long the API may be still in the middle of it, and
//! whether its connection has to be given up for another request.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::host::{Host, Slot};
use super::streaming::Exchange;
use crate::metrics::{CutReason, Stalled};
use crate::stalls::{Side, Stalls};
use crate::timer::LazyTimer;
use crate::upstream::{Broken, Error, http1};

/// An answer in the list of its host, until this is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    exchange: Rc<Exchange>,
    host: Rc<Host>,
    /// `None` until the API had to be waited for.
    timer: Option<LazyTimer>,
    /// Bytes written of a request that is not yet sent whole.
    written: u64,
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

    /// The API is waited for: ready once the exchange is to end. `written` is how many bytes of a request
    /// that is not yet sent whole were written: while that grows, the API is not still.
    pub(super) fn poll_end(&mut self, written: u64, cx: &mut Context<'_>) -> Poll<Broken> {
        let since = self.since(written, cx);
        if self.stalls().is_ended() {
            return Poll::Ready(Broken::GaveWay);
        }
        let deadline = since + self.host.limits.get().stall_timeout;
        let timer = match &mut self.timer {
            Some(timer) => timer,
            None => self.timer.insert(self.host.timers.take(deadline)),
        };
        ready!(timer.poll(deadline, cx));
        self.host.count_cut(Stalled::Upstream, CutReason::Timeout);
        drop(self.host.target.failed(Error::Broken(Broken::Stalled)));
        Poll::Ready(Broken::Stalled)
    }

    /// The answer is over, and the rest of the request does not move: ready once another request needs
    /// the connection.
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

impl http1::Held for Slot {
    fn rest(&self) -> impl FnMut(u64, &mut Context<'_>) -> Poll<()> + 'static {
        let mut watch = Watch::new(&self.host);
        move |written, cx| watch.poll_needed(written, cx)
    }
}

//! How long a caller's connection may be silent, and how long a caller may leave its answer unread.
//! hyper has one limit for a slow head and for an idle connection; callers with pools need a longer
//! one for the latter, or they meet resets. It has none for writes. Knows when a request begins and
//! ends, nothing of what is in it.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::answers::Counts;
use super::lengths::Lengths;
use super::{Handler, Times};
use crate::stalls::{Side, Stalls};
use crate::timer::LazyTimer;

/// From the first byte that could come to the last one of a head.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two requests; above the upstream's and most pools' own.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// What a connection is doing:
///
/// ```text
/// Head ── a head is complete ──▶ Busy ── the answer has ended ──▶ Idle
///  ▲                                                               │
///  └────────────────────── a byte comes ───────────────────────────┘
/// ```
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// A head is on its way, or the very first one is awaited. The deadline is set when a read first has
    /// to wait, so that a head that is there at once reads no clock.
    Head { until: Option<Instant> },
    /// A request is being answered.
    Busy,
    /// Nothing, since an answer ended. The deadline is set in the same way.
    Idle { until: Option<Instant> },
}

impl Phase {
    /// The phase of a connection whose read has to wait now.
    fn waiting(self) -> Phase {
        let from_now = |limit| Some(Instant::now() + limit);
        match self {
            Phase::Head { until: None } => Phase::Head {
                until: from_now(HEAD_TIMEOUT),
            },
            Phase::Idle { until: None } => Phase::Idle {
                until: from_now(IDLE_TIMEOUT),
            },
            known => known,
        }
    }

    fn deadline(self) -> Option<Instant> {
        match self {
            Phase::Head { until } | Phase::Idle { until } => until,
            Phase::Busy => None,
        }
    }
}

/// Why what was written to a caller must not look whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The caller does not read.
    Stalled,
    /// Its answer was broken off, and nothing but the end of the connection would say where it ends.
    Unmarked,
}

/// The state of one connection, shared by its stream and its answers: when it has to be cut off.
#[derive(Clone, Debug)]
pub(super) struct ConnectionTimeouts(Rc<State>);

#[derive(Debug)]
struct State {
    phase: Cell<Phase>,
    /// Of the answer that is being given, if it did not end at once. Written by [`Answering`], read by
    /// [`TimedStream`], which notes how long the caller reads nothing.
    stalls: RefCell<Option<Rc<Stalls>>>,
    /// Set once the connection has to be reset.
    cut: Cell<Option<Cut>>,
    /// Of the head that is on its way, or came last.
    lengths: RefCell<Lengths>,
    /// The worker's.
    counts: Rc<Counts>,
}

impl ConnectionTimeouts {
    /// With a connection that was just accepted.
    pub(super) fn new(counts: Rc<Counts>) -> ConnectionTimeouts {
        ConnectionTimeouts(Rc::new(State {
            phase: Cell::new(Phase::Head { until: None }),
            stalls: RefCell::default(),
            cut: Cell::default(),
            lengths: RefCell::default(),
            counts,
        }))
    }

    /// Whether a head is on its way, or the very first one is awaited.
    pub(super) fn awaits_a_head(&self) -> bool {
        matches!(self.0.phase.get(), Phase::Head { .. })
    }

    /// Whether the connection is to be reset.
    pub(super) fn cut(&self) -> Option<Cut> {
        self.0.cut.get()
    }

    /// Whether the head that came last has several Content-Lengths, of which hyper shows one.
    pub(super) fn has_several_lengths(&self) -> bool {
        self.0.lengths.borrow().are_several()
    }

    /// A head is complete; what this returns is to be dropped when its answer has ended.
    pub(super) fn busy(&self) -> Busy {
        self.0.phase.set(Phase::Busy);
        let under_way = &self.0.counts.under_way;
        under_way.set(under_way.get() + 1);
        Busy(self.clone())
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Busy(ConnectionTimeouts);

impl Drop for Busy {
    fn drop(&mut self) {
        let State {
            phase,
            stalls,
            counts,
            ..
        } = &*self.0.0;
        phase.set(Phase::Idle { until: None });
        if let Some(stalls) = stalls.take() {
            // What the caller has not read is no longer the exchange's.
            stalls.progressed(Side::Caller);
        }
        counts.under_way.set(counts.under_way.get() - 1);
        counts.ended.set(counts.ended.get() + 1);
    }
}

impl Busy {
    /// The answer does not end at once: how its caller reads it is noted from now on.
    fn watch(&self, stalls: &Rc<Stalls>) {
        let mut watched = self.0.0.stalls.borrow_mut();
        if watched.is_none() {
            *watched = Some(stalls.clone());
        }
    }
}

/// A caller's stream whose reads and writes fail when its connection has timed out.
pub(super) struct TimedStream<S> {
    stream: S,
    timeouts: ConnectionTimeouts,
    /// Among them, how long nothing of what is written may be taken. Looked at when a write has to wait.
    times: watch::Receiver<Times>,
    /// Since when a write waits for the caller.
    blocked: Option<Instant>,
    /// Looked at only while a read or a write waits.
    timer: LazyTimer,
}

impl<S> TimedStream<S> {
    pub(super) fn new(
        stream: S,
        timeouts: ConnectionTimeouts,
        times: watch::Receiver<Times>,
    ) -> TimedStream<S> {
        TimedStream {
            stream,
            timeouts,
            times,
            blocked: None,
            timer: LazyTimer::new(Instant::now() + HEAD_TIMEOUT),
        }
    }

    /// The stream, without timeouts.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// What became of a write. One that waits fails once nothing was taken for too long, or if its
    /// exchange is to end.
    fn written<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(written) => {
                if self.blocked.is_some() {
                    self.caller_reads();
                }
                Poll::Ready(written)
            }
            Poll::Pending => self.wait_for_the_caller(context).map(Err),
        }
    }

    #[cold]
    fn caller_reads(&mut self) {
        self.blocked = None;
        if let Some(stalls) = &*self.timeouts.0.stalls.borrow() {
            stalls.progressed(Side::Caller);
        }
    }

    #[cold]
    fn wait_for_the_caller(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let State { stalls, cut, .. } = &*self.timeouts.0;
        let since = *self.blocked.get_or_insert_with(Instant::now);
        if let Some(stalls) = &*stalls.borrow() {
            stalls.waiting_for(Side::Caller, since, context);
            if stalls.is_ended() {
                cut.set(Some(Cut::Unmarked));
                return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
            }
        }
        let stall_timeout = self.times.borrow().stall_timeout;
        ready!(self.timer.poll(since + stall_timeout, context));
        cut.set(Some(Cut::Stalled));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let phase = self.timeouts.0.phase.get();
        let before = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            let state = &*self.timeouts.0;
            if let Phase::Idle { .. } = phase {
                state.phase.set(Phase::Head { until: None });
                state.lengths.borrow_mut().reset();
            }
            if !matches!(phase, Phase::Busy) {
                let piece = &buffer.filled()[before..];
                state.lengths.borrow_mut().read(piece);
            }
            return Poll::Ready(read);
        }
        let phase = phase.waiting();
        self.timeouts.0.phase.set(phase);
        let Some(deadline) = phase.deadline() else {
            return Poll::Pending;
        };
        ready!(self.timer.poll(deadline, context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.written(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut_down = Pin::new(&mut self.stream).poll_shutdown(context);
        self.written(shut_down, context)
    }
}

/// An answer's content that keeps its connection busy until it has ended.
pub(super) struct Answering<H: Handler> {
    pub(super) content: H::Content,
    pub(super) busy: Busy,
    /// Whether the end of the connection alone says where the content ends (RFC 9112 §6.3): to HTTP/1.0,
    /// where no length is known.
    pub(super) is_unmarked: bool,
}

impl<H: Handler> Body for Answering<H> {
    type Data = <H::Content as Body>::Data;
    type Error = <H::Content as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = Pin::new(&mut self.content).poll_frame(context);
        if let Some(stalls) = H::stalls(&self.content) {
            self.busy.watch(stalls);
        }
        if self.is_unmarked && matches!(frame, Poll::Ready(Some(Err(_)))) {
            self.busy.0.0.cut.set(Some(Cut::Unmarked));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

#[cfg(test)]
mod tests;

//! How long a caller's connection may be silent. hyper has one limit for a slow head and for an
//! idle connection; callers with pools need a longer one for the latter, or they meet resets. Knows
//! when a request begins and ends, nothing of what is in it.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::answers::Counts;
use crate::alarm::Alarm;

/// From the first byte that could come to the last one of a head.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two requests; above the upstream's and most pools' own.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// What a connection is doing.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// A head is on its way, or the very first one is awaited; since when is noted once it keeps
    /// somebody waiting.
    Head { until: Option<Instant> },
    /// A request is being answered.
    Busy,
    /// Nothing, since an answer ended; noted likewise.
    Idle { until: Option<Instant> },
}

impl Phase {
    /// The phase of somebody who waits now.
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

/// The phase of one connection, shared by its stream and its answers.
#[derive(Clone, Debug)]
pub(super) struct Patience(Rc<State>);

#[derive(Debug)]
struct State {
    phase: Cell<Phase>,
    /// The worker's.
    counts: Rc<Counts>,
}

impl Patience {
    /// With a connection that was just accepted.
    pub(super) fn new(counts: Rc<Counts>) -> Patience {
        Patience(Rc::new(State {
            phase: Cell::new(Phase::Head { until: None }),
            counts,
        }))
    }

    /// Whether a head is on its way, or the very first one is awaited.
    pub(super) fn awaits_a_head(&self) -> bool {
        matches!(self.0.phase.get(), Phase::Head { .. })
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
pub(super) struct Busy(Patience);

impl Drop for Busy {
    fn drop(&mut self) {
        let State { phase, counts } = &*self.0.0;
        phase.set(Phase::Idle { until: None });
        counts.under_way.set(counts.under_way.get() - 1);
        counts.ended.set(counts.ended.get() + 1);
    }
}

/// A caller's stream whose reads fail when the patience with it ends.
pub(super) struct Patient<S> {
    stream: S,
    patience: Patience,
    /// Looked at only while a read waits.
    timer: Alarm,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, patience: Patience) -> Patient<S> {
        Patient {
            stream,
            patience,
            timer: Alarm::new(Instant::now() + HEAD_TIMEOUT),
        }
    }

    /// The stream, which nobody is impatient with any more.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let phase = self.patience.0.phase.get();
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            if let Phase::Idle { .. } = phase {
                self.patience.0.phase.set(Phase::Head { until: None });
            }
            return Poll::Ready(read);
        }
        let phase = phase.waiting();
        self.patience.0.phase.set(phase);
        let Some(deadline) = phase.deadline() else {
            return Poll::Pending;
        };
        ready!(self.timer.poll(deadline, context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// An answer's content that keeps its connection busy until it has ended.
pub(super) struct Answering<C> {
    pub(super) content: C,
    pub(super) _busy: Busy,
}

impl<C: Body + Unpin> Body for Answering<C> {
    type Data = C::Data;
    type Error = C::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<C::Data>, C::Error>>> {
        Pin::new(&mut self.content).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    async fn silence(patient: &mut Patient<tokio::io::DuplexStream>) -> Duration {
        let before = Instant::now();
        let error = patient.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        before.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_is_cut_from_its_first_byte_and_an_idle_connection_later() {
        let (mut caller, stream) = duplex(64);
        let patience = Patience::new(Rc::default());
        let mut patient = Patient::new(stream, patience.clone());
        caller.write_all(b"GE").await.unwrap();
        patient.read_u16().await.unwrap();
        assert_eq!(silence(&mut patient).await, HEAD_TIMEOUT);

        drop(patience.busy());
        assert_eq!(silence(&mut patient).await, IDLE_TIMEOUT);

        drop(patience.busy());
        caller.write_all(b"G").await.unwrap();
        patient.read_u8().await.unwrap();
        assert_eq!(silence(&mut patient).await, HEAD_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_being_answered_may_take_any_time() {
        let (_caller, stream) = duplex(64);
        let patience = Patience::new(Rc::default());
        let mut patient = Patient::new(stream, patience.clone());
        let _busy = patience.busy();
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, patient.read_u8()).await.is_err());
    }
}

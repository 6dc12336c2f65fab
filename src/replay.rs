//! Content recorded while it streams upstream, so that it can be sent again. The [`Recorder`] owns
//! the caller's content; what goes upstream is a view of it, which can be taken back when the
//! answer comes before all was sent. Knows neither status codes nor tokens. Everything of one
//! request stays on its worker's thread.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::{Instant, Sleep};

/// A caller that sends no content for so long is not waited for (hardening.md, "Requests").
const IDLE: Duration = Duration::from_secs(10);

/// Part of the configuration: `[renewal] replay_limit` and `replay_memory`.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes kept of one request's content.
    pub limit: u64,
    /// Bytes kept over all requests.
    pub memory: u64,
}

/// Lends the memory that recordings take, over all requests of all workers.
#[derive(Debug)]
pub struct Memory {
    settings: Settings,
    /// The account itself, not a copy of it, so that the metric cannot drift from the truth.
    lent: Gauge<i64, AtomicI64>,
}

impl Memory {
    /// Accounts for what is lent in `lent`.
    pub fn new(settings: Settings, lent: Gauge<i64, AtomicI64>) -> Memory {
        Memory { settings, lent }
    }

    fn lend(&self, bytes: u64) -> bool {
        let bytes = signed(bytes);
        let fits = self.lent.inc_by(bytes).saturating_add(bytes) <= signed(self.settings.memory);
        if !fits {
            self.lent.dec_by(bytes);
        }
        fits
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Why content ended before it was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The caller left, or its framing broke.
    #[error("the content was cut off")]
    Cut,
    /// The caller sent nothing for 10 s.
    #[error("the content did not come in time")]
    Idle,
    /// The recorder took its view back; only the upstream connection gets to see this.
    #[error("the content is no longer sent")]
    Taken,
}

/// Why content cannot be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotKept {
    /// More than is kept of one request, or of all.
    Overflowed,
    /// It never became complete.
    Failed(Failure),
}

/// Owns one request's content. Dropping it ends the recording, not the stream: a view goes on.
#[derive(Debug)]
pub struct Recorder<C> {
    /// `None` where the request has no content.
    recording: Option<Rc<RefCell<Recording<C>>>>,
}

/// What is sent upstream: the request's content the first time or the second.
#[derive(Debug, Default)]
pub enum Content<C> {
    /// None.
    #[default]
    Empty,
    /// The caller's, as it comes.
    View(View<C>),
    /// What was kept of it.
    Kept(Kept),
}

/// The content as the upstream connection sees it.
#[derive(Debug)]
pub struct View<C>(Rc<RefCell<Recording<C>>>);

/// Content kept in memory; gives the memory back when dropped.
#[derive(Debug)]
pub struct Kept {
    /// In reverse, so that the next one pops off the end.
    chunks: Vec<Bytes>,
    left: u64,
    /// Whether the caller announced the length: a replay is framed like the first attempt.
    sized: bool,
    _loan: Loan,
}

#[derive(Debug)]
struct Recording<C> {
    source: C,
    sized: bool,
    progress: Progress,
    tape: Tape,
    view: Attachment,
    /// When the upstream connection last got content, or found none left.
    handed_over: Instant,
    /// Runs while the caller is waited for.
    idle: Pin<Box<Sleep>>,
}

/// How far the caller's content has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The upstream connection is busy with what it got.
    Streaming,
    /// The caller is to send more.
    AwaitingCaller,
    Complete,
    Failed(Failure),
}

#[derive(Debug)]
enum Tape {
    /// All so far.
    Recording(Vec<Bytes>, Loan),
    /// More than may be kept; what was, is gone.
    Overflowed,
    /// Nobody is going to replay.
    Stopped,
}

#[derive(Debug)]
enum Attachment {
    /// The waker is the upstream connection's, where it waits for content.
    Attached(Option<Waker>),
    Taken,
}

#[derive(Debug)]
struct Loan {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.memory.lent.dec_by(signed(self.bytes));
    }
}

impl<C: Body<Data = Bytes> + Unpin> Recorder<C> {
    /// Takes over a request's content. Nothing is read before a view is polled.
    pub fn new(source: C, memory: &Arc<Memory>) -> Recorder<C> {
        if source.is_end_stream() {
            return Recorder { recording: None };
        }
        let size = source.size_hint();
        let loan = Loan {
            memory: memory.clone(),
            bytes: 0,
        };
        let tape = if size.lower() > memory.settings.limit {
            Tape::Overflowed
        } else {
            Tape::Recording(Vec::new(), loan)
        };
        Recorder {
            recording: Some(Rc::new(RefCell::new(Recording {
                source,
                sized: size.exact().is_some(),
                progress: Progress::Streaming,
                tape,
                view: Attachment::Attached(None),
                handed_over: Instant::now(),
                idle: Box::pin(tokio::time::sleep(IDLE)),
            }))),
        }
    }

    /// The content for the first attempt.
    pub fn view(&self) -> Content<C> {
        match &self.recording {
            Some(recording) => Content::View(View(recording.clone())),
            None => Content::Empty,
        }
    }

    /// Whether a replay is still possible.
    pub fn keeps(&self) -> bool {
        self.recording
            .as_ref()
            .is_none_or(|r| matches!(r.borrow().tape, Tape::Recording(..)))
    }

    /// Whether all of the content has been read.
    pub fn is_complete(&self) -> bool {
        self.recording
            .as_ref()
            .is_none_or(|r| r.borrow().progress == Progress::Complete)
    }

    /// What went wrong with the caller's content, if anything did.
    pub fn failure(&self) -> Option<Failure> {
        match self.recording.as_ref()?.borrow().progress {
            Progress::Failed(failure) => Some(failure),
            Progress::Streaming | Progress::AwaitingCaller | Progress::Complete => None,
        }
    }

    /// Takes the view back, reads on to the end, and gives out all of it for a second attempt.
    pub async fn into_kept(self) -> Result<Content<C>, NotKept> {
        let Some(recording) = &self.recording else {
            return Ok(Content::Empty);
        };
        recording.borrow_mut().take_view();
        while self.keeps() {
            match poll_fn(|cx| recording.borrow_mut().poll_chunk(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(failure)) => return Err(NotKept::Failed(failure)),
                None => return recording.borrow_mut().rewind().map(Content::Kept),
            }
        }
        Err(NotKept::Overflowed)
    }

    /// Takes the view back and reads at most `limit` bytes more to the end, for at most `within`,
    /// keeping nothing: so that an answer given early is not lost in a reset connection.
    pub async fn drain(&self, limit: u64, within: Duration) {
        let Some(recording) = &self.recording else {
            return;
        };
        recording.borrow_mut().take_view();
        recording.borrow_mut().tape = Tape::Stopped;
        let rest = async {
            let mut left = limit;
            while let Some(Ok(chunk)) = poll_fn(|cx| recording.borrow_mut().poll_chunk(cx)).await {
                match left.checked_sub(chunk.len() as u64) {
                    Some(less) => left = less,
                    None => return,
                }
            }
        };
        // Running out of time means the same as running out of bytes: the connection closes.
        let _ = tokio::time::timeout(within, rest).await;
    }

    /// Ends when the upstream connection has had all content, or leaves content lying, for
    /// `silence`. Time spent waiting for the caller does not count.
    pub fn silent_for(&self, silence: Duration) -> impl Future<Output = ()> + use<C> {
        let recording = self.recording.clone();
        async move {
            let mut until = Instant::now() + silence;
            loop {
                tokio::time::sleep_until(until).await;
                let Some(recording) = &recording else {
                    return;
                };
                let recording = recording.borrow();
                let now = Instant::now();
                until = match recording.progress {
                    Progress::AwaitingCaller => now + silence,
                    Progress::Streaming | Progress::Complete | Progress::Failed(_) => {
                        recording.handed_over + silence
                    }
                };
                if until <= now {
                    return;
                }
            }
        }
    }
}

impl<C> Drop for Recorder<C> {
    fn drop(&mut self) {
        if let Some(recording) = &self.recording {
            recording.borrow_mut().tape = Tape::Stopped;
        }
    }
}

impl<C> Recording<C> {
    fn take_view(&mut self) {
        if let Attachment::Attached(Some(waiting)) =
            std::mem::replace(&mut self.view, Attachment::Taken)
        {
            waiting.wake();
        }
    }

    fn rewind(&mut self) -> Result<Kept, NotKept> {
        match std::mem::replace(&mut self.tape, Tape::Stopped) {
            Tape::Recording(mut chunks, loan) => {
                chunks.reverse();
                Ok(Kept {
                    chunks,
                    left: loan.bytes,
                    sized: self.sized,
                    _loan: loan,
                })
            }
            Tape::Overflowed | Tape::Stopped => Err(NotKept::Overflowed),
        }
    }

    fn keep(&mut self, chunk: &Bytes) {
        let Tape::Recording(chunks, loan) = &mut self.tape else {
            return;
        };
        let bytes = chunk.len() as u64;
        let limit = loan.memory.settings.limit;
        if loan.bytes + bytes <= limit && loan.memory.lend(bytes) {
            loan.bytes += bytes;
            chunks.push(chunk.clone());
        } else {
            self.tape = Tape::Overflowed;
        }
    }
}

impl<C: Body<Data = Bytes> + Unpin> Recording<C> {
    /// The next chunk of the caller's content, kept if it may be. Trailers are dropped.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        match self.progress {
            Progress::Complete => return Poll::Ready(None),
            Progress::Failed(failure) => return Poll::Ready(Some(Err(failure))),
            Progress::Streaming | Progress::AwaitingCaller => {}
        }
        loop {
            let failure = match Pin::new(&mut self.source).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(chunk) = frame.into_data() else {
                        continue;
                    };
                    self.keep(&chunk);
                    // hyper does not ask again once it has what was announced.
                    self.progress = if self.source.is_end_stream() {
                        Progress::Complete
                    } else {
                        Progress::Streaming
                    };
                    self.handed_over = Instant::now();
                    return Poll::Ready(Some(Ok(chunk)));
                }
                Poll::Ready(None) => {
                    self.progress = Progress::Complete;
                    self.handed_over = Instant::now();
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(_))) => Failure::Cut,
                Poll::Pending => {
                    if self.progress == Progress::Streaming {
                        self.progress = Progress::AwaitingCaller;
                        self.idle.as_mut().reset(Instant::now() + IDLE);
                    }
                    ready!(self.idle.as_mut().poll(cx));
                    Failure::Idle
                }
            };
            self.progress = Progress::Failed(failure);
            return Poll::Ready(Some(Err(failure)));
        }
    }
}

impl<C: Body<Data = Bytes> + Unpin> Body for Content<C> {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match self.get_mut() {
            Content::Empty => Poll::Ready(None),
            Content::View(View(recording)) => {
                let mut recording = recording.borrow_mut();
                if matches!(recording.view, Attachment::Taken) {
                    return Poll::Ready(Some(Err(Failure::Taken)));
                }
                let chunk = recording.poll_chunk(cx);
                if chunk.is_pending() {
                    recording.view = Attachment::Attached(Some(cx.waker().clone()));
                }
                chunk.map_ok(Frame::data)
            }
            Content::Kept(kept) => Poll::Ready(kept.chunks.pop().map(|chunk| {
                kept.left -= chunk.len() as u64;
                Ok(Frame::data(chunk))
            })),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Content::Empty => true,
            // A view that was taken has not ended well, even if nothing is left to read.
            Content::View(View(recording)) => recording.borrow().progress == Progress::Complete,
            Content::Kept(kept) => kept.sized && kept.left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Content::Empty => SizeHint::with_exact(0),
            Content::View(View(recording)) => recording.borrow().source.size_hint(),
            Content::Kept(kept) if kept.sized => SizeHint::with_exact(kept.left),
            Content::Kept(_) => SizeHint::default(),
        }
    }
}

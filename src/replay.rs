//! Content recorded while it streams upstream, so that it can be sent again. The [`Recorder`] owns
//! the caller's content; what goes upstream is a view of it, which can be taken back when the
//! answer comes before all was sent. Knows neither status codes nor tokens. Everything of one
//! request stays on its worker's thread.

mod content;
mod memory;

pub use content::{Content, Kept, View};
pub use memory::Memory;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use tokio::time::{Instant, Sleep};

use crate::timer::{PooledTimer, TimerPool};
use memory::MemoryPermit;

/// A caller that sends no content for this long is not waited for.
const IDLE: Duration = Duration::from_secs(10);

/// Part of the configuration: `[renewal] replay_limit` and `replay_memory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes kept of one request's content.
    pub limit: u64,
    /// Bytes kept over all requests.
    pub memory: u64,
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

/// Owns one request's content. Dropping it ends the recording, not the stream: a view is still read.
#[derive(Debug)]
pub struct Recorder<C> {
    /// `None` if the request has no content.
    recording: Option<Rc<RefCell<Recording<C>>>>,
}

/// Ends once the API has been silent for `timeout`: it has had all content, or leaves content unread.
#[derive(Debug)]
pub struct UpstreamDeadline<'a, C> {
    recording: Option<&'a RefCell<Recording<C>>>,
    timeout: Duration,
    /// Not before this.
    until: Instant,
    timer: PooledTimer<'a>,
}

#[derive(Debug)]
struct Recording<C> {
    source: C,
    sized: bool,
    progress: Progress,
    buffer: Buffer,
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
enum Buffer {
    /// All so far: a copy, because a chunk, however small, pins the whole buffer it was read into.
    Recording(Vec<u8>, MemoryPermit),
    /// More than may be kept; what was, is gone.
    Overflowed,
    /// No replay will follow.
    Stopped,
}

#[derive(Debug)]
enum Attachment {
    /// The waker is the upstream connection's, if it waits for content.
    Attached(Option<Waker>),
    Taken,
}

impl<C: Body<Data = Bytes> + Unpin> Recorder<C> {
    /// Takes over a request's content, of which at most `limit` bytes are kept. Nothing is read before a
    /// view is polled.
    pub fn new(source: C, memory: &Arc<Memory>, limit: u64) -> Recorder<C> {
        if source.is_end_stream() {
            return Recorder { recording: None };
        }
        let size = source.size_hint();
        let permit = MemoryPermit::of(memory, limit);
        let buffer = if size.lower() > limit {
            Buffer::Overflowed
        } else {
            Buffer::Recording(Vec::new(), permit)
        };
        Recorder {
            recording: Some(Rc::new(RefCell::new(Recording {
                source,
                sized: size.exact().is_some(),
                progress: Progress::Streaming,
                buffer,
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
            .is_none_or(|r| matches!(r.borrow().buffer, Buffer::Recording(..)))
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

    /// A copy of all of it, if it was read to its end and kept.
    pub fn recorded(&self) -> Option<Bytes> {
        let recording = self.recording.as_ref()?.borrow();
        match &recording.buffer {
            Buffer::Recording(content, _) if recording.progress == Progress::Complete => {
                Some(Bytes::copy_from_slice(content))
            }
            Buffer::Recording(..) | Buffer::Overflowed | Buffer::Stopped => None,
        }
    }

    /// Takes the view back, reads on to the end, and gives out all of it for a second attempt.
    pub async fn kept(&self) -> Result<Content<C>, NotKept> {
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
        recording.borrow_mut().buffer = Buffer::Stopped;
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
    /// `timeout` from `now` on. Time spent waiting for the caller does not count.
    pub fn upstream_deadline<'a>(
        &'a self,
        timeout: Duration,
        now: Instant,
        timers: &'a TimerPool,
    ) -> UpstreamDeadline<'a, C> {
        let until = now + timeout;
        UpstreamDeadline {
            recording: self.recording.as_deref(),
            timeout,
            until,
            timer: timers.pooled(until),
        }
    }
}

impl<C> Future for UpstreamDeadline<'_, C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            ready!(this.timer.poll(this.until, cx));
            let Some(recording) = this.recording else {
                return Poll::Ready(());
            };
            let recording = recording.borrow();
            let now = Instant::now();
            this.until = match recording.progress {
                Progress::AwaitingCaller => now + this.timeout,
                Progress::Streaming | Progress::Complete | Progress::Failed(_) => {
                    recording.handed_over + this.timeout
                }
            };
            if this.until <= now {
                return Poll::Ready(());
            }
        }
    }
}

impl<C> Drop for Recorder<C> {
    fn drop(&mut self) {
        if let Some(recording) = &self.recording {
            recording.borrow_mut().buffer = Buffer::Stopped;
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
        match std::mem::replace(&mut self.buffer, Buffer::Stopped) {
            Buffer::Recording(content, permit) => Ok(Kept {
                content: (!content.is_empty()).then(|| content.into()),
                sized: self.sized,
                _permit: permit,
            }),
            Buffer::Overflowed | Buffer::Stopped => Err(NotKept::Overflowed),
        }
    }

    fn keep(&mut self, chunk: &[u8]) {
        let Buffer::Recording(content, permit) = &mut self.buffer else {
            return;
        };
        if permit.cover(content.len() + chunk.len()) {
            content.reserve_exact(permit.bytes as usize - content.len());
            content.extend_from_slice(chunk);
        } else {
            self.buffer = Buffer::Overflowed;
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

#[cfg(test)]
mod tests;

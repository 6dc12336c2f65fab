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
#[derive(Clone, Copy, Debug)]
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

/// Owns one request's content. Dropping it ends the recording, not the stream: a view goes on.
#[derive(Debug)]
pub struct Recorder<C> {
    /// `None` where the request has no content.
    recording: Option<Rc<RefCell<Recording<C>>>>,
}

/// Ends once nothing was heard of upstream for long enough.
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
    /// Nobody is going to replay.
    Stopped,
}

#[derive(Debug)]
enum Attachment {
    /// The waker is the upstream connection's, where it waits for content.
    Attached(Option<Waker>),
    Taken,
}

impl<C: Body<Data = Bytes> + Unpin> Recorder<C> {
    /// Takes over a request's content. Nothing is read before a view is polled.
    pub fn new(source: C, memory: &Arc<Memory>) -> Recorder<C> {
        if source.is_end_stream() {
            return Recorder { recording: None };
        }
        let size = source.size_hint();
        let permit = MemoryPermit::of(memory);
        let buffer = if size.lower() > memory.settings.limit {
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

    /// A copy of all of it, where it was read to its end and kept.
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
mod tests {
    use super::*;
    use http_body::{Frame, SizeHint};
    use http_body_util::BodyExt;
    use prometheus_client::metrics::gauge::Gauge;
    use tokio::sync::mpsc;

    /// Content that a test sends piece by piece.
    #[derive(Debug)]
    struct Caller {
        pieces: mpsc::UnboundedReceiver<Result<Frame<Bytes>, &'static str>>,
        size: SizeHint,
    }

    type Sender = mpsc::UnboundedSender<Result<Frame<Bytes>, &'static str>>;

    impl Body for Caller {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            self.pieces.poll_recv(cx)
        }

        fn size_hint(&self) -> SizeHint {
            self.size
        }
    }

    fn caller(size: SizeHint) -> (Sender, Caller) {
        let (sender, pieces) = mpsc::unbounded_channel();
        (sender, Caller { pieces, size })
    }

    fn say(sender: &Sender, piece: &'static str) {
        sender
            .send(Ok(Frame::data(Bytes::from_static(piece.as_bytes()))))
            .unwrap();
    }

    fn memory(limit: u64, memory: u64) -> Arc<Memory> {
        let settings = Settings { limit, memory };
        Arc::new(Memory::new(settings, Gauge::default()))
    }

    async fn text(content: Content<Caller>) -> String {
        let bytes = content.collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    async fn next(content: &mut Content<Caller>) -> Option<Result<Bytes, Failure>> {
        let frame = content.frame().await?;
        Some(frame.map(|frame| frame.into_data().unwrap()))
    }

    /// All ways in which the answer may come: after `read` of three pieces, with the caller having
    /// said all of them or not yet, below and above the limit.
    #[tokio::test]
    async fn wherever_the_answer_came_the_replay_is_byte_for_byte_the_same() {
        for limit in [9, 8] {
            for read in 0..=4 {
                for said_before in 0..=3 {
                    let pieces = ["abc", "def", "ghi"];
                    let memory = memory(limit, 100);
                    let (sender, source) = caller(SizeHint::default());
                    let recorder = Recorder::new(source, &memory);
                    let mut view = recorder.view();
                    let read = read.min(said_before + usize::from(said_before == 3));
                    pieces[..said_before].iter().for_each(|p| say(&sender, p));
                    let mut sender = Some(sender);
                    if said_before == 3 {
                        sender = None;
                    }
                    for _ in 0..read {
                        next(&mut view).await.transpose().unwrap();
                    }
                    let answered_early = recorder.kept();
                    if let Some(sender) = sender {
                        pieces[said_before..].iter().for_each(|p| say(&sender, p));
                    }
                    match answered_early.await {
                        Ok(kept) => {
                            assert_eq!(limit, 9, "{read} {said_before}");
                            assert_eq!(text(kept).await, "abcdefghi", "{read} {said_before}");
                        }
                        Err(error) => {
                            assert_eq!((limit, error), (8, NotKept::Overflowed));
                        }
                    }
                    assert_eq!(memory.reserved.get(), 0, "all memory is given back");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_request_without_content_is_replayed_without() {
        let recorder = Recorder::new(http_body_util::Empty::new(), &memory(1, 1));
        assert!(recorder.keeps() && recorder.is_complete());
        assert!(recorder.view().is_end_stream());
        assert!(recorder.kept().await.unwrap().is_end_stream());
    }

    #[tokio::test]
    async fn a_view_that_was_taken_ends_in_an_error_even_while_it_waits() {
        let (sender, source) = caller(SizeHint::with_exact(6));
        let recorder = Recorder::new(source, &memory(10, 10));
        let mut view = recorder.view();
        say(&sender, "abc");
        next(&mut view).await.unwrap().unwrap();
        let waiting = next(&mut view);
        let replaying = async {
            // Both are polled in turn: the view waits by now.
            let kept = recorder.kept();
            say(&sender, "def");
            drop(sender);
            text(kept.await.unwrap()).await
        };
        let (waited, replayed) = tokio::join!(waiting, replaying);
        assert_eq!(waited, Some(Err(Failure::Taken)));
        assert_eq!(replayed, "abcdef");
    }

    #[tokio::test]
    async fn content_announced_as_too_long_is_not_kept_from_the_start() {
        let (_sender, source) = caller(SizeHint::with_exact(11));
        assert!(!Recorder::new(source, &memory(10, 100)).keeps());
    }

    #[tokio::test]
    async fn one_recording_too_many_for_the_memory_is_given_up_and_the_others_stay() {
        let memory = memory(10, 5);
        let (first_sender, first) = caller(SizeHint::default());
        let (second_sender, second) = caller(SizeHint::default());
        let (first, second) = (
            Recorder::new(first, &memory),
            Recorder::new(second, &memory),
        );
        say(&first_sender, "abc");
        say(&second_sender, "def");
        next(&mut first.view()).await.unwrap().unwrap();
        let mut view = second.view();
        assert_eq!(next(&mut view).await.unwrap().unwrap(), "def");
        assert_eq!((first.keeps(), second.keeps()), (true, false));
        assert_eq!(memory.reserved.get(), 3);
        drop(first);
        assert_eq!(memory.reserved.get(), 0);
    }

    #[tokio::test]
    async fn small_pieces_do_not_keep_the_buffers_that_they_were_read_into() {
        let memory = memory(100, 100);
        let (sender, source) = caller(SizeHint::default());
        let recorder = Recorder::new(source, &memory);
        let mut view = recorder.view();
        let buffer = Arc::new([b'a'; 64 * 1024]);
        for _ in 0..10 {
            let piece = Bytes::from_owner(ReadBuffer(buffer.clone())).slice(..1);
            sender.send(Ok(Frame::data(piece))).unwrap();
            next(&mut view).await.unwrap().unwrap();
        }
        assert_eq!(Arc::strong_count(&buffer), 1);
        assert!((10..=20).contains(&memory.reserved.get()));
        drop(sender);
        assert_eq!(text(recorder.kept().await.unwrap()).await, "a".repeat(10));
    }

    struct ReadBuffer(Arc<[u8; 64 * 1024]>);

    impl AsRef<[u8]> for ReadBuffer {
        fn as_ref(&self) -> &[u8] {
            &*self.0
        }
    }

    #[tokio::test]
    async fn dropping_the_recorder_ends_the_recording_and_not_the_stream() {
        let memory = memory(10, 10);
        let (sender, source) = caller(SizeHint::default());
        let recorder = Recorder::new(source, &memory);
        let mut view = recorder.view();
        say(&sender, "abc");
        next(&mut view).await.unwrap().unwrap();
        drop(recorder);
        assert_eq!(memory.reserved.get(), 0);
        say(&sender, "def");
        drop(sender);
        assert_eq!(text(view).await, "def");
    }

    #[tokio::test]
    async fn content_that_is_cut_or_has_trailers_is_told_apart() {
        let (sender, source) = caller(SizeHint::default());
        let recorder = Recorder::new(source, &memory(10, 10));
        say(&sender, "abc");
        sender.send(Err("reset")).unwrap();
        assert_eq!(
            recorder.kept().await.unwrap_err(),
            NotKept::Failed(Failure::Cut)
        );
        assert_eq!(recorder.failure(), Some(Failure::Cut));

        let (sender, source) = caller(SizeHint::default());
        let recorder = Recorder::new(source, &memory(10, 10));
        say(&sender, "abc");
        sender
            .send(Ok(Frame::trailers(http::HeaderMap::new())))
            .unwrap();
        drop(sender);
        assert_eq!(text(recorder.kept().await.unwrap()).await, "abc");
    }

    #[tokio::test]
    async fn a_replay_is_framed_like_the_first_attempt() {
        for (size, exact) in [
            (SizeHint::with_exact(3), Some(3)),
            (SizeHint::default(), None),
        ] {
            let (sender, source) = caller(size);
            let recorder = Recorder::new(source, &memory(10, 10));
            say(&sender, "abc");
            drop(sender);
            assert_eq!(recorder.view().size_hint().exact(), exact);
            let kept = recorder.kept().await.unwrap();
            assert_eq!(kept.size_hint().exact(), exact);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_stops_sending_is_waited_for_ten_seconds_after_each_piece() {
        let (sender, source) = caller(SizeHint::default());
        let recorder = Recorder::new(source, &memory(10, 10));
        let mut view = recorder.view();
        let started = Instant::now();
        let slow = async {
            for _ in 0..3 {
                tokio::time::sleep(IDLE * 9 / 10).await;
                say(&sender, "a");
            }
        };
        let reading = async {
            for _ in 0..3 {
                next(&mut view).await.unwrap().unwrap();
            }
            next(&mut view).await
        };
        let ((), last) = tokio::join!(slow, reading);
        assert_eq!(last, Some(Err(Failure::Idle)));
        assert_eq!(started.elapsed().as_secs(), 37);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_last_piece_but_not_waits_for_the_caller() {
        let (sender, source) = caller(SizeHint::default());
        let recorder = Recorder::new(source, &memory(10, 10));
        let mut view = recorder.view();
        let started = Instant::now();
        let timers = TimerPool::default();
        let sending = async {
            tokio::time::sleep(Duration::from_secs(8)).await;
            drop(sender);
        };
        let reading = async { assert_eq!(next(&mut view).await, None) };
        tokio::join!(
            sending,
            reading,
            recorder.upstream_deadline(Duration::from_secs(3), Instant::now(), &timers)
        );
        // Never before 8 + 3; looking only every 3 s may make it a little later.
        assert!((11..=14).contains(&started.elapsed().as_secs()));
    }

    #[tokio::test(start_paused = true)]
    async fn draining_ends_at_the_limit_at_the_end_or_in_time() {
        let within = Duration::from_secs(1);
        for (pieces, hung_up, complete) in [
            (vec!["abc"], true, true),
            (vec!["abc", "def"], true, false),
            (vec!["abc"], false, false),
        ] {
            let (sender, source) = caller(SizeHint::default());
            let recorder = Recorder::new(source, &memory(10, 10));
            pieces.iter().for_each(|piece| say(&sender, piece));
            let sender = (!hung_up).then_some(sender);
            recorder.drain(5, within).await;
            assert_eq!(recorder.is_complete(), complete, "{pieces:?}");
            drop(sender);
        }
    }
}

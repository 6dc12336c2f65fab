//! Content that a caller sends piece by piece, and every moment at which an answer may come.

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

fn memory(limit: u64) -> Arc<Memory> {
    Arc::new(Memory::new(limit, Gauge::default()))
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
                let memory = memory(100);
                let (sender, source) = caller(SizeHint::default());
                let recorder = Recorder::new(source, &memory, limit);
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
    let recorder = Recorder::new(http_body_util::Empty::new(), &memory(1), 1);
    assert!(recorder.keeps() && recorder.is_complete());
    assert!(recorder.view().is_end_stream());
    assert!(recorder.kept().await.unwrap().is_end_stream());
}

#[tokio::test]
async fn a_view_that_was_taken_ends_in_an_error_even_while_it_waits() {
    let (sender, source) = caller(SizeHint::with_exact(6));
    let recorder = Recorder::new(source, &memory(10), 10);
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
    assert!(!Recorder::new(source, &memory(100), 10).keeps());
}

#[tokio::test]
async fn one_recording_too_many_for_the_memory_is_given_up_and_the_others_stay() {
    let memory = memory(5);
    let (first_sender, first) = caller(SizeHint::default());
    let (second_sender, second) = caller(SizeHint::default());
    let (first, second) = (
        Recorder::new(first, &memory, 10),
        Recorder::new(second, &memory, 10),
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
    let memory = memory(100);
    let (sender, source) = caller(SizeHint::default());
    let recorder = Recorder::new(source, &memory, 100);
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
    let memory = memory(10);
    let (sender, source) = caller(SizeHint::default());
    let recorder = Recorder::new(source, &memory, 10);
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
    let recorder = Recorder::new(source, &memory(10), 10);
    say(&sender, "abc");
    sender.send(Err("reset")).unwrap();
    assert_eq!(
        recorder.kept().await.unwrap_err(),
        NotKept::Failed(Failure::Cut)
    );
    assert_eq!(recorder.failure(), Some(Failure::Cut));

    let (sender, source) = caller(SizeHint::default());
    let recorder = Recorder::new(source, &memory(10), 10);
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
        let recorder = Recorder::new(source, &memory(10), 10);
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
    let recorder = Recorder::new(source, &memory(10), 10);
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
    let recorder = Recorder::new(source, &memory(10), 10);
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
        let recorder = Recorder::new(source, &memory(10), 10);
        pieces.iter().for_each(|piece| say(&sender, piece));
        let sender = (!hung_up).then_some(sender);
        recorder.drain(5, within).await;
        assert_eq!(recorder.is_complete(), complete, "{pieces:?}");
        drop(sender);
    }
}

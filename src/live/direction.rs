//! One direction of a session, from where it is read to where it is written. Frames are passed on
//! byte for byte, masks included; text is collected only if it is asked for. Knows nothing
//! of what the messages say, but that a caller's must hold no token of the proxy's own.

use std::cell::Cell;
use std::io;
use std::mem;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use super::frames::{self, CloseCode, Head, Kind, Mask, NotAFrame, Sender};
use super::watch::Watch;

/// The longest text that is collected. The heads of its frames may come to as much again.
const TEXT_LIMIT: usize = 64 * 1024;
/// Read at once. Small, because thousands of sessions keep their buffers.
const PIECE: usize = 8 * 1024;

/// One direction: reads from `R`, writes to `W`. Every future of it may be dropped at any moment
/// and the next one goes on where it was.
#[derive(Debug)]
pub(super) struct Direction<R, W> {
    from: R,
    to: W,
    sender: Sender,
    /// Not yet looked at.
    read: BytesMut,
    /// To be written: whole heads and any part of what follows them.
    out: BytesMut,
    /// How many bytes of the last frame in `out` are still to come.
    rest: u64,
    /// How they are masked, from the next one on.
    mask: Mask,
    /// Looks for tokens of the proxy's own in what a caller says.
    watch: Watch,
    /// The last data frame in `out` is not the end of its message.
    in_message: bool,
    /// Frames of a text message that were not passed on.
    held: BytesMut,
    /// What they say.
    text: Vec<u8>,
    activity: Activity,
}

/// What [`Direction::next_text`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// A text message is held, and [`Direction::text`] has it.
    Whole,
    /// A caller says something else first.
    Binary,
    /// One that is longer than [`TEXT_LIMIT`].
    TooLong,
    /// Nothing follows a Close or the end of the connection.
    End,
}

/// Why a direction cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is not WebSocket.
    #[error("not a frame of WebSocket")]
    Frame,
    /// A token of the proxy's own would have reached the API.
    #[error("a token of the proxy's own")]
    OwnToken,
}

impl From<NotAFrame> for Broken {
    fn from(NotAFrame: NotAFrame) -> Broken {
        Broken::Frame
    }
}

/// When a byte moved the last time, in either direction of a session.
#[derive(Clone, Debug)]
pub(super) struct Activity(Rc<Cell<Instant>>);

impl Activity {
    pub(super) fn new() -> Activity {
        Activity(Rc::new(Cell::new(Instant::now())))
    }

    fn noted(&self) {
        self.0.set(Instant::now());
    }

    /// Returns once nothing has moved for as long as `silence`.
    pub(super) async fn idle_for(&self, silence: Duration) {
        loop {
            let until = self.0.get() + silence;
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Direction<R, W> {
    /// `read` is what has been read from `from` already.
    pub(super) fn new(
        (from, read): (R, Bytes),
        to: W,
        sender: Sender,
        activity: &Activity,
    ) -> Direction<R, W> {
        Direction {
            from,
            to,
            sender,
            read: BytesMut::from(read),
            out: BytesMut::new(),
            rest: 0,
            mask: Mask::default(),
            watch: Watch::default(),
            in_message: false,
            held: BytesMut::new(),
            text: Vec::new(),
            activity: activity.clone(),
        }
    }

    /// Passes everything on until nothing follows, then says so to the other end. What is held goes
    /// first, but never into another frame.
    pub(super) async fn relay(&mut self) -> Result<(), Broken> {
        if !self.held.is_empty() {
            self.finish_frame().await?;
            self.release();
        }
        loop {
            self.pass()?;
            self.flush().await?;
            if !self.fill().await? {
                self.move_on(self.read.len());
                self.flush().await?;
                return Ok(self.to.shutdown().await?);
            }
        }
    }

    /// Passes everything on but text: the first whole text message is held. Of a caller it must be the
    /// first message at all, and what it left unfinished goes nowhere.
    pub(super) async fn next_text(&mut self) -> Result<Text, Broken> {
        loop {
            self.finish_frame().await?;
            let head = loop {
                match Head::parse(&self.read)? {
                    Some(head) => break head,
                    None if self.fill().await? => {}
                    None => return Ok(self.ended()),
                }
            };
            let is_callers = self.sender == Sender::Caller;
            if !head.is_allowed_to(self.sender) {
                return Err(Broken::Frame);
            }
            let is_text = match head.kind() {
                // One message begins within another.
                Kind::Text | Kind::Binary if !self.held.is_empty() => return Err(Broken::Frame),
                Kind::Text => true,
                Kind::Continuation if !self.held.is_empty() => true,
                Kind::Continuation if is_callers => return Err(Broken::Frame),
                Kind::Binary if is_callers => return Ok(Text::Binary),
                Kind::Close => {
                    match self.sender {
                        Sender::Caller => self.discard(),
                        Sender::Upstream => self.release(),
                    }
                    self.pass_head(&head);
                    self.finish_frame().await?;
                    return Ok(Text::End);
                }
                Kind::Continuation | Kind::Binary | Kind::Control => false,
            };
            if !is_text {
                self.pass_head(&head);
                continue;
            }
            let heads = self.held.len() - self.text.len();
            let length = self.text.len() as u64 + head.length;
            if heads > TEXT_LIMIT || length > TEXT_LIMIT as u64 {
                return Ok(Text::TooLong);
            }
            // Within the limit, as the line above says.
            let end = head.size + head.length as usize;
            while self.read.len() < end {
                if !self.fill().await? {
                    return Ok(self.ended());
                }
            }
            self.hold(&head, end);
            if head.is_final() {
                return Ok(Text::Whole);
            }
        }
    }

    /// Nothing follows. What a caller began to say may hold a token that nobody has replaced.
    fn ended(&mut self) -> Text {
        if self.sender == Sender::Caller {
            self.discard();
            self.read.clear();
        }
        Text::End
    }

    /// What the message that is held says.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Passes on what is held.
    pub(super) fn release(&mut self) {
        self.out.unsplit(mem::take(&mut self.held));
        self.discard();
    }

    /// Passes it on if the message turned out to be too long to be held.
    pub(super) fn release_too_long(&mut self) {
        self.release();
        if let Ok(Some(head)) = Head::parse(&self.read) {
            self.pass_head(&head);
        }
    }

    /// Drops what is held, and the room for it.
    pub(super) fn discard(&mut self) {
        self.held = BytesMut::new();
        self.text = Vec::new();
    }

    /// Adds a text message to what is written.
    pub(super) fn push_text(&mut self, text: Vec<u8>) {
        frames::push_text(&mut self.out, self.sender, text);
    }

    /// Writes what is there to be written.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            if self.to.write_buf(&mut self.out).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.activity.noted();
        }
        // Most sessions are idle most of the time: none keeps room for what it wrote.
        self.out = BytesMut::new();
        self.to.flush().await
    }

    /// Ends the direction after the frame under way: with `error`, a text message, unless another
    /// message is under way, and with `close`. Then reads on, so that nothing unread resets the
    /// connection before the other side has read this.
    pub(super) async fn end(
        &mut self,
        error: Option<Vec<u8>>,
        close: Option<CloseCode>,
    ) -> Result<(), Broken> {
        self.finish_frame().await?;
        if let Some(error) = error.filter(|_| !self.in_message) {
            self.push_text(error);
        }
        if let Some(code) = close {
            frames::push_close(&mut self.out, self.sender, code);
        }
        self.flush().await?;
        self.to.shutdown().await?;
        while self.fill().await? {
            self.read.clear();
        }
        Ok(())
    }

    /// Reads more. False if nothing follows.
    async fn fill(&mut self) -> io::Result<bool> {
        self.read.reserve(PIECE);
        let read = self.from.read_buf(&mut self.read).await?;
        self.activity.noted();
        Ok(read > 0)
    }

    /// Returns once nothing follows any more. What comes meanwhile is kept to be looked at, up to a
    /// piece of it; behind more than that the end is not seen.
    pub(super) async fn gone(&mut self) {
        while self.read.len() < PIECE {
            match self.fill().await {
                Ok(true) => {}
                Ok(false) | Err(_) => return,
            }
        }
        std::future::pending().await
    }

    /// Passes on the rest of the frame under way and nothing behind it.
    async fn finish_frame(&mut self) -> Result<(), Broken> {
        loop {
            self.pass_rest()?;
            self.flush().await?;
            if self.rest == 0 {
                return Ok(());
            }
            if !self.fill().await? {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// Passes on all that was read, except for a head that is incomplete.
    fn pass(&mut self) -> Result<(), Broken> {
        loop {
            self.pass_rest()?;
            if self.rest > 0 {
                return Ok(());
            }
            match Head::parse(&self.read) {
                Ok(Some(head)) => self.pass_head(&head),
                Ok(None) => return Ok(()),
                // The reader may make of it what it likes; there is no boundary any more.
                Err(_) => {
                    self.rest = u64::MAX;
                    self.mask = Mask::default();
                }
            }
        }
    }

    fn pass_rest(&mut self) -> Result<(), Broken> {
        let read = self.read.len() as u64;
        // Not more than was read, which is a usize.
        let passed = self.rest.min(read) as usize;
        if self.sender == Sender::Caller && passed > 0 {
            let piece = self.mask.unmasked(&self.read[..passed]);
            if self.watch.finds(piece) {
                // The frame has no end any more, and nothing may follow it.
                self.out.clear();
                self.read.clear();
                self.rest = 0;
                return Err(Broken::OwnToken);
            }
            self.mask.advance(passed);
        }
        self.rest -= passed as u64;
        self.move_on(passed);
        Ok(())
    }

    fn move_on(&mut self, length: usize) {
        self.out.unsplit(self.read.split_to(length));
    }

    fn pass_head(&mut self, head: &Head) {
        self.move_on(head.size);
        self.rest = head.length;
        self.mask = head.mask();
        if !matches!(head.kind(), Kind::Close | Kind::Control) {
            self.in_message = !head.is_final();
        }
    }

    /// Holds the frame that is the first `end` bytes of what was read.
    fn hold(&mut self, head: &Head, end: usize) {
        head.unmask(&self.read[head.size..end], &mut self.text);
        self.held.unsplit(self.read.split_to(end));
        if self.read.is_empty() {
            // The room for a long text goes with it.
            self.read = BytesMut::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{DuplexStream, duplex};

    const MINUTE: Duration = Duration::from_secs(60);

    /// A direction, where it reads from, and where it writes to.
    fn direction(
        sender: Sender,
    ) -> (
        Direction<DuplexStream, DuplexStream>,
        DuplexStream,
        DuplexStream,
    ) {
        let ((near, from), (to, far)) = (duplex(1 << 20), duplex(1 << 20));
        let activity = Activity::new();
        (
            Direction::new((from, Bytes::new()), to, sender, &activity),
            near,
            far,
        )
    }

    /// What has arrived so far.
    async fn arrived(far: &mut DuplexStream) -> Vec<u8> {
        let mut heard = vec![0; 1 << 20];
        let read = tokio::time::timeout(MINUTE, far.read(&mut heard)).await;
        heard.truncate(read.map_or(0, Result::unwrap));
        heard
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_of_any_size_arrive_as_they_were_but_for_half_a_head() {
        let frames = b"\x81\x02ab\x82\x7e\0\x80".iter().copied();
        let frames: Vec<u8> = frames.chain([7; 128]).chain(*b"\x89\0").collect();
        for size in 1..frames.len() {
            let (mut down, mut near, mut far) = direction(Sender::Upstream);
            let mut sent = 0;
            for piece in frames.chunks(size) {
                near.write_all(piece).await.unwrap();
                sent += piece.len();
                assert!(tokio::time::timeout(MINUTE, down.relay()).await.is_err());
                let whole = match sent {
                    0..2 => 0,
                    5..8 => 4,
                    137 => 136,
                    sent => sent,
                };
                // Cut off at any moment, it ends where a Close may stand, or within a frame.
                assert_eq!(down.rest == 0, matches!(whole, 0 | 4 | 136 | 138), "{sent}");
            }
            assert_eq!(arrived(&mut far).await, frames);
            drop(near);
            down.relay().await.unwrap();
            assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn text_is_held_across_interruptions_and_all_else_passes() {
        let (mut down, mut near, mut far) = direction(Sender::Upstream);
        let frames = b"\x82\x01x\x01\x02he\x89\x01p\x80\x03llo";
        for byte in &frames[..frames.len() - 1] {
            near.write_all(&[*byte]).await.unwrap();
            assert!(
                tokio::time::timeout(MINUTE, down.next_text())
                    .await
                    .is_err()
            );
        }
        near.write_all(b"o\x81\x01!").await.unwrap();
        assert_eq!(down.next_text().await.unwrap(), Text::Whole);
        assert_eq!(down.text(), b"hello");
        assert_eq!(arrived(&mut far).await, b"\x82\x01x\x89\x01p");
        down.release();
        assert_eq!(down.next_text().await.unwrap(), Text::Whole);
        assert_eq!(down.text(), b"!");
        assert_eq!(arrived(&mut far).await, b"\x01\x02he\x80\x03llo");
        down.discard();
        drop(near);
        assert_eq!(down.next_text().await.unwrap(), Text::End);
        assert_eq!(arrived(&mut far).await, b"");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_still_held_passes_after_the_frame_under_way() {
        let (mut down, mut near, mut far) = direction(Sender::Upstream);
        near.write_all(b"\x01\x01a\x89\x02p").await.unwrap();
        let text = tokio::time::timeout(MINUTE, down.next_text()).await;
        assert!(text.is_err());
        let relaying = tokio::time::timeout(MINUTE, down.relay()).await;
        assert!(relaying.is_err());
        near.write_all(b"q\x80\x01b").await.unwrap();
        let relaying = tokio::time::timeout(MINUTE, down.relay()).await;
        assert!(relaying.is_err());
        assert_eq!(arrived(&mut far).await, b"\x89\x02pq\x01\x01a\x80\x01b");
    }

    #[tokio::test(start_paused = true)]
    async fn text_that_is_too_long_passes_whole() {
        let (mut down, mut near, mut far) = direction(Sender::Upstream);
        let first = [&b"\x01\x7e\xff\xff"[..], &[b'a'; 65_535]].concat();
        near.write_all(&first).await.unwrap();
        near.write_all(b"\x80\x02bc\x81\x01!").await.unwrap();
        assert_eq!(down.next_text().await.unwrap(), Text::TooLong);
        down.release_too_long();
        assert_eq!(down.next_text().await.unwrap(), Text::Whole);
        assert_eq!(down.text(), b"!");
        assert_eq!(
            arrived(&mut far).await,
            [&first[..], b"\x80\x02bc"].concat()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn text_in_endless_empty_pieces_is_too_long_and_passes_whole() {
        let (mut down, mut near, mut far) = direction(Sender::Upstream);
        let pieces = [&b"\x01\0"[..], &b"\0\0".repeat(40_000)].concat();
        near.write_all(&pieces).await.unwrap();
        let text = tokio::time::timeout(MINUTE, down.next_text()).await;
        assert_eq!(text.expect("it is collected").unwrap(), Text::TooLong);
        down.release_too_long();
        near.write_all(b"\x80\x01a\x81\x01!").await.unwrap();
        assert_eq!(down.next_text().await.unwrap(), Text::Whole);
        assert_eq!(down.text(), b"!");
        assert_eq!(
            arrived(&mut far).await,
            [&pieces[..], b"\x80\x01a"].concat()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_stands_between_messages_and_never_within_one() {
        for (before, after) in [
            (
                &b"\x81\x01a"[..],
                &b"\x81\x01a\x81\x01e\x88\x02\x03\xf0"[..],
            ),
            (b"\x01\x01a", b"\x01\x01a\x88\x02\x03\xf0"),
        ] {
            let (mut down, mut near, mut far) = direction(Sender::Upstream);
            near.write_all(before).await.unwrap();
            assert!(tokio::time::timeout(MINUTE, down.relay()).await.is_err());
            drop(near);
            let code = Some(CloseCode::Policy);
            down.end(Some(b"e".to_vec()), code).await.unwrap();
            assert_eq!(arrived(&mut far).await, after);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pings_in_one_direction_keep_both_alive() {
        let (mut down, mut near, mut far) = direction(Sender::Upstream);
        let activity = down.activity.clone();
        let silence = 3 * MINUTE / 2;
        let started = Instant::now();
        let talking = async {
            for _ in 0..100 {
                near.write_all(b"\x89\0").await.unwrap();
                assert_eq!(far.read_u16().await.unwrap(), 0x8900);
                tokio::time::sleep(MINUTE).await;
            }
            std::future::pending().await
        };
        tokio::select! {
            () = talking => {}
            _ = down.relay() => panic!("nothing has ended"),
            () = activity.idle_for(silence) => {}
        }
        assert_eq!(started.elapsed(), 99 * MINUTE + silence);
    }
}

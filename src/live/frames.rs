//! The wire format of WebSocket (RFC 6455 §5), as far as a session looks at it: one direction of a
//! connection, from where it is read to where it is written. Frames are passed on byte for byte,
//! masks included; text is collected only where somebody asks for it. Knows nothing of what the
//! messages say.

use std::cell::Cell;
use std::io::{self, Cursor};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};

pub(super) use tungstenite::protocol::frame::coding::CloseCode;

/// The longest text that is collected.
pub(super) const TEXT_LIMIT: usize = 64 * 1024;
/// Read at once. Small, because thousands of sessions keep their buffers.
const PIECE: usize = 8 * 1024;
/// The longest content of a control frame (RFC 6455 §5.5).
const CONTROL_LIMIT: u64 = 125;

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
    /// Of the last frame in `out`, so many bytes are still to come.
    rest: u64,
    /// The last data frame in `out` is not the end of its message.
    in_message: bool,
    /// Frames of a text message that were not passed on.
    held: BytesMut,
    /// What they say.
    text: Vec<u8>,
    movement: Movement,
}

/// Whose frames these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// Masked.
    Caller,
    /// Not masked.
    Upstream,
}

/// What [`Direction::next_text`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// A text message is held, and [`Direction::text`] has it.
    Whole,
    /// One that is longer than [`TEXT_LIMIT`].
    TooLong,
    /// Nothing follows any more.
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
}

/// When a byte moved the last time, in either direction of a session.
#[derive(Clone, Debug)]
pub(super) struct Movement(Rc<Cell<Instant>>);

impl Movement {
    pub(super) fn new() -> Movement {
        Movement(Rc::new(Cell::new(Instant::now())))
    }

    fn noted(&self) {
        self.0.set(Instant::now());
    }

    /// Returns once nothing has moved for so long.
    pub(super) async fn ceased(&self, silence: Duration) {
        loop {
            let until = self.0.get() + silence;
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// The head of a frame.
#[derive(Debug)]
struct Head {
    header: FrameHeader,
    /// Its own length.
    size: usize,
    /// Of the content that follows it.
    length: u64,
}

impl Head {
    /// The head at the beginning of `bytes`, once it is whole.
    fn parse(bytes: &[u8]) -> Result<Option<Head>, Broken> {
        let mut cursor = Cursor::new(bytes);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Broken::Frame)?;
        Ok(parsed.map(|(header, length)| Head {
            header,
            size: cursor.position() as usize,
            length,
        }))
    }

    /// Whether `sender` may send it, without any extension negotiated.
    fn is_allowed_to(&self, sender: Sender) -> bool {
        let header = &self.header;
        let is_control = matches!(header.opcode, OpCode::Control(_));
        header.mask.is_some() == (sender == Sender::Caller)
            && !(header.rsv1 || header.rsv2 || header.rsv3)
            && !(is_control && (!header.is_final || self.length > CONTROL_LIMIT))
            && i64::try_from(self.length).is_ok()
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Direction<R, W> {
    /// `read` is what has been read from `from` already.
    pub(super) fn new(
        (from, read): (R, &[u8]),
        to: W,
        sender: Sender,
        movement: &Movement,
    ) -> Direction<R, W> {
        Direction {
            from,
            to,
            sender,
            read: BytesMut::from(read),
            out: BytesMut::new(),
            rest: 0,
            in_message: false,
            held: BytesMut::new(),
            text: Vec::new(),
            movement: movement.clone(),
        }
    }

    /// Passes everything on until nothing follows, then says so to the other end.
    pub(super) async fn relay(&mut self) -> io::Result<()> {
        loop {
            self.pass();
            self.flush().await?;
            if !self.fill().await? {
                self.move_on(self.read.len());
                self.flush().await?;
                return self.to.shutdown().await;
            }
        }
    }

    /// Passes everything on but text: the first whole text message is held.
    pub(super) async fn next_text(&mut self) -> Result<Text, Broken> {
        loop {
            self.finish_frame().await?;
            let head = loop {
                match Head::parse(&self.read)? {
                    Some(head) => break head,
                    None if self.fill().await? => {}
                    None => return Ok(Text::End),
                }
            };
            if !head.is_allowed_to(self.sender) {
                return Err(Broken::Frame);
            }
            let is_text = match head.header.opcode {
                // One message begins within another.
                OpCode::Data(Data::Text | Data::Binary) if !self.held.is_empty() => {
                    return Err(Broken::Frame);
                }
                OpCode::Data(Data::Text) => true,
                OpCode::Data(Data::Continue) => !self.held.is_empty(),
                OpCode::Data(_) | OpCode::Control(_) => false,
            };
            if !is_text {
                self.pass_head(&head);
                continue;
            }
            if self.text.len() as u64 + head.length > TEXT_LIMIT as u64 {
                return Ok(Text::TooLong);
            }
            // Within the limit, as the line above says.
            let end = head.size + head.length as usize;
            while self.read.len() < end {
                if !self.fill().await? {
                    return Ok(Text::End);
                }
            }
            self.hold(&head, end);
            if head.header.is_final {
                return Ok(Text::Whole);
            }
        }
    }

    /// What the message that is held says.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Passes on what is held.
    pub(super) fn release(&mut self) {
        self.out.extend_from_slice(&self.held);
        self.discard();
    }

    /// The same where the message turned out to be too long to be held.
    pub(super) fn release_too_long(&mut self) {
        self.release();
        if let Ok(Some(head)) = Head::parse(&self.read) {
            self.pass_head(&head);
        }
    }

    /// Drops what is held.
    pub(super) fn discard(&mut self) {
        self.held.clear();
        self.text.clear();
    }

    /// Adds a text message to what is written.
    pub(super) fn push_text(&mut self, text: Vec<u8>) {
        self.push(Frame::message(text, OpCode::Data(Data::Text), true));
    }

    /// Writes what is there to be written.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            if self.to.write_buf(&mut self.out).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.movement.noted();
        }
        self.to.flush().await
    }

    /// Ends the direction after the frame under way: with `error`, a text message, where no other
    /// message is under way, and `close`. Then reads on, so that nothing unread resets the
    /// connection before the other side has read this.
    pub(super) async fn end(
        &mut self,
        error: Option<Vec<u8>>,
        close: Option<CloseCode>,
    ) -> io::Result<()> {
        self.finish_frame().await?;
        if let Some(error) = error.filter(|_| !self.in_message) {
            self.push_text(error);
        }
        if let Some(code) = close {
            let reason = "".into();
            self.push(Frame::close(Some(CloseFrame { code, reason })));
        }
        self.flush().await?;
        self.to.shutdown().await?;
        while self.fill().await? {
            self.read.clear();
        }
        Ok(())
    }

    fn push(&mut self, mut frame: Frame) {
        if self.sender == Sender::Caller {
            let mut mask = [0; 4];
            getrandom::fill(&mut mask).expect("the kernel's random numbers never fail once booted");
            frame.header_mut().mask = Some(mask);
        }
        frame
            .format(&mut (&mut self.out).writer())
            .expect("memory takes every byte");
    }

    /// Reads more. False where nothing follows.
    async fn fill(&mut self) -> io::Result<bool> {
        self.read.reserve(PIECE);
        let read = self.from.read_buf(&mut self.read).await?;
        self.movement.noted();
        Ok(read > 0)
    }

    /// Passes on the rest of the frame under way and nothing behind it.
    async fn finish_frame(&mut self) -> io::Result<()> {
        loop {
            self.pass_rest();
            self.flush().await?;
            if self.rest == 0 {
                return Ok(());
            }
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Passes on all that was read, but for a head that is not whole.
    fn pass(&mut self) {
        loop {
            self.pass_rest();
            if self.rest > 0 {
                return;
            }
            match Head::parse(&self.read) {
                Ok(Some(head)) => self.pass_head(&head),
                Ok(None) => return,
                // Whoever reads it may make of it what it likes; there is no boundary any more.
                Err(_) => self.rest = u64::MAX,
            }
        }
    }

    fn pass_rest(&mut self) {
        let read = self.read.len() as u64;
        let passed = self.rest.min(read);
        self.rest -= passed;
        // Not more than was read, which is a usize.
        self.move_on(passed as usize);
    }

    fn move_on(&mut self, length: usize) {
        self.out.extend_from_slice(&self.read[..length]);
        self.read.advance(length);
    }

    fn pass_head(&mut self, head: &Head) {
        self.move_on(head.size);
        self.rest = head.length;
        if let OpCode::Data(_) = head.header.opcode {
            self.in_message = !head.header.is_final;
        }
    }

    /// Holds the frame that is the first `end` bytes of what was read.
    fn hold(&mut self, head: &Head, end: usize) {
        let content = self.read[head.size..end].iter();
        match head.header.mask {
            Some(mask) => {
                let mask = mask.iter().cycle();
                self.text
                    .extend(content.zip(mask).map(|(byte, mask)| byte ^ mask));
            }
            None => self.text.extend(content),
        }
        self.held.extend_from_slice(&self.read[..end]);
        self.read.advance(end);
    }
}

//! HTTP/1.1 towards the API, spoken in the task of the request itself: no task, channel or wake-up
//! stands between a request and its connection. httparse reads heads; what is here is when to write,
//! when to read, and where an answer ends (RFC 9112). Knows neither pools nor deadlines.

mod buffers;
mod content;
mod head;
mod outgoing;
mod rest;
#[cfg(test)]
mod tests;
mod whole;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body::{Body, SizeHint};
use tokio::io::ReadHalf;
use tokio::sync::oneshot;

pub(super) use self::buffers::Buffers;
pub(super) use self::rest::Held;
pub(super) use self::whole::Whole;

use self::buffers::{LargeReads, poll_fill};
use self::content::Decoder;
use self::outgoing::Outgoing;
use super::stream::Stream;
use super::{Broken, Error, Head};
use crate::headers::Framing;

/// What is read at once, to begin with: room for the head and content of most answers.
const FIRST_READ: usize = 8 * 1024;
/// What is read at once of long content, to begin with.
const LONG_READ: usize = 32 * 1024;
/// What is read at once of long content that comes faster than that: fewer and larger writes to the
/// caller are worth half of the time that the system spends on them. A caller that does not read keeps
/// it in memory, so that only a few answers at once are read so.
const LONGEST_READ: usize = 256 * 1024;

/// A connection between two exchanges. Boxed once, because it is moved several times for each
/// request.
#[derive(Debug)]
pub(super) struct Connection(Box<Wire>);

#[derive(Debug)]
struct Wire {
    stream: Stream,
    /// What was read and not yet taken. Between exchanges it has no capacity: a thousand idle connections
    /// hold no buffers.
    read: BytesMut,
    /// Where to get a buffer, and give it back.
    buffers: Rc<Buffers>,
}

/// Why an exchange failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    /// Whether any byte came in answer.
    pub(super) heard: bool,
}

/// The content of an answer, with what the connection takes up. Reads only when it is polled.
#[derive(Debug)]
pub(super) struct Content<S> {
    decoder: Decoder,
    /// How much to read at once.
    wanted: usize,
    /// The largest capacity of the buffer so far, in bytes: pieces are split off it, so that its present
    /// capacity says less. A buffer that was large is not kept for the next exchange.
    largest: usize,
    /// `None` once the connection has ended or was taken.
    reader: Option<Reader<S>>,
    /// Held by answers of which more than [`LONG_READ`] is read at once.
    large: Option<LargeReads>,
    /// A failure that is returned at the next poll, so that everything before it is written to the caller
    /// first.
    failure: Option<Broken>,
}

/// What content is read from.
#[derive(Debug)]
enum Reader<S> {
    /// The request was sent whole.
    Whole {
        connection: Connection,
        /// Whether the API means to keep the connection.
        keeps_alive: bool,
        slot: S,
    },
    /// The answer began before all of the request was sent. A task sends the rest: until this is dropped,
    /// or to its end if the answer was whole by then. Such a connection is not used again.
    Half(Box<Half<S>>),
}

/// Boxed, because it is rare and long.
#[derive(Debug)]
struct Half<S> {
    stream: ReadHalf<Stream>,
    read: BytesMut,
    answered: oneshot::Sender<()>,
    /// Bytes of the request that were written.
    written: Rc<Cell<u64>>,
    buffers: Rc<Buffers>,
    slot: Rc<S>,
}

impl Connection {
    pub(super) fn new(stream: Stream, buffers: Rc<Buffers>) -> Connection {
        Connection(Box::new(Wire {
            stream,
            read: BytesMut::new(),
            buffers,
        }))
    }

    /// Whether it can carry another request, as far as this end knows: nothing has come since the
    /// last answer, not even the end (RFC 9112 §9.2).
    pub(super) fn is_quiet(&mut self) -> bool {
        self.0.stream.is_quiet()
    }

    /// The same, and `cx` is woken when that changes.
    pub(super) fn stays_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        self.0.stream.stays_quiet(cx)
    }

    #[cfg(test)]
    pub(super) fn stream(&mut self) -> &mut Stream {
        &mut self.0.stream
    }

    /// Sends a request and waits for the head of its answer. `host` is the Host to send; `slot` is
    /// held until the connection is closed or taken back.
    ///
    /// Whatever goes wrong, and if this is dropped, the connection is closed.
    pub(super) fn exchange<B, S>(
        mut self,
        request: &Head,
        host: &HeaderValue,
        content: B,
        slot: S,
    ) -> impl Future<Output = Result<Response<Content<S>>, Failed>>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
        S: Held,
    {
        let framing = self.0.buffers.to_write();
        let mut outgoing = Outgoing::new(framing, request, host, content);
        let is_to_head = request.method == Method::HEAD;
        async move {
            let mut finder = head::Finder::default();
            let mut heard = false;
            let mut writes = true;
            let mut sent = false;
            let answer = poll_fn(|cx| {
                let wire = &mut *self.0;
                if writes && !sent {
                    match outgoing.poll(&mut wire.stream, cx) {
                        Poll::Ready(Ok(())) => {
                            sent = true;
                            wire.buffers.was_written(outgoing.take_framing());
                        }
                        // The API may answer and close without reading everything (RFC 9112 §9.5).
                        Poll::Ready(Err(Broken::Write(_))) if outgoing.total() > 0 => {
                            writes = false;
                        }
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(Error::Broken(error))),
                        // What comes before the first byte of a request is no answer to it.
                        Poll::Pending if outgoing.total() == 0 => return Poll::Pending,
                        Poll::Pending => {}
                    }
                }
                loop {
                    match ready!(wire.poll_head(cx)) {
                        Ok(0) => return Poll::Ready(Err(Error::Broken(Broken::Cut))),
                        Ok(_) => heard = true,
                        Err(error) => return Poll::Ready(Err(Error::Broken(Broken::Read(error)))),
                    }
                    match finder.take(&mut wire.read) {
                        Ok(Some(answer)) => return Poll::Ready(Ok(answer)),
                        Ok(None) => {}
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
            });
            let (mut answer, framing) = answer.await.map_err(|error| Failed { error, heard })?;
            let decoder = decoder(is_to_head, answer.status(), framing);
            let largest = self.0.read.capacity();
            let reader = match sent {
                true => Reader::Whole {
                    connection: self,
                    keeps_alive: head::keeps_alive(&answer, framing),
                    slot,
                },
                false => self.read_on(outgoing, slot),
            };
            if let StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT = answer.status() {
                // Unlike a 304's, it would be the length of this very answer's content.
                answer.headers_mut().remove(header::CONTENT_LENGTH);
            }
            Ok(answer.map(|()| Content::new(decoder, reader, largest)))
        }
    }
}

impl Wire {
    /// Reads on for a head, into a buffer that is held only once something has come.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.read.is_empty() {
            self.read = self.buffers.to_read();
        }
        let filled = poll_fill(&mut self.stream, &mut self.read, FIRST_READ, cx);
        if self.read.is_empty() {
            self.buffers.was_read(std::mem::take(&mut self.read));
        }
        filled
    }
}

/// How the content of an answer with plain framing ends (RFC 9112 §6.3).
fn decoder(is_to_head: bool, status: StatusCode, framing: Framing) -> Decoder {
    match is_to_head || head::has_no_content(status) {
        true => Decoder::none(),
        false => Decoder::of(framing),
    }
}

impl<S> Reader<S> {
    /// What was read and not yet taken.
    fn buffer(&mut self) -> &mut BytesMut {
        match self {
            Reader::Whole { connection, .. } => &mut connection.0.read,
            Reader::Half(half) => &mut half.read,
        }
    }

    fn buffers(&self) -> &Rc<Buffers> {
        match self {
            Reader::Whole { connection, .. } => &connection.0.buffers,
            Reader::Half(half) => &half.buffers,
        }
    }

    fn poll_fill(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self {
            Reader::Whole { connection, .. } => {
                let Wire { stream, read, .. } = &mut *connection.0;
                poll_fill(stream, read, wanted, cx)
            }
            Reader::Half(half) => poll_fill(&mut half.stream, &mut half.read, wanted, cx),
        }
    }
}

impl<S> Content<S> {
    fn new(decoder: Decoder, reader: Reader<S>, largest: usize) -> Content<S> {
        Content {
            decoder,
            wanted: LONG_READ,
            largest,
            reader: Some(reader),
            large: None,
            failure: None,
        }
    }

    /// The next piece; `None` at the end.
    pub(super) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Broken>>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        loop {
            let Some(reader) = &mut self.reader else {
                return Poll::Ready(None);
            };
            match self.decoder.take(reader.buffer()) {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(None) if self.decoder.is_over() => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return self.fail(error, cx),
            }
            let filled = ready!(reader.poll_fill(self.decoder.wanted(self.wanted), cx));
            self.largest = self.largest.max(reader.buffer().capacity());
            match filled {
                Ok(0) if self.decoder.ends_with_the_connection() => {
                    self.decoder = Decoder::none();
                    self.let_go();
                }
                Ok(0) => return self.fail(Broken::Cut, cx),
                Ok(count) if count >= self.wanted => {
                    if self.large.is_none() {
                        self.large = reader.buffers().read_large();
                    }
                    if self.large.is_some() {
                        self.wanted = (2 * self.wanted).min(LONGEST_READ);
                    }
                }
                Ok(_) => {}
                Err(error) => return self.fail(Broken::Read(error), cx),
            }
        }
    }

    /// What the connection takes up, while there is one.
    pub(super) fn slot(&self) -> Option<&S> {
        match self.reader.as_ref()? {
            Reader::Whole { slot, .. } => Some(slot),
            Reader::Half(half) => Some(&half.slot),
        }
    }

    /// How much of a request that still goes out has been written.
    pub(super) fn written(&self) -> u64 {
        match &self.reader {
            Some(Reader::Half(half)) => half.written.get(),
            Some(Reader::Whole { .. }) | None => 0,
        }
    }

    /// Closes the connection: the rest is not wanted.
    pub(super) fn abandon(&mut self) {
        self.let_go();
    }

    /// Whether there is no further piece.
    pub(super) fn is_over(&self) -> bool {
        self.decoder.is_over()
    }

    /// How much is to come.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.decoder.size_hint()
    }

    /// Once it is over: the connection, if it can be used again, and what it takes up.
    pub(super) fn take_connection(&mut self) -> Option<(Connection, S)> {
        let is_over = self.is_over();
        let can_be_reused = |reader: &mut Reader<S>| match reader {
            Reader::Whole {
                connection,
                keeps_alive,
                ..
            } => *keeps_alive && is_over && connection.0.read.is_empty(),
            Reader::Half(_) => false,
        };
        let Reader::Whole {
            mut connection,
            slot,
            ..
        } = self.reader.take_if(can_be_reused)?
        else {
            return None;
        };
        let read = std::mem::take(&mut connection.0.read);
        if self.largest <= buffers::LARGEST {
            connection.0.buffers.was_read(read);
        }
        Some((connection, slot))
    }

    /// Returns the failure at the next poll: an error makes hyper drop what it has not yet written to the
    /// caller, which is to get everything that came before.
    fn fail<T>(&mut self, failure: Broken, cx: &mut Context<'_>) -> Poll<T> {
        self.let_go();
        self.failure = Some(failure);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Closes the connection, unless a request still goes out: after a whole answer the API
    /// may want the rest of it.
    fn let_go(&mut self) {
        if let Some(Reader::Half(half)) = self.reader.take()
            && self.decoder.is_over()
        {
            let _ = half.answered.send(());
        }
    }
}

impl<S> Drop for Content<S> {
    fn drop(&mut self) {
        self.let_go();
    }
}

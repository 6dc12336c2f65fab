//! HTTP/1.1 towards the API, spoken in the task of the request itself: no task, channel or wake-up
//! stands between a request and its connection. httparse reads heads; what is here is when to write,
//! when to read, and where an answer ends (RFC 9112). Knows neither pools nor deadlines.

mod content;
mod head;
mod outgoing;
#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::{Body, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio::task::coop::unconstrained;
use tokio::time::timeout;

use self::content::Decoder;
use self::outgoing::Outgoing;
use super::connect::Stream;
use super::{Broken, Error, Head};

/// What is read at once, to begin with: room for the head and content of most answers.
const FIRST_READ: usize = 8 * 1024;
/// What is read at once of long content, to begin with.
const LONG_READ: usize = 64 * 1024;
/// What is read at once of long content that comes faster than that: fewer and larger writes to the
/// caller are worth half of the time that the system spends on them.
const LONGEST_READ: usize = 256 * 1024;
/// Buffers that have grown beyond this are not kept with an idle connection.
const KEPT: usize = 16 * 1024;
/// An API that has answered and then takes nothing more of the request for so long does not want
/// the rest. Longer than a caller may pause.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that nobody waits for an answer on.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    /// What was read and not yet taken; empty between exchanges.
    read: BytesMut,
    /// Kept for the next request.
    framing: Vec<u8>,
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
pub(super) struct Content<P> {
    decoder: Decoder,
    read: BytesMut,
    /// How much to read at once.
    wanted: usize,
    /// The largest that `read` has been, in bytes: what is left of it may not tell.
    largest: usize,
    /// None once the connection has ended or was taken.
    source: Option<Source<P>>,
    /// What is still to be told.
    failure: Option<Broken>,
}

/// What content is read from.
#[derive(Debug)]
enum Source<P> {
    /// The request was sent whole.
    Stream {
        stream: Stream,
        framing: Vec<u8>,
        /// Whether the API means to keep the connection.
        lasts: bool,
        place: P,
    },
    /// The answer began before all of the request was sent, which a task goes on with until this
    /// is dropped, or to its end if that was told that the answer is whole. Such a connection is
    /// not used again.
    Half {
        stream: ReadHalf<Stream>,
        answered: oneshot::Sender<()>,
        _place: Rc<P>,
    },
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Connection {
        Connection {
            stream,
            read: BytesMut::new(),
            framing: Vec::new(),
        }
    }

    /// Whether it can carry another request, as far as this end knows: nothing has come since the
    /// last answer, not even the end. Asks the system only where there is news, of which `cx` is
    /// woken.
    pub(super) fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        let mut byte = [0];
        let reading =
            poll_fn(|cx| Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut byte)));
        // Whoever asks may have used up its share of reads for now, which looks like quiet.
        pin!(unconstrained(reading)).poll(cx).is_pending()
    }

    /// Sends a request and waits for the head of its answer. `host` is the Host to send; `place` is
    /// held until the connection is closed or taken back.
    ///
    /// Whatever goes wrong, and if this is dropped, the connection is closed.
    pub(super) async fn exchange<B, P>(
        mut self,
        request: &Head,
        host: &HeaderValue,
        content: B,
        place: P,
    ) -> Result<Response<Content<P>>, Failed>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
        P: 'static,
    {
        let framing = std::mem::take(&mut self.framing);
        let mut outgoing = Outgoing::new(framing, request, host, content);
        let mut finder = head::Finder::default();
        let mut heard = false;
        let mut writes = true;
        let mut sent = false;
        let answer = poll_fn(|cx| {
            if writes && !sent {
                match outgoing.poll(&mut self.stream, cx) {
                    Poll::Ready(Ok(())) => sent = true,
                    // The API may answer and close without reading everything (RFC 9112 §9.5).
                    Poll::Ready(Err(Broken::Write(_))) => writes = false,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Error::Broken(error))),
                    Poll::Pending => {}
                }
            }
            loop {
                match ready!(poll_fill(&mut self.stream, &mut self.read, FIRST_READ, cx)) {
                    Ok(0) => return Poll::Ready(Err(Error::Broken(Broken::Cut))),
                    Ok(_) => heard = true,
                    Err(error) => return Poll::Ready(Err(Error::Broken(Broken::Read(error)))),
                }
                match finder.take(&mut self.read) {
                    Ok(Some(answer)) => return Poll::Ready(Ok(answer)),
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        });
        let answer = answer.await.map_err(|error| Failed { error, heard })?;
        let decoder = decoder(&request.method, &answer);
        let Connection { stream, read, .. } = self;
        let source = if sent {
            Source::Stream {
                stream,
                framing: outgoing.into_framing(),
                lasts: head::lasts(&answer),
                place,
            }
        } else {
            let (stream, rest) = tokio::io::split(stream);
            let place = Rc::new(place);
            let shared = place.clone();
            let (answered, told) = oneshot::channel();
            tokio::task::spawn_local(async move {
                let _place = shared;
                send_rest(outgoing, rest, told).await;
            });
            Source::Half {
                stream,
                answered,
                _place: place,
            }
        };
        let content = Content {
            decoder,
            wanted: LONG_READ,
            largest: read.capacity(),
            read,
            source: Some(source),
            failure: None,
        };
        Ok(answer.map(|()| content))
    }
}

/// Goes on with a request whose answer has begun: until the answer is given up, or, after a whole
/// one, as long as the API takes it.
async fn send_rest<B: Body<Data = Bytes> + Unpin>(
    mut outgoing: Outgoing<B>,
    mut stream: WriteHalf<Stream>,
    mut answered: oneshot::Receiver<()>,
) {
    let mut sent = tokio::select! {
        biased;
        sent = poll_fn(|cx| outgoing.poll(&mut stream, cx)) => Some(sent),
        answered = &mut answered => match answered {
            Ok(()) => None,
            Err(_) => return,
        },
    };
    while sent.is_none() {
        let before = outgoing.total();
        let sending = poll_fn(|cx| outgoing.poll(&mut stream, cx));
        sent = timeout(PATIENCE, sending).await.ok();
        if sent.is_none() && outgoing.total() == before {
            return;
        }
    }
    if let Some(Err(_)) = sent {
        // The API must not take what it has got for all. It may be gone already.
        let _ = timeout(PATIENCE, stream.shutdown()).await;
    }
}

/// How the content of an answer with plain framing ends (RFC 9112 §6.3).
fn decoder(method: &Method, answer: &Response<()>) -> Decoder {
    let has_none = *method == Method::HEAD
        || answer.status() == StatusCode::NO_CONTENT
        || answer.status() == StatusCode::NOT_MODIFIED;
    match has_none {
        true => Decoder::none(),
        false => Decoder::of(answer.headers()),
    }
}

impl<P> Content<P> {
    /// The next piece; none at the end.
    pub(super) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Broken>>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        loop {
            match self.decoder.take(&mut self.read) {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(None) if self.decoder.is_over() => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return self.fail(error, cx),
            }
            let wanted = self.decoder.wanted(self.wanted);
            let filled = match &mut self.source {
                Some(Source::Stream { stream, .. }) => {
                    ready!(poll_fill(stream, &mut self.read, wanted, cx))
                }
                Some(Source::Half { stream, .. }) => {
                    ready!(poll_fill(stream, &mut self.read, wanted, cx))
                }
                None => return Poll::Ready(None),
            };
            self.largest = self.largest.max(self.read.capacity());
            match filled {
                Ok(0) if self.decoder.ends_with_the_connection() => {
                    self.decoder = Decoder::none();
                    self.let_go();
                }
                Ok(0) => return self.fail(Broken::Cut, cx),
                Ok(count) if count >= self.wanted => {
                    self.wanted = (2 * self.wanted).min(LONGEST_READ);
                }
                Ok(_) => {}
                Err(error) => return self.fail(Broken::Read(error), cx),
            }
        }
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
    pub(super) fn take_connection(&mut self) -> Option<(Connection, P)> {
        let is_used_up = self.is_over() && self.read.is_empty();
        let Source::Stream {
            stream,
            mut framing,
            lasts: true,
            place,
        } = self
            .source
            .take_if(|source| is_used_up && matches!(source, Source::Stream { lasts: true, .. }))?
        else {
            return None;
        };
        framing.clear();
        framing.shrink_to(KEPT);
        let read = match self.largest > KEPT {
            true => BytesMut::new(),
            false => std::mem::take(&mut self.read),
        };
        let connection = Connection {
            stream,
            read,
            framing,
        };
        Some((connection, place))
    }

    /// Tells of the failure the next time: an error makes hyper drop what it has not yet written to
    /// the caller, who is to get all that came before.
    fn fail<T>(&mut self, failure: Broken, cx: &mut Context<'_>) -> Poll<T> {
        self.let_go();
        self.failure = Some(failure);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Closes the connection, but for a request that still goes out: after a whole answer the API
    /// may want the rest of it.
    fn let_go(&mut self) {
        if let Some(Source::Half { answered, .. }) = self.source.take()
            && self.decoder.is_over()
        {
            let _ = answered.send(());
        }
    }
}

impl<P> Drop for Content<P> {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Reads what there is, at most about `wanted` bytes, into `buffer`; 0 at the end.
fn poll_fill(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    wanted: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    // Less room than this would make many small reads.
    if buffer.capacity() - buffer.len() < wanted.min(FIRST_READ / 4) {
        buffer.reserve(wanted.max(FIRST_READ / 4));
    }
    pin!(stream.read_buf(buffer)).poll(cx)
}

//! An exchange with little content both ways, kept in memory and read to its end: for callers that
//! may be on any thread, and must know whether a byte of the request was written.

use std::future::poll_fn;
use std::task::{Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Response};
use http_body_util::Full;

use super::buffers::poll_fill;
use super::outgoing::Outgoing;
use super::{FIRST_READ, decoder, head};
use crate::upstream::stream::Stream;
use crate::upstream::{Broken, Error, Head};

/// A request that goes out on one connection.
#[derive(Debug)]
pub(in crate::upstream) struct Whole<'a> {
    stream: &'a mut Stream,
    outgoing: Outgoing<Full<Bytes>>,
    is_to_head: bool,
    /// What TLS had written before.
    encrypted: Option<u64>,
}

impl<'a> Whole<'a> {
    pub(in crate::upstream) fn new(
        stream: &'a mut Stream,
        request: &Head,
        host: &HeaderValue,
        content: Bytes,
    ) -> Whole<'a> {
        Whole {
            encrypted: stream.encrypted(),
            stream,
            outgoing: Outgoing::new(Vec::new(), request, host, Full::new(content)),
            is_to_head: request.method == Method::HEAD,
        }
    }

    /// Whether any byte of the request was written to the socket.
    pub(in crate::upstream) fn is_begun(&self) -> bool {
        match self.encrypted {
            Some(_) => self.stream.encrypted() != self.encrypted,
            None => self.outgoing.total() > 0,
        }
    }

    /// The answer, its content `None` if it is longer than `limit`; and whether the connection can be
    /// used again.
    pub(in crate::upstream) async fn exchange(
        &mut self,
        limit: usize,
    ) -> Result<(Response<Option<Bytes>>, bool), Error> {
        let mut finder = head::Finder::default();
        let mut read = BytesMut::new();
        let mut sent = false;
        let answer = poll_fn(|cx| {
            if !sent {
                match self.outgoing.poll(self.stream, cx) {
                    Poll::Ready(Ok(())) => sent = true,
                    // The API may answer and close without reading everything (RFC 9112 §9.5).
                    Poll::Ready(Err(Broken::Write(_))) if self.is_begun() => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Error::Broken(error))),
                    // What comes before the first byte of a request is no answer to it.
                    Poll::Pending if !self.is_begun() => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            loop {
                match ready!(poll_fill(self.stream, &mut read, FIRST_READ, cx)) {
                    Ok(0) => return Poll::Ready(Err(Error::Broken(Broken::Cut))),
                    Ok(_) => {}
                    Err(error) => return Poll::Ready(Err(Error::Broken(Broken::Read(error)))),
                }
                if let Some(answer) = finder.take(&mut read)? {
                    return Poll::Ready(Ok(answer));
                }
            }
        });
        let (answer, framing) = answer.await?;
        let mut decoder = decoder(self.is_to_head, answer.status(), framing);
        let mut content = BytesMut::new();
        let mut keeps_alive = sent && head::keeps_alive(&answer, framing);
        loop {
            while let Some(piece) = decoder.take(&mut read).map_err(Error::Broken)? {
                content.extend_from_slice(&piece);
            }
            if content.len() > limit {
                return Ok((answer.map(|()| None), false));
            }
            if decoder.is_over() {
                break;
            }
            let wanted = decoder.wanted(FIRST_READ);
            match poll_fn(|cx| poll_fill(self.stream, &mut read, wanted, cx)).await {
                Ok(0) if decoder.ends_with_the_connection() => {
                    keeps_alive = false;
                    break;
                }
                Ok(0) => return Err(Error::Broken(Broken::Cut)),
                Ok(_) => {}
                Err(error) => return Err(Error::Broken(Broken::Read(error))),
            }
        }
        keeps_alive &= read.is_empty();
        Ok((answer.map(|()| Some(content.freeze())), keeps_alive))
    }
}

//! A request on its way out: its head, then its content as it comes, framed by its length or in
//! chunks.

use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::Method;
use http::header::{self, HeaderName, HeaderValue};
use http_body::Body;
use tokio::io::AsyncWrite;

use crate::upstream::{Broken, Head};

/// What is still to be written.
#[derive(Debug)]
pub(super) struct Outgoing<B> {
    /// The head, later what frames the pieces.
    framing: Vec<u8>,
    /// How much of `framing` is written.
    written: usize,
    /// Follows `framing`.
    piece: Bytes,
    /// Follows `piece`: the end of its chunk.
    line_end: &'static [u8],
    content: B,
    rest: Rest,
    /// Whether everything written was flushed, too.
    flushed: bool,
    /// Bytes written so far.
    total: u64,
}

/// What is still to come of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Nothing.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunks,
}

impl<B: Body<Data = Bytes> + Unpin> Outgoing<B> {
    /// `framing` is a buffer to be used again.
    pub(super) fn new(
        mut framing: Vec<u8>,
        request: &Head,
        host: &HeaderValue,
        content: B,
    ) -> Outgoing<B> {
        framing.clear();
        let size = content.size_hint().exact();
        let rest = match size {
            Some(0) => Rest::None,
            Some(length) => Rest::Length(length),
            None => Rest::Chunks,
        };
        write_head(&mut framing, request, host, size);
        Outgoing {
            framing,
            written: 0,
            piece: Bytes::new(),
            line_end: b"",
            content,
            rest,
            flushed: false,
            total: 0,
        }
    }

    /// Writes on until everything is sent. Pending also while the content is waited for.
    pub(super) fn poll(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            let mut awaits_content = false;
            if self.piece.is_empty() && self.line_end.is_empty() && self.rest != Rest::None {
                match Pin::new(&mut self.content).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(piece) if !piece.is_empty() => self.put(piece)?,
                        Ok(_) | Err(_) => continue,
                    },
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(Broken::Content)),
                    Poll::Ready(None) => self.end()?,
                    Poll::Pending => awaits_content = true,
                }
            }
            if self.is_written() {
                if !self.flushed {
                    ready!(Pin::new(&mut *stream).poll_flush(cx)).map_err(Broken::Write)?;
                    self.flushed = true;
                }
                match awaits_content {
                    true => return Poll::Pending,
                    false if self.rest == Rest::None => return Poll::Ready(Ok(())),
                    false => continue,
                }
            }
            ready!(self.poll_write(stream, cx)).map_err(Broken::Write)?;
        }
    }

    /// The buffer, to be used again: everything is sent.
    pub(super) fn take_framing(&mut self) -> Vec<u8> {
        self.written = 0;
        std::mem::take(&mut self.framing)
    }

    /// Bytes written so far, framing included.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    fn is_written(&self) -> bool {
        self.written == self.framing.len() && self.piece.is_empty() && self.line_end.is_empty()
    }

    /// Takes the next piece; the one before it is written.
    fn put(&mut self, piece: Bytes) -> Result<(), Broken> {
        self.forget_written();
        match &mut self.rest {
            Rest::None => return Err(Broken::Content),
            Rest::Length(left) => {
                let length = piece.len() as u64;
                let rest = left.checked_sub(length).ok_or(Broken::Content)?;
                self.rest = match rest {
                    0 => Rest::None,
                    rest => Rest::Length(rest),
                };
            }
            Rest::Chunks => {
                write!(self.framing, "{:x}\r\n", piece.len()).expect(INFALLIBLE);
                self.line_end = b"\r\n";
            }
        }
        self.piece = piece;
        Ok(())
    }

    /// There is no further piece.
    fn end(&mut self) -> Result<(), Broken> {
        self.forget_written();
        match self.rest {
            Rest::None => {}
            Rest::Length(_) => return Err(Broken::Content),
            Rest::Chunks => self.framing.extend_from_slice(b"0\r\n\r\n"),
        }
        self.rest = Rest::None;
        Ok(())
    }

    fn forget_written(&mut self) {
        if self.written == self.framing.len() {
            self.framing.clear();
            self.written = 0;
        }
    }

    fn poll_write(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let framing = &self.framing[self.written..];
        let stream = Pin::new(stream);
        let count = if self.piece.is_empty() && self.line_end.is_empty() {
            ready!(stream.poll_write(cx, framing))?
        } else {
            let all = [framing, &self.piece, self.line_end].map(IoSlice::new);
            ready!(stream.poll_write_vectored(cx, &all))?
        };
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_framing = count.min(framing.len());
        let of_piece = (count - of_framing).min(self.piece.len());
        self.written += of_framing;
        self.piece.advance(of_piece);
        self.line_end = &self.line_end[count - of_framing - of_piece..];
        self.flushed = false;
        self.total += count as u64;
        Poll::Ready(Ok(()))
    }
}

const INFALLIBLE: &str = "writing into a vector never fails";

/// Host and framing are set anew, whatever the request says of them: by the length of the content
/// where it is known, which includes none for the methods that promise content, else in chunks, for
/// GET and HEAD too (RFC 9112 §6, RFC 9110 §8.6).
fn write_head(out: &mut Vec<u8>, request: &Head, host: &HeaderValue, size: Option<u64>) {
    const OURS: [HeaderName; 3] = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
    ];
    let field = |out: &mut Vec<u8>, name: &HeaderName, value: &[u8]| {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.target.as_str().as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    field(out, &header::HOST, host.as_bytes());
    for (name, value) in &request.headers {
        if !OURS.contains(name) {
            field(out, name, value.as_bytes());
        }
    }
    let promises_content = matches!(request.method, Method::POST | Method::PUT | Method::PATCH);
    match size {
        Some(0) if !promises_content => {}
        Some(length) => {
            write!(out, "content-length: {length}\r\n").expect(INFALLIBLE);
        }
        None => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};
    use std::convert::Infallible;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, duplex};

    fn request(method: Method) -> Head {
        let mut headers = HeaderMap::new();
        headers.insert("accept", HeaderValue::from_static("*/*"));
        // What nobody should have left there.
        headers.insert(header::HOST, HeaderValue::from_static("elsewhere"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("99"));
        Head {
            method,
            target: "/trips?a=1".parse().unwrap(),
            headers,
        }
    }

    /// What is written through a pipe with room for `room` bytes.
    async fn written<B>(method: Method, content: B, room: usize) -> (Result<(), Broken>, String)
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let host = HeaderValue::from_static("api.example");
        let mut outgoing = Outgoing::new(Vec::new(), &request(method), &host, content);
        let (mut near, mut far) = duplex(room);
        let sending = async {
            let sent = poll_fn(|cx| outgoing.poll(&mut near, cx)).await;
            drop(near);
            sent
        };
        let mut read = String::new();
        let (sent, _) = tokio::join!(sending, far.read_to_string(&mut read));
        (sent, read)
    }

    fn pieces(
        pieces: &'static [&'static str],
    ) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let frames = pieces
            .iter()
            .map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
        StreamBody::new(futures_util::stream::iter(frames))
    }

    const HEAD: &str = "/trips?a=1 HTTP/1.1\r\nhost: api.example\r\naccept: */*\r\n";

    #[tokio::test]
    async fn known_length_is_announced_and_no_content_only_if_promised() {
        for room in [1, 7, 4096] {
            let (sent, got) = written(Method::PUT, Full::from("abc"), room).await;
            sent.unwrap();
            assert_eq!(got, format!("PUT {HEAD}content-length: 3\r\n\r\nabc"));
            let (_, got) = written(Method::POST, Full::<Bytes>::default(), room).await;
            assert_eq!(got, format!("POST {HEAD}content-length: 0\r\n\r\n"));
            let (_, got) = written(Method::GET, Full::<Bytes>::default(), room).await;
            assert_eq!(got, format!("GET {HEAD}\r\n"));
        }
    }

    #[tokio::test]
    async fn content_of_unknown_length_is_chunked_for_every_method() {
        for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE] {
            for room in [1, 7, 4096] {
                let content = pieces(&["abc", "", "0123456789"]);
                let (sent, got) = written(method.clone(), content, room).await;
                sent.unwrap();
                let chunks = "3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n";
                let expected = format!("{method} {HEAD}transfer-encoding: chunked\r\n\r\n{chunks}");
                assert_eq!(got, expected);
            }
            let (_, got) = written(method, pieces(&[]), 4096).await;
            assert!(got.ends_with("chunked\r\n\r\n0\r\n\r\n"), "{got}");
        }
    }

    /// Content that is not as long as it says.
    struct Liar(&'static str, u64);

    impl Body for Liar {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let piece = Bytes::from_static(std::mem::take(&mut self.0).as_bytes());
            Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
        }

        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact(self.1)
        }
    }

    #[tokio::test]
    async fn content_of_another_length_is_an_error_and_is_never_too_long() {
        for announced in [2, 4] {
            let (sent, got) = written(Method::PUT, Liar("abc", announced), 4096).await;
            assert!(matches!(sent, Err(Broken::Content)));
            assert!(!got.ends_with("abc") || announced > 3, "{got}");
        }
    }
}

//! One open connection: in plain text, over TLS, or in memory. Knows what lies in it unread and what
//! was written to it, and nothing of HTTP.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio_rustls::client::TlsStream;

/// One open connection.
#[derive(Debug)]
pub struct Stream(Transport);

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    // A TLS session is a kilobyte; boxed, a plain stream stays small.
    Tls(Box<TlsStream<Records>>),
    Memory(DuplexStream),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Stream {
        Stream(Transport::Plain(stream))
    }
}

impl From<TlsStream<Records>> for Stream {
    fn from(stream: TlsStream<Records>) -> Stream {
        Stream(Transport::Tls(Box::new(stream)))
    }
}

impl From<DuplexStream> for Stream {
    fn from(stream: DuplexStream) -> Stream {
        Stream(Transport::Memory(stream))
    }
}

impl Stream {
    /// Whether nothing can be read: no byte, no end, no error. Asks what was read and not taken, then
    /// the system itself, because what the runtime knows of a socket can be one turn of its loop old.
    pub fn is_quiet(&mut self) -> bool {
        match &self.0 {
            Transport::Plain(tcp) => is_empty(tcp),
            Transport::Tls(tls) => {
                let (records, session) = tls.get_ref();
                session.wants_read() && records.between_two() && is_empty(&records.tcp)
            }
            Transport::Memory(_) => self.reads_nothing(&mut Context::from_waker(Waker::noop())),
        }
    }

    /// The same, and `cx` is woken when that changes.
    pub(super) fn stays_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        self.is_quiet() && self.reads_nothing(cx)
    }

    /// Whether a read brings nothing yet; `cx` is woken when one does.
    fn reads_nothing(&mut self, cx: &mut Context<'_>) -> bool {
        let mut byte = [0];
        let reading =
            poll_fn(|cx| Pin::new(&mut *self).poll_read(cx, &mut ReadBuf::new(&mut byte)));
        // A task may have used up its share of reads for now, which looks like quiet.
        pin!(unconstrained(reading)).poll(cx).is_pending()
    }

    /// How many bytes TLS has written to the socket; `None` without TLS, where what is taken from a
    /// writer is in the socket already.
    pub(super) fn encrypted(&self) -> Option<u64> {
        match &self.0 {
            Transport::Tls(tls) => Some(tls.get_ref().0.written),
            Transport::Plain(_) | Transport::Memory(_) => None,
        }
    }
}

/// Whether the system has nothing for the reader of this socket, which does not block.
fn is_empty(tcp: &TcpStream) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    let peeked = socket2::SockRef::from(tcp).peek(&mut byte);
    matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// TCP under TLS: sees where one record ends and the next begins (RFC 8446 §5.1), which the session
/// above it does not say.
#[derive(Debug)]
pub(super) struct Records {
    tcp: TcpStream,
    /// Bytes written so far.
    written: u64,
    read: Position,
}

/// Where in a record the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// As many bytes of its header are read, and the length as far as it is known.
    Header { read: u8, length: u16 },
    /// As many bytes of it are left, at least 1.
    Content { left: u16 },
}

/// Of a record's header, the last two of which are its length.
const HEADER: u8 = 5;

impl Records {
    pub(super) fn over(tcp: TcpStream) -> Records {
        Records {
            tcp,
            written: 0,
            read: Position::START,
        }
    }

    /// Whether all records that were begun were read to their ends, and are therefore decrypted.
    fn between_two(&self) -> bool {
        self.read == Position::START
    }
}

impl Position {
    const START: Position = Position::Header { read: 0, length: 0 };

    fn after(mut self, mut bytes: &[u8]) -> Position {
        while let Some((first, rest)) = bytes.split_first() {
            self = match self {
                Position::Header { read, length } => {
                    bytes = rest;
                    let length = match read {
                        ..3 => 0,
                        _ => (length << 8) | u16::from(*first),
                    };
                    match read + 1 {
                        HEADER if length == 0 => Position::START,
                        HEADER => Position::Content { left: length },
                        read => Position::Header { read, length },
                    }
                }
                Position::Content { left } => {
                    let taken = bytes.len().min(left.into());
                    bytes = &bytes[taken..];
                    match left - taken as u16 {
                        0 => Position::START,
                        left => Position::Content { left },
                    }
                }
            };
        }
        self
    }
}

impl AsyncRead for Records {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buffer))?;
        self.read = self.read.after(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Records {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.tcp).poll_write(cx, bytes))?;
        self.written += count as u64;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.tcp).poll_write_vectored(cx, slices))?;
        self.written += count as u64;
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Memory(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Memory(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Memory(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Memory(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Transport::Memory(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
            Transport::Memory(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(length: u16) -> Vec<u8> {
        let mut record = vec![0x17, 3, 3];
        record.extend_from_slice(&length.to_be_bytes());
        record.resize(record.len() + usize::from(length), 3);
        record
    }

    proptest! {
        #[test]
        fn a_reader_is_between_two_records_exactly_at_their_ends(
            lengths in proptest::collection::vec(prop_oneof![0..3_u16, 250..260_u16, 16_000..16_640_u16], 1..5),
            steps in proptest::collection::vec(1..700_usize, 1..20),
        ) {
            let (mut bytes, mut ends) = (Vec::new(), vec![0]);
            for length in lengths {
                bytes.extend(record(length));
                ends.push(bytes.len());
            }
            let (mut at, mut position) = (0, Position::START);
            for step in steps.iter().cycle() {
                prop_assert_eq!(position == Position::START, ends.contains(&at), "{}", at);
                if at == bytes.len() {
                    break;
                }
                let next = (at + step).min(bytes.len());
                position = position.after(&bytes[at..next]);
                at = next;
            }
        }
    }
}

//! An answer's head and its content are two pieces. Where both are short they are written as one: a
//! vectored write costs the system more than it takes to put them together.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest that is put together, in bytes.
const SHORT: usize = 4 * 1024;

thread_local! {
    /// Where it is put together, one after the other.
    static PIECE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A stream whose short writes have one piece.
pub(super) struct CoalescedWrites<S>(pub(super) S);

impl<S: AsyncRead + Unpin> AsyncRead for CoalescedWrites<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CoalescedWrites<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.0);
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if length > SHORT {
            return stream.poll_write_vectored(context, slices);
        }
        PIECE.with_borrow_mut(|piece| {
            piece.clear();
            slices
                .iter()
                .for_each(|slice| piece.extend_from_slice(slice));
            stream.poll_write(context, piece)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    /// Notes how long the pieces of each write were.
    #[derive(Default)]
    struct Written(Vec<Vec<usize>>);

    impl AsyncWrite for Written {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push(vec![bytes.len()]);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.0
                .push(slices.iter().map(|slice| slice.len()).collect());
            Poll::Ready(Ok(1))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn short_pieces_are_one_and_long_ones_stay_where_they_are() {
        let mut stream = CoalescedWrites(Written::default());
        for (head, content) in [(300, SHORT - 300), (10, 20), (300, SHORT)] {
            let (head, content) = (vec![b'h'; head], vec![b'c'; content]);
            let pieces = [IoSlice::new(&head), IoSlice::new(&content)];
            poll_fn(|cx| Pin::new(&mut stream).poll_write_vectored(cx, &pieces))
                .await
                .unwrap();
        }
        assert_eq!(stream.0.0, [vec![SHORT], vec![30], vec![300, SHORT]]);
    }
}

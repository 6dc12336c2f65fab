//! Buffers that no connection of a worker needs now. A connection has one only while there is
//! something in it: what a thousand connections wait for costs no memory, and the next answer is
//! read into the buffer that was used last, which the processor still has at hand.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::FIRST_READ;

/// Spare buffers of a kind that are kept.
const MOST: usize = 32;
/// Those that have grown beyond this are not, in bytes.
pub(super) const LARGEST: usize = 16 * 1024;

/// Answers at once of which a lot is read at once.
const LARGE_READS: usize = 16;

/// The last used on top.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Buffers {
    read: RefCell<Vec<BytesMut>>,
    heads: RefCell<Vec<Vec<u8>>>,
    /// How many [`LargeReads`] there are.
    large: Cell<usize>,
}

/// The right to read a lot at once, until this is dropped.
#[derive(Debug)]
pub(super) struct LargeReads(Rc<Buffers>);

impl Drop for LargeReads {
    fn drop(&mut self) {
        self.0.large.set(self.0.large.get() - 1);
    }
}

impl Buffers {
    /// The right to read a lot at once; `None` if [`LARGE_READS`] answers have it already.
    pub(super) fn read_large(self: &Rc<Self>) -> Option<LargeReads> {
        let large = self.large.get();
        (large < LARGE_READS).then(|| {
            self.large.set(large + 1);
            LargeReads(self.clone())
        })
    }

    /// To read into: empty, perhaps without room.
    pub(super) fn to_read(&self) -> BytesMut {
        self.read.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes one back, with nothing in it, that was never larger than [`LARGEST`].
    pub(super) fn was_read(&self, buffer: BytesMut) {
        let mut spare = self.read.borrow_mut();
        if spare.len() < MOST {
            spare.push(buffer);
        }
    }

    /// To write a head into: empty.
    pub(super) fn to_write(&self) -> Vec<u8> {
        self.heads.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes one back, whatever is in it.
    pub(super) fn was_written(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut spare = self.heads.borrow_mut();
        if spare.len() < MOST && buffer.capacity() <= LARGEST {
            spare.push(buffer);
        }
    }
}

/// Reads what there is, at most about `wanted` bytes, into `buffer`; 0 at the end.
pub(super) fn poll_fill(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_used_comes_first_and_the_rest_is_bounded() {
        let buffers = Buffers::default();
        assert_eq!(buffers.to_read().capacity(), 0);
        for size in 1..2 * MOST {
            buffers.was_read(BytesMut::with_capacity(size));
            buffers.was_written(Vec::with_capacity(size));
        }
        assert_eq!(buffers.read.borrow().len(), MOST);
        assert_eq!(buffers.heads.borrow().len(), MOST);
        assert!(buffers.to_read().capacity() >= MOST);
        assert!(buffers.to_write().capacity() >= MOST);
    }

    #[test]
    fn only_a_few_read_a_lot_at_once() {
        let buffers = Rc::<Buffers>::default();
        let large: Vec<_> = (0..LARGE_READS).map(|_| buffers.read_large()).collect();
        assert!(large.iter().all(Option::is_some) && buffers.read_large().is_none());
        drop(large);
        assert!(buffers.read_large().is_some());
    }

    #[test]
    fn a_head_leaves_nothing_in_its_buffer_and_a_large_one_no_buffer() {
        let buffers = Buffers::default();
        buffers.was_written(b"GET / HTTP/1.1".to_vec());
        assert!(buffers.to_write().is_empty());
        buffers.was_written(Vec::with_capacity(2 * LARGEST));
        assert_eq!(buffers.to_write().capacity(), 0);
    }
}

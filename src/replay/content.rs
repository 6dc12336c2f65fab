//! What is sent upstream: a view of the caller's content as it comes, or content that is there
//! already.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::memory::MemoryPermit;
use super::{Attachment, Failure, Progress, Recording};

/// What is sent upstream: the request's content the first time or the second.
#[derive(Debug, Default)]
pub enum Content<C> {
    /// None.
    #[default]
    Empty,
    /// The caller's, as it comes.
    View(View<C>),
    /// What was kept of it.
    Kept(Kept),
    /// Content that was read before; empty once it was given out.
    Whole(Bytes),
}

/// The content as the upstream connection sees it.
#[derive(Debug)]
pub struct View<C>(pub(super) Rc<RefCell<Recording<C>>>);

/// Content kept in memory; gives the memory back when dropped.
#[derive(Debug)]
pub struct Kept {
    /// All of it; `None` if there is none, or once it was given out.
    pub(super) content: Option<Bytes>,
    /// Whether the caller announced the length: a replay is framed like the first attempt.
    pub(super) sized: bool,
    pub(super) _permit: MemoryPermit,
}

impl<C> Content<C> {
    /// Content that is there already.
    pub fn of(whole: Bytes) -> Content<C> {
        match whole.is_empty() {
            true => Content::Empty,
            false => Content::Whole(whole),
        }
    }

    /// All of it, if it is in memory.
    pub fn whole(&self) -> Option<Bytes> {
        match self {
            Content::Kept(kept) => kept.content.clone(),
            Content::Whole(content) => Some(content.clone()),
            Content::Empty | Content::View(_) => None,
        }
    }
}

impl<C: Body<Data = Bytes> + Unpin> Body for Content<C> {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match self.get_mut() {
            Content::Empty => Poll::Ready(None),
            Content::View(View(recording)) => {
                let mut recording = recording.borrow_mut();
                if matches!(recording.view, Attachment::Taken) {
                    return Poll::Ready(Some(Err(Failure::Taken)));
                }
                let chunk = recording.poll_chunk(cx);
                if chunk.is_pending() {
                    recording.view = Attachment::Attached(Some(cx.waker().clone()));
                }
                chunk.map_ok(Frame::data)
            }
            Content::Kept(kept) => Poll::Ready(kept.content.take().map(|c| Ok(Frame::data(c)))),
            Content::Whole(content) if content.is_empty() => Poll::Ready(None),
            Content::Whole(content) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(content))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Content::Empty => true,
            // A view that was taken has not ended well, even if nothing is left to read.
            Content::View(View(recording)) => recording.borrow().progress == Progress::Complete,
            Content::Kept(kept) => kept.sized && kept.content.is_none(),
            Content::Whole(content) => content.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Content::Empty => SizeHint::with_exact(0),
            Content::View(View(recording)) => recording.borrow().source.size_hint(),
            Content::Kept(kept) if kept.sized => {
                SizeHint::with_exact(kept.content.as_ref().map_or(0, |c| c.len() as u64))
            }
            Content::Kept(_) => SizeHint::default(),
            Content::Whole(content) => SizeHint::with_exact(content.len() as u64),
        }
    }
}

//! What an answer holds: content of the API on its way through, of which some may have been read, or
//! content that is there whole.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use prometheus_client::metrics::gauge::Gauge;

use crate::stalls::Stalls;
use crate::upstream::{Broken, pool};

/// The content of an answer to a caller.
pub struct Content {
    state: ContentState,
    _in_flight: Option<InFlight>,
}

/// Counts a request as being served until it is dropped.
pub(in crate::proxy) struct InFlight(Gauge);

/// How much of the content was read before it is passed on.
pub(super) enum ContentState {
    /// Nothing: it is passed on as it comes.
    Unread(pool::AnswerContent),
    /// Its beginning, which was looked into and did not hold all of it.
    Begun(Box<Begun>),
    /// All of it; `None` once it was given out.
    Whole(Option<Bytes>),
}

/// Content of which some was read.
pub(super) struct Begun {
    /// That comes first; `None` once it was given out.
    pub(super) beginning: Option<Bytes>,
    pub(super) rest: pool::AnswerContent,
}

impl InFlight {
    pub(in crate::proxy) fn new(gauge: &Gauge) -> InFlight {
        gauge.inc();
        InFlight(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Content {
    pub(super) fn new(mut state: ContentState, in_flight: Option<InFlight>) -> Content {
        match &mut state {
            ContentState::Unread(content) => content.pass_on(),
            ContentState::Begun(begun) => begun.rest.pass_on(),
            ContentState::Whole(_) => {}
        }
        Content {
            state,
            _in_flight: in_flight,
        }
    }

    /// Who is still in the exchange, if it did not end at once.
    pub(crate) fn stalls(&self) -> Option<&Rc<Stalls>> {
        match &self.state {
            ContentState::Unread(content) => content.stalls(),
            ContentState::Begun(begun) => begun.rest.stalls(),
            ContentState::Whole(_) => None,
        }
    }

    /// Content of the proxy's own.
    pub(in crate::proxy) fn own(whole: Bytes, in_flight: Option<InFlight>) -> Content {
        Content::new(ContentState::Whole(Some(whole)), in_flight)
    }
}

impl Body for ContentState {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            ContentState::Unread(content) => Pin::new(content).poll_frame(cx),
            ContentState::Begun(begun) => match begun.beginning.take() {
                Some(beginning) => Poll::Ready(Some(Ok(Frame::data(beginning)))),
                None => Pin::new(&mut begun.rest).poll_frame(cx),
            },
            ContentState::Whole(content) => Poll::Ready(content.take().map(|c| Ok(Frame::data(c)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ContentState::Unread(content) => content.is_end_stream(),
            ContentState::Begun(begun) => begun.beginning.is_none() && begun.rest.is_end_stream(),
            ContentState::Whole(content) => content.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let known = |content: &Option<Bytes>| content.as_ref().map_or(0, |c| c.len() as u64);
        match self {
            ContentState::Unread(content) => content.size_hint(),
            ContentState::Begun(begun) => match begun.rest.size_hint().exact() {
                Some(length) => SizeHint::with_exact(length + known(&begun.beginning)),
                None => SizeHint::default(),
            },
            ContentState::Whole(content) => SizeHint::with_exact(known(content)),
        }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        Pin::new(&mut self.get_mut().state).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.state.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.state.size_hint()
    }
}

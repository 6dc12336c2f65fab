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
    source: Source,
    _in_flight: Option<InFlight>,
}

/// Counts a request as being served until it is dropped.
pub(in crate::proxy) struct InFlight(Gauge);

pub(super) enum Source {
    /// As it comes.
    Api(pool::AnswerContent),
    /// The same, once its beginning was looked into, and did not hold all of it.
    Begun(Box<Begun>),
    /// `None` once it was given out.
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
    pub(super) fn new(mut source: Source, in_flight: Option<InFlight>) -> Content {
        match &mut source {
            Source::Api(content) => content.pass_on(),
            Source::Begun(begun) => begun.rest.pass_on(),
            Source::Whole(_) => {}
        }
        Content {
            source,
            _in_flight: in_flight,
        }
    }

    /// Who is still in the exchange, if it did not end at once.
    pub(crate) fn stalls(&self) -> Option<&Rc<Stalls>> {
        match &self.source {
            Source::Api(content) => content.stalls(),
            Source::Begun(begun) => begun.rest.stalls(),
            Source::Whole(_) => None,
        }
    }

    /// Content of the proxy's own.
    pub(in crate::proxy) fn own(whole: Bytes, in_flight: Option<InFlight>) -> Content {
        Content::new(Source::Whole(Some(whole)), in_flight)
    }
}

impl Body for Source {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Source::Api(content) => Pin::new(content).poll_frame(cx),
            Source::Begun(begun) => match begun.beginning.take() {
                Some(beginning) => Poll::Ready(Some(Ok(Frame::data(beginning)))),
                None => Pin::new(&mut begun.rest).poll_frame(cx),
            },
            Source::Whole(content) => Poll::Ready(content.take().map(|c| Ok(Frame::data(c)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Source::Api(content) => content.is_end_stream(),
            Source::Begun(begun) => begun.beginning.is_none() && begun.rest.is_end_stream(),
            Source::Whole(content) => content.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let known = |content: &Option<Bytes>| content.as_ref().map_or(0, |c| c.len() as u64);
        match self {
            Source::Api(content) => content.size_hint(),
            Source::Begun(begun) => match begun.rest.size_hint().exact() {
                Some(length) => SizeHint::with_exact(length + known(&begun.beginning)),
                None => SizeHint::default(),
            },
            Source::Whole(content) => SizeHint::with_exact(known(content)),
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
        Pin::new(&mut self.get_mut().source).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}

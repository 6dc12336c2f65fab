//! One request and its answer on a connection of the pool, and how far it came where it failed.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::{Host, Opened};
use crate::upstream::{Broken, Error, Head, Target, http1};

/// The right to send one request.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) connection: http1::Connection,
    pub(super) place: Place,
}

/// What a connection takes up while it carries a request.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) host: Rc<Host>,
    pub(super) opened: Opened,
    pub(super) _permit: OwnedSemaphorePermit,
}

/// The content of an answer. Its connection returns to the pool at its end.
#[derive(Debug)]
pub struct Answer(http1::Content<Place>);

/// Why an exchange failed.
pub(super) struct Failed {
    pub(super) error: Error,
    pub(super) state: State,
}

/// How far a request came before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The connection died before any byte of an answer.
    Unanswered,
    /// The answer was bad, cut off or late.
    Final,
}

impl From<http1::Failed> for Failed {
    fn from(failed: http1::Failed) -> Failed {
        let state = match &failed.error {
            Error::Broken(Broken::Cut | Broken::Read(_)) if !failed.heard => State::Unanswered,
            _ => State::Final,
        };
        Failed {
            error: failed.error,
            state,
        }
    }
}

impl Lease {
    /// Sends the request. Whatever goes wrong, the connection is not used again.
    pub(super) async fn exchange(
        self,
        target: &Target,
        request: &Head,
        content: impl Body<Data = Bytes> + Unpin + 'static,
        overdue: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Response<Answer>, Failed> {
        let Lease { connection, place } = self;
        tokio::select! {
            biased;
            answer = connection.exchange(request, &target.host, content, place) => match answer {
                Ok(answer) => Ok(answer.map(Answer::of)),
                Err(failed) => Err(failed.into()),
            },
            () = overdue => Err(Failed {
                error: Error::ResponseTimeout,
                state: State::Final,
            }),
        }
    }
}

impl Answer {
    fn of(content: http1::Content<Place>) -> Answer {
        let mut answer = Answer(content);
        answer.give_back();
        answer
    }

    /// Gives the connection back, if all was read.
    fn give_back(&mut self) {
        if let Some((connection, place)) = self.0.take_connection() {
            place.host.push(connection, place.opened);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let answer = self.get_mut();
        let piece = ready!(answer.0.poll_piece(cx));
        answer.give_back();
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

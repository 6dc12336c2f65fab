//! One request and its answer on a connection of the pool, and how far it came if it failed.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::passing::Watch;
use super::{Host, Opened};
use crate::stillness::Stillness;
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

impl http1::Held for Place {
    fn rest(&self) -> impl FnMut(u64, &mut Context<'_>) -> Poll<()> + 'static {
        let mut watch = Watch::new(&self.host);
        move |written, cx| watch.poll_needed(written, cx)
    }
}

/// The content of an answer. Its connection returns to the pool at its end.
#[derive(Debug)]
pub struct Answer {
    content: http1::Content<Place>,
    passage: Passage,
}

/// How far an answer is on its way.
#[derive(Debug)]
enum Passage {
    /// Not yet given to its caller: the code that reads it bounds the wait for it.
    Held,
    /// Given to its caller.
    PassedOn,
    /// Given to its caller, and it did not end at once.
    Watched(Box<Watch>),
}

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
            Error::Broken(Broken::Cut | Broken::Read(_) | Broken::Write(_)) if !failed.heard => {
                State::Unanswered
            }
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
        let mut answer = Answer {
            content,
            passage: Passage::Held,
        };
        answer.give_back();
        answer
    }

    /// Its head goes to the caller. From now on the API may not be still for longer than
    /// `stall_timeout`, and the exchange may have to give way.
    pub fn pass_on(&mut self) {
        if matches!(self.passage, Passage::Held) {
            self.passage = Passage::PassedOn;
        }
    }

    /// Who is still in the exchange, if it was passed on and did not end at once.
    pub fn stillness(&self) -> Option<&Rc<Stillness>> {
        match &self.passage {
            Passage::Watched(watch) => Some(watch.stillness()),
            Passage::Held | Passage::PassedOn => None,
        }
    }

    /// A piece came, and more is to come.
    fn moved(&mut self) {
        match &self.passage {
            Passage::Held => {}
            Passage::PassedOn => self.watch(),
            Passage::Watched(watch) => watch.moved(),
        }
    }

    #[cold]
    fn watch(&mut self) {
        if let Some(place) = self.content.place() {
            self.passage = Passage::Watched(Box::new(Watch::new(&place.host)));
        }
    }

    /// Nothing came.
    #[cold]
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        if matches!(self.passage, Passage::PassedOn) {
            self.watch();
        }
        match &mut self.passage {
            Passage::Watched(watch) => watch.poll_end(self.content.written(), cx),
            Passage::Held | Passage::PassedOn => Poll::Pending,
        }
    }

    /// Gives the connection back, if all was read.
    fn give_back(&mut self) {
        if let Some((connection, place)) = self.content.take_connection() {
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
        let Poll::Ready(piece) = answer.content.poll_piece(cx) else {
            let broken = ready!(answer.poll_end(cx));
            answer.content.abandon();
            return Poll::Ready(Some(Err(broken)));
        };
        answer.give_back();
        match answer.content.is_over() {
            true => answer.passage = Passage::Held,
            false => answer.moved(),
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

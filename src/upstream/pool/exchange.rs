//! One request and its answer on a connection of the pool, and how far it came if it failed.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::host::{CheckedOut, Slot};
use super::watch::Watch;
use crate::stalls::Stalls;
use crate::upstream::{Broken, Error, Head, Target, http1};
use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};

/// The content of an answer. At its end its connection returns to the pool.
#[derive(Debug)]
pub struct AnswerContent {
    content: http1::Content<Slot>,
    delivery: Delivery,
}

/// How far an answer is on its way to its caller.
#[derive(Debug)]
enum Delivery {
    /// Not passed on yet: the code that reads it bounds the wait for it.
    Held,
    /// Passed on; so far every piece was there at once.
    PassedOn,
    /// Passed on, and it did not end at once: the API must not be still for too long, and the exchange
    /// may have to give way.
    Watched(Box<Watch>),
}

/// Why an exchange failed.
pub(super) struct Failed {
    pub(super) error: Error,
    pub(super) progress: Progress,
}

/// How far a request came before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The connection died before any byte of an answer.
    Unanswered,
    /// The answer was bad, cut off or late.
    Final,
}

impl From<http1::Failed> for Failed {
    fn from(failed: http1::Failed) -> Failed {
        let progress = match &failed.error {
            Error::Broken(Broken::Cut | Broken::Read(_) | Broken::Write(_)) if !failed.heard => {
                Progress::Unanswered
            }
            _ => Progress::Final,
        };
        Failed {
            error: failed.error,
            progress,
        }
    }
}

impl CheckedOut {
    /// Sends the request. Whatever goes wrong, the connection is not used again.
    pub(super) async fn exchange(
        self,
        target: &Target,
        request: &Head,
        content: impl Body<Data = Bytes> + Unpin + 'static,
        overdue: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Response<AnswerContent>, Failed> {
        let CheckedOut { connection, slot } = self;
        tokio::select! {
            biased;
            answer = connection.exchange(request, &target.host, content, slot) => match answer {
                Ok(answer) => Ok(answer.map(AnswerContent::of)),
                Err(failed) => Err(failed.into()),
            },
            () = overdue => Err(Failed {
                error: Error::ResponseTimeout,
                progress: Progress::Final,
            }),
        }
    }
}

impl AnswerContent {
    fn of(content: http1::Content<Slot>) -> AnswerContent {
        let mut answer = AnswerContent {
            content,
            delivery: Delivery::Held,
        };
        answer.give_back();
        answer
    }

    /// The head is passed on to the caller. From now on the API may not be still for longer than
    /// `stall_timeout`, and the exchange may have to give way to another request.
    pub fn pass_on(&mut self) {
        if matches!(self.delivery, Delivery::Held) {
            self.delivery = Delivery::PassedOn;
        }
    }

    /// Which sides of the exchange are still; `None` unless it was passed on and did not end at once.
    pub fn stalls(&self) -> Option<&Rc<Stalls>> {
        match &self.delivery {
            Delivery::Watched(watch) => Some(watch.stalls()),
            Delivery::Held | Delivery::PassedOn => None,
        }
    }

    /// A piece came, and more is to come.
    fn moved(&mut self) {
        match &self.delivery {
            Delivery::Held => {}
            Delivery::PassedOn => self.watch(),
            Delivery::Watched(watch) => watch.moved(),
        }
    }

    #[cold]
    fn watch(&mut self) {
        if let Some(slot) = self.content.slot() {
            self.delivery = Delivery::Watched(Box::new(Watch::new(&slot.host)));
        }
    }

    /// Nothing came.
    #[cold]
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        if matches!(self.delivery, Delivery::PassedOn) {
            self.watch();
        }
        match &mut self.delivery {
            Delivery::Watched(watch) => watch.poll_end(self.content.written(), cx),
            Delivery::Held | Delivery::PassedOn => Poll::Pending,
        }
    }

    /// Gives the connection back, if all was read.
    fn give_back(&mut self) {
        if let Some((connection, slot)) = self.content.take_connection() {
            slot.host.push(connection, slot.opened);
        }
    }
}

impl Body for AnswerContent {
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
            true => answer.delivery = Delivery::Held,
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

//! Answers under way on one worker. Each is a future of kilobytes, and lives where one before it
//! ended: an allocator would search for such a piece each time, and find it where it is cold.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::Request;
use hyper::body::Incoming;
use tokio::sync::watch;

use super::{Answered, Handler, Times};
use crate::peer::Peer;

/// How many places are kept for later answers.
const KEPT: usize = 64;

/// Begins the answers of one handler.
pub struct Answers<H, F> {
    /// Counted apart, for the connections.
    pub(super) counts: Rc<Counts>,
    /// How long a caller may take nothing of them, among others.
    pub(super) times: watch::Receiver<Times>,
    handler: Rc<H>,
    begin: fn(Rc<H>, Peer, Request<Incoming>) -> F,
    free: Rc<Free<F>>,
}

/// What one worker counts of its answers, and what it asks of them.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Whether each answer is to be the last one of its connection.
    pub(super) are_last: Cell<bool>,
    /// Requests whose answer has not ended.
    pub(super) under_way: Cell<u64>,
    /// Answers that ended.
    pub(super) ended: Cell<u64>,
}

/// Places that an answer left; the last one is the warmest.
struct Free<F>(RefCell<Vec<Pin<Box<Option<F>>>>>);

/// One answer under way.
pub(super) struct UnderWay<F> {
    place: Option<Pin<Box<Option<F>>>>,
    free: Rc<Free<F>>,
}

/// The answers of `handler`, to callers that take something of them every `stall_timeout` of `times`.
pub fn answers<H: Handler>(
    handler: H,
    times: watch::Receiver<Times>,
) -> Answers<H, impl Future<Output = Answered<H>> + 'static> {
    Answers {
        counts: Rc::default(),
        times,
        handler: Rc::new(handler),
        begin: H::handle,
        free: Rc::new(Free(RefCell::default())),
    }
}

impl<H, F> Answers<H, F> {
    /// The handler that gives the answers.
    pub(super) fn handler(&self) -> &H {
        &self.handler
    }

    /// Begins one.
    pub(super) fn begin(&self, peer: Peer, request: Request<Incoming>) -> UnderWay<F> {
        let answer = (self.begin)(self.handler.clone(), peer, request);
        UnderWay::new(answer, self.free.clone())
    }
}

impl<F> UnderWay<F> {
    fn new(answer: F, free: Rc<Free<F>>) -> UnderWay<F> {
        let left = free.0.borrow_mut().pop();
        let place = match left {
            Some(mut place) => {
                place.set(Some(answer));
                place
            }
            None => Box::pin(Some(answer)),
        };
        UnderWay {
            place: Some(place),
            free,
        }
    }
}

impl<F: Future> Future for UnderWay<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let place = self.place.as_mut().map(|place| place.as_mut().as_pin_mut());
        let answer = place.flatten().expect("it is there until this is dropped");
        answer.poll(cx)
    }
}

impl<F> Drop for UnderWay<F> {
    fn drop(&mut self) {
        let Some(mut place) = self.place.take() else {
            return;
        };
        // First of all, and not while the list is borrowed: what ends here may end anything.
        place.set(None);
        let mut free = self.free.0.borrow_mut();
        if free.len() < KEPT {
            free.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::task::Waker;

    /// Where the answer of one under way is.
    fn place<F>(one: &UnderWay<F>) -> *const Option<F> {
        &raw const **one.place.as_ref().unwrap()
    }

    #[test]
    fn the_place_of_one_that_ended_or_was_dropped_is_the_next_ones() {
        let free = Rc::new(Free(RefCell::default()));
        let mut cx = Context::from_waker(Waker::noop());
        let mut first = UnderWay::new(ready("first"), free.clone());
        let where_it_was = place(&first);
        assert_eq!(Pin::new(&mut first).poll(&mut cx), Poll::Ready("first"));
        drop(first);
        for answer in ["second", "third"] {
            let mut next = UnderWay::new(ready(answer), free.clone());
            let other = UnderWay::new(ready("other"), free.clone());
            assert_eq!(place(&next), where_it_was);
            assert_ne!(place(&other), where_it_was);
            assert_eq!(Pin::new(&mut next).poll(&mut cx), Poll::Ready(answer));
            // The one that is dropped last is the warmest.
            drop(other);
            drop(next);
        }
    }

    #[test]
    fn what_an_answer_held_ends_with_it_and_few_places_are_kept() {
        let held = Rc::new(());
        let free = Rc::new(Free(RefCell::default()));
        let hold = || {
            let held = held.clone();
            let answer = async move {
                let _held = held;
                pending::<()>().await
            };
            Box::pin(answer)
        };
        let many: Vec<_> = (0..2 * KEPT)
            .map(|_| UnderWay::new(hold(), free.clone()))
            .collect();
        assert_eq!(Rc::strong_count(&held), 1 + 2 * KEPT);
        drop(many);
        assert_eq!(Rc::strong_count(&held), 1);
        assert_eq!(free.0.borrow().len(), KEPT);
    }
}

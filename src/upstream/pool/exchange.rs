//! One request and its answer on a connection of the pool, and how far it came where it failed.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use tokio::sync::OwnedSemaphorePermit;

use super::{Host, Http1};
use crate::headers::framing_is_plain;
use crate::upstream::Error;

/// The right to send one request.
#[derive(Debug)]
pub(super) enum Lease<B> {
    Http1 {
        connection: Http1<B>,
        host: Rc<Host<B>>,
        _permit: OwnedSemaphorePermit,
    },
    Http2(http2::SendRequest<B>),
}

/// The content of an answer. Its connection returns to the pool when it is dropped.
#[derive(Debug)]
pub struct Answer<B> {
    incoming: Incoming,
    /// Taken when dropped.
    lease: Option<Lease<B>>,
}

/// Why an exchange failed.
pub(super) struct Failed<B> {
    pub(super) error: Error,
    pub(super) state: State<B>,
}

/// How far a request came before it failed.
pub(super) enum State<B> {
    /// None of it was written; this is its content.
    Unsent(B),
    /// The connection died before any byte of an answer.
    Unanswered,
    /// The answer was bad, cut off or late.
    Final,
}

impl<B: Body<Data = Bytes> + Unpin + 'static> Lease<B> {
    /// Sends the request. Whatever goes wrong, the connection is not used again.
    pub(super) async fn exchange(
        mut self,
        request: Request<B>,
        overdue: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Response<Answer<B>>, Failed<B>> {
        let failed = |error| Failed {
            error,
            state: State::Final,
        };
        let answer = tokio::select! {
            biased;
            answer = self.send(request) => answer,
            () = overdue => return Err(failed(Error::ResponseTimeout)),
        };
        match answer {
            Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                Err(failed(Error::Switched))
            }
            // hyper settles such conflicts by itself and leaves both fields in place.
            Ok(answer) if !framing_is_plain(answer.headers(), answer.version()) => {
                Err(failed(Error::Framing))
            }
            Ok(answer) => Ok(answer.map(|incoming| Answer {
                incoming,
                lease: Some(self),
            })),
            Err(mut error) => {
                let unsent = error.take_message();
                let error = error.into_error();
                let state = match unsent {
                    _ if error.is_parse() || error.is_user() => State::Final,
                    Some(request) => State::Unsent(request.into_body()),
                    None if self.has_heard() => State::Final,
                    None => State::Unanswered,
                };
                let error = Error::Broken(error);
                Err(Failed { error, state })
            }
        }
    }

    /// Whether anything came in answer. Of a shared connection that is not known: hyper tells of
    /// whole heads alone, and what was heard may be somebody else's.
    fn has_heard(&self) -> bool {
        match self {
            Lease::Http1 { connection, .. } => connection.heard.anything(),
            Lease::Http2(_) => false,
        }
    }

    async fn send(
        &mut self,
        request: Request<B>,
    ) -> Result<Response<Incoming>, TrySendError<Request<B>>> {
        match self {
            Lease::Http1 { connection, .. } => {
                connection.heard.reset();
                connection.sender.try_send_request(request).await
            }
            Lease::Http2(sender) => sender.try_send_request(request).await,
        }
    }
}

impl<B: Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.get_mut().incoming).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl<B> Drop for Answer<B> {
    fn drop(&mut self) {
        if let Some(Lease::Http1 {
            connection, host, ..
        }) = self.lease.take()
        {
            host.push(connection);
        }
    }
}

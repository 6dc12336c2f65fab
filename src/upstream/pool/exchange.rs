//! One request and its answer on a connection of the pool, and how far it came where it failed.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version, uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use tokio::sync::OwnedSemaphorePermit;

use super::{Host, Opened};
use crate::headers::framing_is_plain;
use crate::upstream::{Broken, Error, Head, Target, http1};

/// The right to send one request.
#[derive(Debug)]
pub(super) enum Lease<B> {
    Http1(http1::Connection, Place<B>),
    Http2(http2::SendRequest<B>),
}

/// What an HTTP/1.1 connection takes up while it carries a request.
#[derive(Debug)]
pub(super) struct Place<B> {
    pub(super) host: Rc<Host<B>>,
    pub(super) opened: Opened,
    pub(super) _permit: OwnedSemaphorePermit,
}

/// The content of an answer. Its connection returns to the pool at its end.
#[derive(Debug)]
pub struct Answer<B>(Source<B>);

#[derive(Debug)]
enum Source<B> {
    Http1(http1::Content<Place<B>>),
    Http2(Incoming),
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

impl<B> Failed<B> {
    fn finally(error: Error) -> Failed<B> {
        Failed {
            error,
            state: State::Final,
        }
    }
}

impl<B> From<http1::Failed> for Failed<B> {
    fn from(failed: http1::Failed) -> Failed<B> {
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

impl<B> Lease<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    /// Sends the request. Whatever goes wrong, the connection is not used again.
    pub(super) async fn exchange(
        self,
        target: &Target,
        request: &Head,
        content: B,
        overdue: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Response<Answer<B>>, Failed<B>> {
        let late = || Err(Failed::finally(Error::ResponseTimeout));
        match self {
            Lease::Http1(connection, place) => tokio::select! {
                biased;
                answer = connection.exchange(request, &target.host, content, place) => match answer {
                    Ok(answer) => Ok(answer.map(Answer::of_http1)),
                    Err(failed) => Err(failed.into()),
                },
                () = overdue => late(),
            },
            Lease::Http2(sender) => tokio::select! {
                biased;
                answer = Box::pin(exchange_by_http2(sender, http2_request(target, request, content))) => {
                    answer
                }
                () = overdue => late(),
            },
        }
    }
}

async fn exchange_by_http2<B>(
    mut sender: http2::SendRequest<B>,
    request: Request<B>,
) -> Result<Response<Answer<B>>, Failed<B>>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    match sender.try_send_request(request).await {
        Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
            Err(Failed::finally(Error::Switched))
        }
        Ok(answer) if !framing_is_plain(answer.headers(), answer.version()) => {
            Err(Failed::finally(Error::Framing))
        }
        Ok(answer) => Ok(answer.map(|content| Answer(Source::Http2(content)))),
        Err(mut error) => {
            let unsent = error.take_message();
            let error = error.into_error();
            let state = match unsent {
                _ if error.is_parse() || error.is_user() => State::Final,
                Some(request) => State::Unsent(request.into_body()),
                // Whether anything was heard is not known: hyper tells of whole heads alone.
                None => State::Unanswered,
            };
            let error = Error::Broken(error.into());
            Err(Failed { error, state })
        }
    }
}

/// The request as HTTP/2 wants it: the authority stands in the target, the frames tell the end of
/// the content.
fn http2_request<B: Body>(target: &Target, head: &Head, content: B) -> Request<B> {
    let mut parts = uri::Parts::default();
    parts.scheme = Some(uri::Scheme::HTTPS);
    parts.authority = Some(target.authority.clone());
    parts.path_and_query = Some(head.target.clone());
    let promises_content = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
    let length = content.size_hint().exact();
    let mut request = Request::new(content);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::from_parts(parts).expect("all three parts are there");
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = head.headers.clone();
    if let Some(length) = length.filter(|length| *length > 0 || promises_content) {
        let length = HeaderValue::from(length);
        request.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
    request
}

impl<B> Answer<B> {
    fn of_http1(content: http1::Content<Place<B>>) -> Answer<B> {
        let mut answer = Answer(Source::Http1(content));
        answer.give_back();
        answer
    }

    /// Gives the connection back, if all was read.
    fn give_back(&mut self) {
        if let Source::Http1(content) = &mut self.0
            && let Some((connection, place)) = content.take_connection()
        {
            place.host.push(connection, place.opened);
        }
    }
}

impl<B: Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let answer = self.get_mut();
        match &mut answer.0 {
            Source::Http1(content) => {
                let piece = ready!(content.poll_piece(cx));
                answer.give_back();
                Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
            }
            Source::Http2(content) => Pin::new(content).poll_frame(cx).map_err(Broken::Hyper),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Http1(content) => content.is_over(),
            Source::Http2(content) => content.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Http1(content) => content.size_hint(),
            Source::Http2(content) => content.size_hint(),
        }
    }
}

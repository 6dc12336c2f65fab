//! A connection of its own to one host, for what HTTP/1.1 switches to (RFC 9110 §7.8): neither
//! pooled nor shared. Knows no tokens, and nothing of what is spoken afterwards.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};

use super::{Error, Failed, Head, Target, connect};
use crate::headers;

pub use super::stream::Stream;

/// The longest content of an answer other than 101.
const ANSWER_LIMIT: usize = 64 * 1024;

/// Opens such connections.
#[derive(Debug, Default)]
pub struct Switcher {
    /// How many are open, over all workers. A counter rather than a semaphore, because the limit may
    /// change.
    open: Arc<AtomicUsize>,
}

/// What connections may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From asking for a connection to having one.
    pub connect_timeout: Duration,
    /// From then on until the answer to what asks to switch.
    pub response_timeout: Duration,
    /// As many connections as the pools may have to one host.
    pub max_connections: usize,
}

/// One connection among those that may be open; another one may once this is dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the host made of the request.
#[derive(Debug)]
pub enum UpgradeAnswer {
    /// A 101 to WebSocket.
    Switched(Switched),
    /// Anything else, whole; without content if that did not come whole.
    Refused(Response<Option<Bytes>>),
}

/// A connection that speaks HTTP no longer.
#[derive(Debug)]
pub struct Switched {
    /// The fields of the 101.
    pub headers: HeaderMap,
    /// The connection.
    pub stream: Stream,
    /// What came right behind the 101.
    pub read: Bytes,
    /// Its place among them all; to be kept as long as the connection.
    pub place: Place,
}

impl Switcher {
    /// Asks `target` to switch to WebSocket. `head` is clean except for the fields that ask
    /// for it. If no connection is free it fails at once, because these connections last.
    pub async fn ask(
        &self,
        target: &Target,
        head: &Head,
        limits: Limits,
    ) -> Result<UpgradeAnswer, Failed> {
        let answer = self.exchange(target, head, limits).await;
        let answer = answer.map_err(|error| target.failed(error))?;
        target.condition.answered();
        Ok(answer)
    }

    async fn exchange(
        &self,
        target: &Target,
        head: &Head,
        limits: Limits,
    ) -> Result<UpgradeAnswer, Error> {
        let place = self.place(limits.max_connections).ok_or(Error::Busy)?;
        let deadline = Instant::now() + limits.connect_timeout;
        let stream = connect::open(target, deadline).await?;
        target.condition.reached();
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = Uri::from(head.target.clone());
        *request.headers_mut() = head.headers.clone();
        request
            .headers_mut()
            .insert(header::HOST, target.host.clone());
        // The connection ends once it has switched, or once the answer was read and the sender is
        // gone.
        let both = pin!(async {
            tokio::join!(whole_answer(sender, request), connection.without_shutdown())
        });
        let (answer, ended) = timeout(limits.response_timeout, both)
            .await
            .map_err(|_| Error::ResponseTimeout)?;
        let answer = answer?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(UpgradeAnswer::Refused(answer));
        }
        let headers = answer.into_parts().0.headers;
        if !headers::names_websocket(&headers) || !headers::wants_upgrade(&headers) {
            return Err(Error::Switched);
        }
        let parts = ended.map_err(broken)?;
        Ok(UpgradeAnswer::Switched(Switched {
            headers,
            stream: parts.io.into_inner(),
            read: parts.read_buf,
            place,
        }))
    }

    /// A place for one more connection, if fewer than `most` are open.
    fn place(&self, most: usize) -> Option<Place> {
        let one_more = |open| (open < most).then_some(open + 1);
        let counted = self
            .open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        counted.ok().map(|_| Place(self.open.clone()))
    }
}

fn broken(error: hyper::Error) -> Error {
    Error::Broken(error.into())
}

async fn whole_answer(
    mut sender: http1::SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
) -> Result<Response<Option<Bytes>>, Error> {
    let answer: Response<Incoming> = sender.send_request(request).await.map_err(broken)?;
    let (mut head, content) = answer.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Response::from_parts(head, None));
    }
    if !headers::framing_is_plain(&head.headers, head.version) {
        return Err(Error::Framing);
    }
    let content = match Limited::new(content, ANSWER_LIMIT).collect().await {
        Ok(whole) => Some(whole.to_bytes()),
        Err(_) => {
            head.headers.remove(header::CONTENT_LENGTH);
            None
        }
    };
    Ok(Response::from_parts(head, content))
}

//! The API's answer on its way through: whether it is a 401, in its status or inside, and the
//! content that the caller gets. Asks for nothing to be renewed or sent.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::response::Parts;
use http::{Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use prometheus_client::metrics::gauge::Gauge;

use crate::damoov::envelope::Envelope;
use crate::headers::{self, Passed};
use crate::live;
use crate::stillness::Stillness;
use crate::upstream::{Broken, Error, pool};

/// The longest answer that is looked into for a 401.
const IN_BAND_LIMIT: u64 = 512;
/// What is kept of a 401 while a renewal may make it unnecessary.
const DETACHED_LIMIT: usize = 64 * 1024;
/// How long is waited for that.
const DETACHED_TIME: Duration = Duration::from_secs(1);

/// An answer as the pool gives it out.
pub(super) type FromApi = Response<pool::Answer>;

/// An answer of the API, before it is known what becomes of it.
pub(super) struct Received {
    head: Parts,
    source: Source,
    unauthorized: bool,
    pub(super) origin: Origin,
    /// With a 101: what takes the caller's connection over.
    session: Option<Box<live::Session>>,
}

/// Whose answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The API's.
    Api,
    /// The proxy's own.
    Proxy,
    /// The proxy's own, to a preflight.
    Preflight,
}

/// The content of an answer to a caller.
pub struct Content {
    source: Source,
    _in_flight: Option<InFlight>,
}

/// Counts a request as being served until it is dropped.
pub(super) struct InFlight(Gauge);

enum Source {
    /// As it comes.
    Api(pool::Answer),
    /// `None` once it was given out.
    Whole(Option<Bytes>),
}

impl InFlight {
    pub(super) fn new(gauge: &Gauge) -> InFlight {
        gauge.inc();
        InFlight(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Received {
    /// An answer that says what it is in its status.
    pub(super) fn unread(answer: FromApi) -> Received {
        let (head, content) = answer.into_parts();
        Received {
            unauthorized: head.status == StatusCode::UNAUTHORIZED,
            head,
            source: Source::Api(content),
            origin: Origin::Api,
            session: None,
        }
    }

    /// An answer that is small enough to be looked into, for at most `within`.
    pub(super) async fn read(answer: FromApi, within: Duration) -> Result<Received, Error> {
        let (head, content) = answer.into_parts();
        let whole = tokio::time::timeout(within, content.collect())
            .await
            .map_err(|_| Error::ResponseTimeout)?
            .map_err(Error::Broken)?
            .to_bytes();
        Ok(Received {
            unauthorized: says_401(&whole),
            ..Received::with_content(head, whole)
        })
    }

    /// What became of a WebSocket handshake.
    pub(super) fn handshake(
        answer: Response<Option<Bytes>>,
        session: Option<Box<live::Session>>,
    ) -> Received {
        let (head, content) = answer.into_parts();
        Received {
            unauthorized: head.status == StatusCode::UNAUTHORIZED,
            head,
            source: Source::Whole(content),
            origin: Origin::Api,
            session,
        }
    }

    /// An answer of the API with this content in the place of its own.
    pub(super) fn with_content(head: Parts, content: Bytes) -> Received {
        Received {
            unauthorized: head.status == StatusCode::UNAUTHORIZED,
            head,
            source: Source::Whole(Some(content)),
            origin: Origin::Api,
            session: None,
        }
    }

    /// A 200 of the proxy's own, with JSON.
    pub(super) fn own(content: Bytes) -> Received {
        let json = HeaderValue::from_static("application/json");
        let (mut head, ()) = Response::new(()).into_parts();
        head.headers.insert(header::CONTENT_TYPE, json);
        Received {
            origin: Origin::Proxy,
            ..Received::with_content(head, content)
        }
    }

    /// The proxy's own answer to a preflight.
    pub(super) fn permission(answer: Response<()>) -> Received {
        let (head, ()) = answer.into_parts();
        Received {
            unauthorized: false,
            head,
            source: Source::Whole(None),
            origin: Origin::Preflight,
            session: None,
        }
    }

    /// The head and all of the content, at most `limit` bytes, read within this time.
    pub(super) async fn whole(
        self,
        limit: usize,
        within: Duration,
    ) -> Result<(Parts, Bytes), Error> {
        let content = match self.source {
            Source::Whole(content) => content.unwrap_or_default(),
            Source::Api(content) => {
                let collected =
                    tokio::time::timeout(within, Limited::new(content, limit).collect());
                let collected = collected.await.map_err(|_| Error::ResponseTimeout)?;
                let broken =
                    |error: Box<dyn std::error::Error + Send + Sync>| match error.downcast() {
                        Ok(error) => Error::Broken(*error),
                        Err(_) => Error::Unreadable,
                    };
                collected.map_err(broken)?.to_bytes()
            }
        };
        Ok((self.head, content))
    }

    pub(super) fn status(&self) -> StatusCode {
        self.head.status
    }

    /// Neither the status nor, in an answer that was looked into, the envelope says otherwise.
    pub(super) fn succeeded(&self) -> bool {
        let inside = match &self.source {
            Source::Whole(Some(content)) => Envelope::parse(content).and_then(|e| e.status),
            Source::Whole(None) | Source::Api(_) => None,
        };
        self.head.status.is_success() && inside.is_none_or(|status| (200..300).contains(&status))
    }

    /// The header fields.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// A 401, in its status or inside.
    pub(super) fn is_unauthorized(&self) -> bool {
        self.unauthorized
    }

    /// The same answer, free of its connection; without content where that does not come whole.
    pub(super) async fn detached(mut self) -> Received {
        if let Source::Api(content) = self.source {
            let collected = Limited::new(content, DETACHED_LIMIT).collect();
            self.source = match tokio::time::timeout(DETACHED_TIME, collected).await {
                Ok(Ok(whole)) => Source::Whole(Some(whole.to_bytes())),
                Ok(Err(_)) | Err(_) => {
                    self.head.headers.remove(header::CONTENT_LENGTH);
                    Source::Whole(None)
                }
            };
        }
        self
    }

    /// The answer for the caller, and what follows a 101.
    pub(super) fn pass_on(
        self,
        passed: Passed,
        in_flight: Option<InFlight>,
    ) -> (Response<Content>, Option<Box<live::Session>>) {
        let Received {
            mut head,
            source,
            origin,
            session,
            ..
        } = self;
        head.version = Version::HTTP_11;
        match origin {
            Origin::Api => headers::clean_answer(&mut head.headers, passed),
            Origin::Proxy | Origin::Preflight => headers::tell(&mut head.headers, passed),
        }
        if session.is_some() {
            headers::attach_upgrade(&mut head.headers);
        }
        let answer = Response::from_parts(head, Content::new(source, in_flight));
        (answer, session)
    }
}

impl Content {
    fn new(mut source: Source, in_flight: Option<InFlight>) -> Content {
        if let Source::Api(content) = &mut source {
            content.pass_on();
        }
        Content {
            source,
            _in_flight: in_flight,
        }
    }

    /// Who is still in the exchange, if it did not end at once.
    pub(crate) fn stillness(&self) -> Option<&Rc<Stillness>> {
        match &self.source {
            Source::Api(content) => content.stillness(),
            Source::Whole(_) => None,
        }
    }

    /// Content of the proxy's own.
    pub(super) fn own(whole: Bytes, in_flight: Option<InFlight>) -> Content {
        Content::new(Source::Whole(Some(whole)), in_flight)
    }
}

/// Whether a 401 may stand inside a success: in JSON without a coding, of a known and small length.
/// HEAD and 204 may announce content that never comes.
pub(super) fn may_hold_a_401<C: Body>(answer: &Response<C>) -> bool {
    let length = answer.body().size_hint().exact();
    if !answer.status().is_success()
        || answer.body().is_end_stream()
        || !length.is_some_and(|length| (1..=IN_BAND_LIMIT).contains(&length))
    {
        return false;
    }
    let kind = answer.headers().get(header::CONTENT_TYPE);
    let is_json = kind
        .and_then(|kind| kind.to_str().ok()?.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    is_json && !answer.headers().contains_key(header::CONTENT_ENCODING)
}

/// Whether the envelope says what the status does not.
fn says_401(content: &[u8]) -> bool {
    Envelope::parse(content).is_some_and(|envelope| envelope.status == Some(401))
}

impl Body for Content {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut self.get_mut().source {
            Source::Api(content) => loop {
                match std::task::ready!(Pin::new(&mut *content).poll_frame(cx)) {
                    // Trailers are dropped.
                    Some(Ok(frame)) if frame.is_trailers() => {}
                    other => return Poll::Ready(other),
                }
            },
            Source::Whole(content) => Poll::Ready(content.take().map(|c| Ok(Frame::data(c)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Api(content) => content.is_end_stream(),
            Source::Whole(content) => content.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Api(content) => content.size_hint(),
            Source::Whole(content) => {
                SizeHint::with_exact(content.as_ref().map_or(0, |c| c.len() as u64))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    use http_body_util::Full;

    /// Content that says this of itself.
    struct Said {
        length: Option<u64>,
        ended: bool,
    }

    impl Body for Said {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }

        fn is_end_stream(&self) -> bool {
            self.ended
        }

        fn size_hint(&self) -> SizeHint {
            self.length
                .map_or_else(SizeHint::default, SizeHint::with_exact)
        }
    }

    #[test]
    fn only_small_plain_json_of_known_length_is_looked_into() {
        let answer = |status: u16, length: usize, fields: &[(&str, &str)]| {
            let mut answer = Response::new(Full::<Bytes>::from(vec![b' '; length]));
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            for (name, value) in fields {
                let name = header::HeaderName::from_bytes(name.as_bytes()).unwrap();
                answer.headers_mut().insert(name, value.parse().unwrap());
            }
            answer
        };
        let json = ("content-type", "application/json; charset=utf-8");
        assert!(may_hold_a_401(&answer(200, 512, &[json])));
        assert!(may_hold_a_401(&answer(207, 1, &[json])));
        for other in [
            answer(200, 513, &[json]),
            answer(200, 0, &[json]),
            answer(401, 20, &[json]),
            answer(200, 20, &[]),
            answer(200, 20, &[("content-type", "text/html")]),
            answer(200, 20, &[json, ("content-encoding", "gzip")]),
        ] {
            assert!(!may_hold_a_401(&other), "{other:?}");
        }
        for (length, ended, expected) in [
            (Some(20), false, true),
            (None, false, false),
            // To HEAD, by HTTP/2: its length is announced, and nothing follows.
            (Some(20), true, false),
        ] {
            let other = answer(200, 20, &[json]).map(|_| Said { length, ended });
            assert_eq!(may_hold_a_401(&other), expected, "{length:?}, {ended}");
        }
    }

    #[test]
    fn a_401_inside_is_the_status_of_the_envelope_and_nothing_else() {
        for yes in [
            r#"{"Result":null,"Status":401,"Title":"","Errors":[]}"#,
            r#"{"result":null,"status":401}"#,
        ] {
            assert!(says_401(yes.as_bytes()), "{yes}");
        }
        for no in [
            r#"{"Result":{"Status":401},"Status":200}"#,
            r#"{"Status":"401"}"#,
            r#"{"Status":403}"#,
            r#"[401]"#,
            r#"{"Status":401"#,
            "",
        ] {
            assert!(!says_401(no.as_bytes()), "{no}");
        }
    }
}

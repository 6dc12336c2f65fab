//! The API's answer on its way through: whether it is a 401, in its status or inside, and the
//! content that the caller gets. Asks for nothing to be renewed or sent.

mod content;
mod in_band;

pub use self::content::Content;
pub(super) use self::content::InFlight;
pub(super) use self::in_band::may_hold_a_401;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::response::Parts;
use http::{Response, StatusCode, Version};
use http_body::Body;
use http_body_util::{BodyExt, Limited};

use self::content::{Begun, ContentState};
use self::in_band::begins_with_401;
use crate::content_coding::{self, BEGINNING, Coding, LONGEST};
use crate::damoov::envelope::Envelope;
use crate::headers::{self, Renewal};
use crate::live;
use crate::upstream::{Broken, Error, pool};

/// What is kept of a 401 while a renewal may make it unnecessary.
const DETACHED_LIMIT: usize = 64 * 1024;
/// How long is waited for that.
const DETACHED_TIME: Duration = Duration::from_secs(1);

/// An answer as the pool gives it out.
pub(super) type FromApi = Response<pool::AnswerContent>;

/// An answer of the API, before it is known what becomes of it.
pub(super) struct Received {
    head: Parts,
    state: ContentState,
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

impl Received {
    /// An answer that says what it is in its status.
    pub(super) fn unread(answer: FromApi) -> Received {
        let (head, content) = answer.into_parts();
        Received {
            unauthorized: head.status == StatusCode::UNAUTHORIZED,
            head,
            state: ContentState::Unread(content),
            origin: Origin::Api,
            session: None,
        }
    }

    /// Looks for a 401 inside an answer with this coding, in the first piece of its content, and in
    /// what came with that: nothing further is waited for.
    pub(super) fn poll_look(
        &mut self,
        coding: Option<Coding>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        let ContentState::Unread(content) = &mut self.state else {
            return Poll::Ready(Ok(()));
        };
        let mut content = Pin::new(content);
        let first = std::task::ready!(content.as_mut().poll_frame(cx));
        let first = first.transpose().map_err(Error::Broken)?;
        let Some(mut piece) = first.and_then(|frame| frame.into_data().ok()) else {
            return Poll::Ready(Ok(()));
        };
        loop {
            self.unauthorized = begins_with_401(coding, &piece);
            if content.is_end_stream() {
                self.state = ContentState::Whole(Some(piece));
                break;
            }
            let is_enough = self.unauthorized || piece.len() >= BEGINNING;
            let more = match is_enough {
                true => Poll::Pending,
                false => content.as_mut().poll_frame(cx),
            };
            match more {
                Poll::Ready(Some(Ok(more))) if more.is_data() => {
                    let more = more.into_data().unwrap_or_default();
                    piece = [&*piece, &*more].concat().into();
                }
                // A piece that breaks is told of when it is asked for again.
                _ => {
                    self.put_back(piece);
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Goes on to look, for at most `within`: what does not begin in time is passed on unread.
    pub(super) async fn looked_into(
        mut self,
        coding: Option<Coding>,
        within: Duration,
    ) -> Result<Received, Error> {
        let looking = std::future::poll_fn(|cx| self.poll_look(coding, cx));
        match tokio::time::timeout(within, looking).await {
            Ok(looked) => looked.map(|()| self),
            Err(_) => Ok(self),
        }
    }

    /// What was read of the content comes first again.
    fn put_back(&mut self, beginning: Bytes) {
        let rest = match std::mem::replace(&mut self.state, ContentState::Whole(None)) {
            ContentState::Unread(rest) => rest,
            ContentState::Begun(begun) => begun.rest,
            ContentState::Whole(_) => return self.state = ContentState::Whole(Some(beginning)),
        };
        let beginning = Some(beginning).filter(|beginning| !beginning.is_empty());
        self.state = ContentState::Begun(Box::new(Begun { beginning, rest }));
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
            state: ContentState::Whole(content),
            origin: Origin::Api,
            session,
        }
    }

    /// An answer of the API with this content in the place of its own.
    pub(super) fn with_content(head: Parts, content: Bytes) -> Received {
        Received {
            unauthorized: head.status == StatusCode::UNAUTHORIZED,
            head,
            state: ContentState::Whole(Some(content)),
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
            state: ContentState::Whole(None),
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
        let content = match self.state {
            ContentState::Whole(content) => content.unwrap_or_default(),
            state @ (ContentState::Unread(_) | ContentState::Begun(_)) => {
                let collected = tokio::time::timeout(within, Limited::new(state, limit).collect());
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

    /// The same answer with its whole content in memory, so that its envelope can be read: if that
    /// comes within this time and is no longer than can be understood. Else it goes on from where it
    /// was read to.
    pub(super) async fn gathered(mut self, within: Duration) -> Result<Received, Error> {
        if let ContentState::Unread(_) | ContentState::Begun(_) = &self.state {
            let mut read = BytesMut::new();
            let gathering = async {
                while let Some(frame) = self.state.frame().await {
                    read.extend(frame?.into_data().ok());
                    if read.len() > LONGEST {
                        return Ok(false);
                    }
                }
                Ok::<_, Broken>(true)
            };
            let is_whole = match tokio::time::timeout(within, gathering).await {
                Ok(gathered) => gathered.map_err(Error::Broken)?,
                Err(_) => false,
            };
            match is_whole {
                true => self.state = ContentState::Whole(Some(read.freeze())),
                false => self.put_back(read.freeze()),
            }
        }
        Ok(self)
    }

    /// The status that counts: that of the envelope within a success, if it was gathered and can be
    /// understood.
    pub(super) fn inner_status(&self) -> u16 {
        let inside = match &self.state {
            ContentState::Whole(Some(content)) if self.head.status.is_success() => {
                let content = content_coding::understood(&self.head.headers, content.clone());
                content
                    .ok()
                    .and_then(|content| Envelope::parse(&content)?.status)
            }
            ContentState::Whole(_) | ContentState::Unread(_) | ContentState::Begun(_) => None,
        };
        inside.unwrap_or(self.head.status.as_u16())
    }

    /// Neither the status nor, in an answer that was gathered, the envelope says otherwise.
    pub(super) fn succeeded(&self) -> bool {
        (200..300).contains(&self.inner_status())
    }

    /// The header fields.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// A 401, in its status or inside.
    pub(super) fn is_unauthorized(&self) -> bool {
        self.unauthorized
    }

    /// The same answer, free of its connection; without content if that does not come whole.
    pub(super) async fn detached(mut self) -> Received {
        if let state @ (ContentState::Unread(_) | ContentState::Begun(_)) = self.state {
            let collected = Limited::new(state, DETACHED_LIMIT).collect();
            self.state = match tokio::time::timeout(DETACHED_TIME, collected).await {
                Ok(Ok(whole)) => ContentState::Whole(Some(whole.to_bytes())),
                Ok(Err(_)) | Err(_) => {
                    self.head.headers.remove(header::CONTENT_LENGTH);
                    ContentState::Whole(None)
                }
            };
        }
        self
    }

    /// The answer for the caller, and what follows a 101.
    pub(super) fn pass_on(
        self,
        renewal: Renewal,
        in_flight: Option<InFlight>,
    ) -> (Response<Content>, Option<Box<live::Session>>) {
        let Received {
            mut head,
            state,
            origin,
            session,
            ..
        } = self;
        head.version = Version::HTTP_11;
        match origin {
            Origin::Api => headers::clean_answer(&mut head.headers, renewal),
            Origin::Proxy | Origin::Preflight => {
                headers::set_proxy_status(&mut head.headers, renewal)
            }
        }
        if session.is_some() {
            headers::attach_upgrade(&mut head.headers);
        }
        let answer = Response::from_parts(head, Content::new(state, in_flight));
        (answer, session)
    }
}

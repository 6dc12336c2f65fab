//! The only way to the Auth endpoints: a small pool of connections that no request uses, so that a full
//! upstream pool cannot starve renewals. Tells apart what was never sent from what was lost.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::unreadable::UnreadableAnswers;
use crate::content_coding::{self, LONGEST};
use crate::credentials::Error;
use crate::credentials::guards::backoff::Failure;
use crate::credentials::vault::hold::Hold;
use crate::damoov::auth::{self, Answer, Call, Unreadable};
use crate::metrics::AuthEndpoint;
use crate::store;
use crate::telemetry::episode::Chain;
use crate::upstream::{self, Broken, CallFailure, Calls, Condition, Head, Hosts, Target};

/// Calls of one grant under way at once: at 400 ms each, all tokens of 4,000 users that expire
/// together are renewed in 13 s.
const CONCURRENT: usize = 128;
/// Why a call is not sent although the store holds the lease.
pub(super) const LEASE_TOO_SHORT: &str = "it answers too slowly for a lease to outlast a call";

/// Calls the Auth endpoints.
#[derive(Debug)]
pub(crate) struct TokenEndpoint {
    /// Replaced when a reload says that the host is reached in another way; a call ends where it began.
    host: ArcSwap<Host>,
    /// Why the last call that failed did.
    last_failure: Mutex<Arc<str>>,
    unreadable: UnreadableAnswers,
    refreshes: Semaphore,
    /// Apart from refreshes: logins that waited behind refreshes would reach Damoov long after their
    /// slots of the budget were taken, and several at once.
    logins: Semaphore,
}

/// The host of the Auth endpoints, as it is reached.
#[derive(Debug)]
struct Host {
    calls: Calls,
    /// `host` or `host:port`, as it is dialed.
    dialed: Box<str>,
    /// How it fares.
    condition: Condition,
}

/// What came of a call.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A whole answer.
    Answered(Answer),
    /// It was not sent: right before that, too little was left of the lease.
    Withheld,
    /// No byte of it was written to a socket. Why, in a sentence for callers.
    NotSent(Arc<str>),
    /// Sent, or perhaps sent, and no whole answer.
    Lost(Loss),
}

impl Reply {
    /// Whose failure it is if it brought no tokens.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Reply::NotSent(_) => Failure::Hosts(None),
            Reply::Answered(Answer::Limited { retry_after }) => Failure::Hosts(*retry_after),
            Reply::Answered(Answer::Unavailable { retry_after: None }) => Failure::Own,
            Reply::Answered(Answer::Unavailable { retry_after }) => Failure::Hosts(*retry_after),
            Reply::Answered(Answer::Granted(_) | Answer::Rejected | Answer::Unreadable(_))
            | Reply::Lost(_)
            | Reply::Withheld => Failure::Own,
        }
    }

    /// What callers that wait are told if it brought no tokens.
    pub(crate) fn error(&self) -> Error {
        match self {
            Reply::Lost(Loss::TimedOut) => Error::Timeout,
            Reply::NotSent(why) => Error::Unreachable(why.clone()),
            Reply::Lost(Loss::Cut) => Error::Unreachable("there was no complete answer".into()),
            Reply::Lost(Loss::Http2) => Error::Unreachable(Broken::Http2.to_string().into()),
            Reply::Answered(Answer::Unavailable { .. }) => {
                Error::Unreachable("they answer 5xx".into())
            }
            Reply::Answered(Answer::Limited { .. }) => Error::Unreachable("they answer 429".into()),
            Reply::Withheld => store::Error::Away(LEASE_TOO_SHORT.to_owned()).into(),
            Reply::Answered(Answer::Granted(_) | Answer::Rejected | Answer::Unreadable(_)) => {
                Error::BadResponse
            }
        }
    }
}

/// How an answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The connection broke.
    Cut,
    /// What came is HTTP/2.
    Http2,
    /// The time was over.
    TimedOut,
}

/// A place among the refreshes under way.
#[derive(Debug)]
#[must_use = "it is held for as long as this lives"]
pub(crate) struct Turn<'a>(
    #[expect(dead_code, reason = "held, not looked at")] SemaphorePermit<'a>,
);

/// Where a call is sent, and when it may be.
#[derive(Clone, Copy)]
struct Sending<'a> {
    host: &'a Host,
    /// Its answer comes by then, or is lost.
    deadline: Instant,
    /// The lease that it is made in the name of.
    hold: &'a Hold,
}

impl Sending<'_> {
    /// Whether nobody else will renew before this call has ended.
    fn is_safe(self) -> bool {
        let left = self.deadline.checked_duration_since(Instant::now());
        left.is_some_and(|left| self.hold.outlasts(left))
    }
}

impl TokenEndpoint {
    pub(crate) fn new(
        upstream: &upstream::Settings,
        hosts: &Hosts,
        unreadable: UnreadableAnswers,
    ) -> TokenEndpoint {
        TokenEndpoint {
            host: ArcSwap::from_pointee(Host::new(target(hosts), upstream)),
            last_failure: Mutex::new("they failed a moment ago".into()),
            unreadable,
            refreshes: Semaphore::new(CONCURRENT),
            logins: Semaphore::new(CONCURRENT),
        }
    }

    /// From here on the host is reached as these say. If it is reached as before, its connections are kept;
    /// else calls under way end on theirs.
    pub(crate) fn follow(&self, upstream: &upstream::Settings, hosts: &Hosts) {
        let (target, before) = (target(hosts), self.host.load());
        match before.calls.are_to(&target) {
            true => before.calls.follow(upstream),
            false => self.host.store(Arc::new(Host::new(target, upstream))),
        }
    }

    /// The host and since when, if no connection comes about.
    pub(crate) fn unreachable(&self) -> Option<(&'static str, SystemTime)> {
        let host = self.host.load();
        let (_, since) = host.condition.unreachable_now()?;
        Some((auth::HOST, since))
    }

    /// What callers are told that come while the host is left alone.
    pub(crate) fn last_failure(&self) -> Error {
        let why = self
            .last_failure
            .lock()
            .expect("no code panics under this lock");
        Error::Unreachable(why.clone())
    }

    fn remember(&self, reply: Reply) -> Reply {
        if let Error::Unreachable(why) = reply.error() {
            *self
                .last_failure
                .lock()
                .expect("no code panics under this lock") = why;
        }
        reply
    }

    /// A turn among the refreshes that may be under way; `None` once it is closed.
    pub(crate) async fn turn(&self) -> Option<Turn<'_>> {
        self.refreshes.acquire().await.ok().map(Turn)
    }

    /// Trades a pair for a new one within `timeout`, which is real time, while `hold` outlasts that.
    pub(crate) async fn refresh(
        &self,
        call: Call,
        _turn: Turn<'_>,
        timeout: Duration,
        hold: &Hold,
    ) -> Reply {
        let host = self.host.load_full();
        let sent = Sending {
            host: &host,
            deadline: Instant::now() + timeout,
            hold,
        };
        let reply = self
            .call(AuthEndpoint::Refresh, call, sent, auth::read_refresh)
            .await;
        if let Reply::Answered(Answer::Limited { .. }) = &reply {
            host.condition.unanswered(&"it answers refreshes with 429");
        }
        reply
    }

    /// Logs a principal in within `timeout`, which is real time and begins with its turn among the
    /// logins under way, while `hold` outlasts that.
    pub(crate) async fn log_in(&self, call: Call, timeout: Duration, hold: &Hold) -> Reply {
        let Ok(_turn) = self.logins.acquire().await else {
            return Reply::NotSent("the proxy is shutting down".into());
        };
        let host = self.host.load_full();
        let sent = Sending {
            host: &host,
            deadline: Instant::now() + timeout,
            hold,
        };
        self.call(AuthEndpoint::Login, call, sent, auth::read_login)
            .await
    }

    /// Logs and counts answers that cannot be read.
    pub(crate) fn unreadable_answers(&self) -> &UnreadableAnswers {
        &self.unreadable
    }

    /// From now on no call starts; those under way end.
    pub(crate) fn close(&self) {
        self.refreshes.close();
        self.logins.close();
    }

    async fn call(
        &self,
        endpoint: AuthEndpoint,
        call: Call,
        sending: Sending<'_>,
        read: fn(StatusCode, &HeaderMap, Result<Bytes, Unreadable>) -> Answer,
    ) -> Reply {
        let (head, content) = request(call);
        let Sending { host, deadline, .. } = sending;
        let may_send = || sending.is_safe();
        let calling = host.calls.send(&head, content, LONGEST, deadline, may_send);
        let response = match calling.await {
            Ok(response) => response,
            Err(CallFailure::Withheld) => return Reply::Withheld,
            Err(CallFailure::NotSent(error)) => return self.not_sent(host, error),
            Err(CallFailure::Lost(upstream::Error::ResponseTimeout)) => {
                return self.lost(host, Loss::TimedOut, &"it did not answer in time");
            }
            Err(CallFailure::Lost(upstream::Error::Framing)) => {
                let answer = Answer::Unreadable(Unreadable::Framing);
                return self.answered(host, endpoint, None, answer);
            }
            Err(CallFailure::Lost(error)) => {
                let loss = match error {
                    upstream::Error::Broken(Broken::Http2) => Loss::Http2,
                    _ => Loss::Cut,
                };
                return self.lost(host, loss, &Chain(&host.failed(error)));
            }
        };
        host.condition.reached();
        let (head, content) = response.into_parts();
        let content = content.ok_or(content_coding::Unreadable::TooLong.into());
        let answer = read(head.status, &head.headers, content);
        self.answered(host, endpoint, Some(head.status), answer)
    }

    /// Nothing was written, for this reason.
    fn not_sent(&self, host: &Host, error: upstream::Error) -> Reply {
        let failed = host.failed(error);
        let (why, cause) = (failed.to_string(), Chain(&failed));
        tracing::debug!(host = auth::HOST, why, %cause, "a call to the Auth endpoints was not sent");
        host.condition.unreachable(&cause);
        self.remember(Reply::NotSent(why.into()))
    }

    fn lost(&self, host: &Host, loss: Loss, cause: &dyn fmt::Display) -> Reply {
        tracing::debug!(host = auth::HOST, %cause, "the answer to a call to the Auth endpoints was lost");
        host.condition.unanswered(cause);
        self.remember(Reply::Lost(loss))
    }

    /// `status` is `None` if the head of the answer was refused.
    fn answered(
        &self,
        host: &Host,
        endpoint: AuthEndpoint,
        status: Option<StatusCode>,
        answer: Answer,
    ) -> Reply {
        let status = status.map(|status| status.as_u16());
        match &answer {
            Answer::Unreadable(why) => self.unreadable.note(endpoint, status, *why),
            Answer::Granted(_) => self.unreadable.read(endpoint),
            Answer::Rejected | Answer::Limited { .. } | Answer::Unavailable { .. } => {}
        }
        match answer {
            Answer::Granted(_) | Answer::Rejected => host.condition.answered(),
            // Logged by the guard that holds logins back.
            Answer::Limited { .. } => {}
            Answer::Unavailable { .. } | Answer::Unreadable(_) => {
                let status = status.unwrap_or_default();
                tracing::debug!(
                    host = auth::HOST,
                    status,
                    "an answer of the Auth endpoints cannot be used"
                );
                host.condition
                    .unanswered(&format_args!("it answers {status}, without tokens"));
            }
        }
        self.remember(Reply::Answered(answer))
    }
}

impl Host {
    fn new(target: Target, upstream: &upstream::Settings) -> Host {
        let dialed: Box<str> = target.authority.as_str().into();
        Host {
            calls: Calls::new(target, upstream),
            condition: Condition::of(auth::HOST, &dialed),
            dialed,
        }
    }

    fn failed(&self, error: upstream::Error) -> upstream::Failed {
        upstream::Failed::at(&self.dialed, error)
    }
}

fn target(hosts: &Hosts) -> Target {
    hosts
        .target(auth::HOST)
        .expect("a constant name, or a redirect that was checked with the others")
}

fn request(call: Call) -> (Head, Bytes) {
    let json = HeaderValue::from_static("application/json");
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, json.clone());
    headers.insert(header::ACCEPT, json);
    let identity = HeaderValue::from_static("identity");
    headers.insert(header::ACCEPT_ENCODING, identity);
    if let Some(instance) = call.instance {
        let id = HeaderValue::try_from(instance.to_string());
        headers.insert("InstanceId", id.expect("a UUID is visible ASCII"));
    }
    let head = Head {
        method: Method::POST,
        target: PathAndQuery::from_static(call.path),
        headers,
    };
    (
        head,
        Bytes::copy_from_slice(call.content.expose().as_bytes()),
    )
}

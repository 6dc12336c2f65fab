//! What is told of one request when its answer's head is known, or when its caller left before:
//! the counters and the access event. Never sees a token, a query or a path.

use std::sync::Arc;

use http::request::Parts as CallerHead;
use http::{HeaderMap, Response, StatusCode};
use tokio::time::Instant;

use super::answer::{Content, InFlight, Origin, Received};
use super::{Forwarder, Rules};
use crate::damoov::routes::Route;
use crate::error::{Error, Refusal, Source};
use crate::head::Seen;
use crate::headers::Renewal;
use crate::live;
use crate::metrics::{Method, Outcome};
use crate::principal::Principal;
use crate::telemetry::access::Access;
use crate::telemetry::{LogName, TraceId};

/// What the log says of a caller that left; nobody is sent it.
const CALLER_LEFT: u16 = 499;

/// The record of one request. Dropped without an answer, it tells of a caller that left.
pub(super) struct Record<'a> {
    forwarder: &'a Forwarder,
    /// What the request is answered by, to its end.
    pub(super) rules: &'a Rules,
    started: Instant,
    method: Method,
    trace_id: Option<TraceId>,
    /// Moves into the answer's content.
    in_flight: Option<InFlight>,
    /// Which route was found, if one was.
    pub(super) route: Option<&'a Arc<Route>>,
    /// Whose credentials were asked for, if any were.
    pub(super) principal: Option<Principal>,
    /// What stands for them in logs, if that is known already.
    pub(super) log_name: Option<LogName>,
    /// What the credentials went through, as far as the request saw it.
    pub(super) renewal: Renewal,
    ending: Ending,
}

/// How the request ended.
#[derive(Clone, Copy)]
enum Ending {
    Abandoned,
    Answered(StatusCode),
    Permitted(StatusCode),
    PassedOn(StatusCode),
    Refused(Refusal),
}

impl<'a> Record<'a> {
    pub(super) fn new(
        forwarder: &'a Forwarder,
        rules: &'a Rules,
        head: &CallerHead,
        seen: Seen,
    ) -> Record<'a> {
        Record {
            forwarder,
            rules,
            started: Instant::now(),
            method: Method::from(&head.method),
            trace_id: seen.trace.then(|| trace_id(&head.headers)).flatten(),
            in_flight: Some(InFlight::new(&forwarder.proxy.metrics.requests_in_flight)),
            route: None,
            principal: None,
            log_name: None,
            renewal: Renewal::None,
            ending: Ending::Abandoned,
        }
    }

    /// There is an answer, the API's or our own.
    pub(super) fn answered(
        mut self,
        answer: Received,
    ) -> (Response<Content>, Option<Box<live::Session>>) {
        self.ending = match answer.origin {
            Origin::Api => Ending::PassedOn(answer.status()),
            Origin::Proxy => Ending::Answered(answer.status()),
            Origin::Preflight => Ending::Permitted(answer.status()),
        };
        answer.pass_on(self.renewal, self.in_flight.take())
    }

    /// The request is refused.
    pub(super) fn refused(mut self, error: &Error) -> Response<Content> {
        let answer = error.answer();
        self.ending = Ending::Refused(error.refusal());
        let in_flight = self.in_flight.take();
        answer.map(|content| Content::own(content, in_flight))
    }

    fn outcome(&self) -> Outcome {
        match self.ending {
            Ending::Abandoned => Outcome::Abandoned,
            Ending::Answered(_) => Outcome::Answered,
            Ending::Permitted(_) => Outcome::Preflight,
            Ending::PassedOn(_) if self.renewal == Renewal::Replayed => Outcome::Replayed,
            Ending::PassedOn(_) => Outcome::Forwarded,
            Ending::Refused(refusal) => match refusal.source {
                Source::Caller => Outcome::Caller,
                Source::Upstream => Outcome::Upstream,
                Source::Auth => Outcome::Auth,
                Source::Store => Outcome::Store,
                Source::Proxy => Outcome::Proxy,
            },
        }
    }

    fn status(&self) -> StatusCode {
        match self.ending {
            Ending::Abandoned => StatusCode::from_u16(CALLER_LEFT).expect("499 is a status"),
            Ending::Answered(status) | Ending::Permitted(status) | Ending::PassedOn(status) => {
                status
            }
            Ending::Refused(refusal) => refusal.status,
        }
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let (status, outcome, now) = (self.status(), self.outcome(), Instant::now());
        let duration = now - self.started;
        let proxy = &*self.forwarder.proxy;
        let route = match self.route {
            Some(route) => route.label(),
            None => &proxy.no_route,
        };
        let tally = &self.forwarder.tally;
        tally.count(route, self.method, status.into(), outcome, duration);
        let principal = self.log_name.or_else(|| {
            let principal = self.principal.as_ref()?;
            Some(proxy.provider.log_name(principal))
        });
        // The event names the proxy as its source if the proxy answered by itself.
        let source = match self.ending {
            Ending::Answered(_) | Ending::Permitted(_) | Ending::Refused(_) => "proxy",
            Ending::Abandoned | Ending::PassedOn(_) => "upstream",
        };
        let code = match self.ending {
            Ending::Refused(refusal) => Some(refusal.code),
            Ending::Abandoned
            | Ending::Answered(_)
            | Ending::Permitted(_)
            | Ending::PassedOn(_) => None,
        };
        self.forwarder.access.record(&Access {
            at: now,
            route,
            method: self.method.as_str(),
            status: status.as_u16(),
            outcome: outcome.as_str(),
            source,
            duration,
            renewed: self.renewal != Renewal::None,
            replayed: self.renewal == Renewal::Replayed,
            code,
            principal,
            trace_id: self.trace_id,
        });
    }
}

/// Of the only `traceparent`: several name no trace.
fn trace_id(headers: &HeaderMap) -> Option<TraceId> {
    let mut lines = headers.get_all("traceparent").iter();
    match (lines.next(), lines.next()) {
        (Some(only), None) => TraceId::of_traceparent(only.as_bytes()),
        _ => None,
    }
}

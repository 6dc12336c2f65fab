//! What is told of one request when its answer's head is known, or when its caller left before:
//! the counters and the access event. Never sees a token, a query or a path.

use std::sync::Arc;
use std::time::SystemTime;

use http::{Response, StatusCode};
use tokio::time::Instant;

use super::Proxy;
use super::answer::{Content, InFlight, Origin, Received};
use crate::damoov::routes::Route;
use crate::error::{Error, Source};
use crate::headers::Passed;
use crate::live;
use crate::metrics::{Method, Outcome, RequestLabels, RouteLabel};
use crate::principal::Principal;
use crate::telemetry::access::Access;

/// What the log says of a caller that left; nobody is sent it.
const CALLER_LEFT: u16 = 499;

/// The record of one request. Dropped without an answer, it tells of a caller that left.
pub(super) struct Record<'a> {
    proxy: &'a Proxy,
    started: Instant,
    method: Method,
    /// Moves into the answer's content.
    in_flight: Option<InFlight>,
    /// Which route was found, if one was.
    pub(super) route: Option<&'a Arc<Route>>,
    /// Whose credentials were asked for, if any were.
    pub(super) principal: Option<Principal>,
    /// What the credentials went through, as far as the request saw it.
    pub(super) passed: Passed,
    ending: Ending,
}

/// How the request ended.
#[derive(Clone, Copy)]
enum Ending {
    Abandoned,
    Answered(StatusCode),
    PassedOn(StatusCode),
    Refused(StatusCode, Source),
}

impl<'a> Record<'a> {
    pub(super) fn new(proxy: &'a Proxy, method: &http::Method) -> Record<'a> {
        Record {
            proxy,
            started: Instant::now(),
            method: Method::from(method),
            in_flight: Some(InFlight::new(&proxy.metrics.requests_in_flight)),
            route: None,
            principal: None,
            passed: Passed::AsItCame,
            ending: Ending::Abandoned,
        }
    }

    /// There is an answer, the API's or our own.
    pub(super) fn answered(
        mut self,
        answer: Received,
    ) -> (Response<Content>, Option<live::Session>) {
        self.ending = match answer.origin {
            Origin::Api => Ending::PassedOn(answer.status()),
            Origin::Proxy => Ending::Answered(answer.status()),
        };
        answer.pass_on(self.passed, self.in_flight.take())
    }

    /// The request is refused.
    pub(super) fn refused(mut self, error: &Error) -> Response<Content> {
        let answer = error.answer();
        self.ending = Ending::Refused(answer.status(), error.refusal().source);
        let in_flight = self.in_flight.take();
        answer.map(|content| Content::own(content, in_flight))
    }

    fn outcome(&self) -> Outcome {
        match self.ending {
            Ending::Abandoned => Outcome::Abandoned,
            Ending::Answered(_) => Outcome::Answered,
            Ending::PassedOn(_) if self.passed == Passed::Replayed => Outcome::Replayed,
            Ending::PassedOn(_) => Outcome::Forwarded,
            Ending::Refused(_, source) => match source {
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
            Ending::Answered(status) | Ending::PassedOn(status) | Ending::Refused(status, _) => {
                status
            }
        }
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let (status, outcome, duration) = (self.status(), self.outcome(), self.started.elapsed());
        let route = match self.route {
            Some(route) => route.label(),
            None => &self.proxy.no_route,
        };
        let metrics = &self.proxy.metrics;
        metrics
            .requests
            .get_or_create(&RequestLabels {
                route: route.clone(),
                method: self.method,
                status_class: status.into(),
                outcome,
            })
            .inc();
        metrics
            .request_duration
            .get_or_create(&RouteLabel {
                route: route.clone(),
            })
            .observe(duration.as_secs_f64());
        // The event names its source where the proxy answered itself.
        let source = match self.ending {
            Ending::Answered(_) | Ending::Refused(..) => "proxy",
            Ending::Abandoned | Ending::PassedOn(_) => "upstream",
        };
        self.proxy.access.tell(Access {
            at: SystemTime::now(),
            route: route.clone(),
            method: self.method.as_str(),
            status: status.as_u16(),
            outcome: outcome.as_str(),
            source,
            duration,
            renewed: self.passed != Passed::AsItCame,
            replayed: self.passed == Passed::Replayed,
            principal: self.principal.take(),
        });
    }
}

//! All that one simulated Damoov knows, and how any call is answered: by its path, to the control
//! API, an Auth endpoint or a data endpoint. Holds no socket.

use std::net::IpAddr;

use http::{HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::clock::Clock;
use crate::principal::{DeviceToken, Principal};

use super::answer::{self, Answer, Cut, Names};
use super::counts::{Counter, Outcome};
use super::fault::{Action, Faults, Lost, Status, StatusUntil, Struck};
use super::login_limit::Limiter;
use super::requests::Requests;
use super::settings::{ExpiresIn, LivePace, Refresh, Registration, Settings};
use super::tokens::{Pair, Tokens};
use super::users::Users;
use super::{api, auth, control};

/// One simulated Damoov.
#[derive(Debug)]
pub(super) struct World {
    pub(super) clock: Clock,
    pub(super) users: Users,
    pub(super) tokens: Tokens,
    pub(super) limiter: Limiter,
    pub(super) faults: Faults,
    pub(super) counter: Counter,
    pub(super) requests: Requests,
    pub(super) refresh: Refresh,
    pub(super) registration: Registration,
    pub(super) expires_in: ExpiresIn,
    pub(super) live: LivePace,
}

impl World {
    pub(super) fn new(settings: Settings) -> World {
        World {
            clock: settings.clock,
            users: Users::new(
                settings.instances,
                settings.accounts,
                settings.known_users,
                settings.rejected_users,
            ),
            tokens: Tokens::new(settings.lifetimes, settings.refresh, settings.clock),
            limiter: Limiter::new(settings.login_limit, settings.clock),
            faults: Faults::default(),
            counter: Counter::default(),
            requests: Requests::default(),
            refresh: settings.refresh,
            registration: settings.registration,
            expires_in: settings.expires_in,
            live: settings.live,
        }
    }

    /// Answers one call of the client at `address`.
    pub(super) async fn answer(
        &self,
        address: IpAddr,
        request: Request<Incoming>,
    ) -> Result<Answer, Cut> {
        let path = request.uri().path();
        if let Some(command) = path.strip_prefix("/_control") {
            let command = command.trim_matches('/').to_owned();
            return control::answer(self, &command, request).await;
        }
        match auth::endpoint(path) {
            Some(endpoint) => auth::answer(self, endpoint, address, request).await,
            None => api::answer(self, request).await,
        }
    }

    /// A pair for `principal` out of nothing: no call, no count.
    pub(super) fn issue(&self, principal: &Principal) -> Pair {
        let instance = match principal {
            Principal::User(device) => {
                self.users.add(*device);
                self.users.instance_of(*device)
            }
            Principal::Account(_) => None,
        };
        self.tokens.log_in(principal, instance)
    }

    /// Counts, recorded requests, faults and the login limit start over; tokens stay.
    pub(super) fn reset(&self) {
        self.counter.reset();
        self.requests.clear();
        self.faults.clear();
        self.limiter.reset();
    }
}

/// A user that nobody ever asked for.
pub(super) fn random_device() -> DeviceToken {
    DeviceToken::parse(&random_id().to_string()).expect("a UUID is a DeviceToken")
}

/// An id that nobody else has. Nothing here is secret, so that the kernel need not be asked.
pub(super) fn random_id() -> Uuid {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid()
}

impl Struck {
    /// Half of the delay passes before a call is processed and half after, so that a client that
    /// gives up meets both.
    pub(super) async fn half_delay(&self) {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay / 2).await;
        }
    }

    /// What a call that issued tokens counts as.
    pub(super) fn outcome(&self) -> Outcome {
        match self.action {
            Some(Action::Lose(_) | Action::Garbage(_)) => Outcome::Lost,
            _ => Outcome::Ok,
        }
    }

    /// What stands in for processing the call, if anything does.
    pub(super) fn instead(&self) -> Option<Result<Answer, Cut>> {
        match self.action.as_ref()? {
            Action::Status(status) => Some(Ok(status.answer())),
            Action::StatusUntil(status) => Some(Ok(status.answer())),
            Action::InBand(status) => {
                let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::UNAUTHORIZED);
                let envelope = answer::failure(status, "", "");
                Some(Ok(answer::json_answer(StatusCode::OK, &envelope)))
            }
            Action::Reset => Some(Err(Cut::Reset)),
            Action::Early(_) | Action::Delay(_) | Action::Lose(_) | Action::Garbage(_) => None,
        }
    }

    /// What becomes of the answer once the call was processed.
    pub(super) async fn afterwards(&self, answer: Answer) -> Result<Answer, Cut> {
        match &self.action {
            Some(Action::Lose(Lost::Reset)) => Err(Cut::Reset),
            Some(Action::Lose(Lost::Half)) => Ok(answer::halved(answer)),
            Some(Action::Lose(Lost::Hang)) => std::future::pending().await,
            _ => Ok(answer),
        }
    }
}

impl StatusUntil {
    fn answer(&self) -> Answer {
        let status = Status {
            code: self.code,
            retry_after: None,
            content: None,
        };
        let mut answer = status.answer();
        if let Some(until) = self.until() {
            answer.headers_mut().insert(header::RETRY_AFTER, until);
        }
        answer
    }

    fn until(&self) -> Option<HeaderValue> {
        let until = Timestamp::now().checked_add(SignedDuration::from_secs(self.seconds));
        let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&until.ok()?);
        HeaderValue::try_from(date.ok()?).ok()
    }
}

impl Status {
    fn answer(&self) -> Answer {
        let status = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = match &self.content {
            Some(content) => answer::fixed(status, "application/json", content.clone()),
            None => answer::enveloped(
                answer::failure(status, "Simulated", "a fault asked for this"),
                Names::Upper,
            ),
        };
        if let Some(seconds) = self.retry_after {
            answer
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        answer
    }
}

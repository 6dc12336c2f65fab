//! What each fault does to a call that it strikes, but for those that change what is issued
//! (`simulator::tokens`).

use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use hyper::body::Incoming;
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Action, Delay, Early, Garbage, Lost, Status, StatusUntil, Struck};
use crate::simulator::answer::{self, Answer, Cut, Names};
use crate::simulator::content::{self, Received};
use crate::simulator::counts::Outcome;

impl Struck {
    /// Half of the delay passes before a call is processed and half after, so that a client that
    /// gives up meets both.
    pub(in crate::simulator) async fn half_delay(&self) {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay / 2).await;
        }
    }

    /// Receives the content of a data call, and keeps it if it has at most `keep` bytes.
    pub(in crate::simulator) async fn receive(
        &self,
        body: Incoming,
        keep: usize,
    ) -> Result<Received, Cut> {
        match &self.action {
            Some(Action::Early(early)) => {
                match early {
                    Early::Close => {}
                    // Ends with its connection, which hyper keeps for as long as the content is read.
                    Early::KeepReading => drop(tokio::spawn(content::receive(body, 0))),
                }
                Ok(Received::nothing())
            }
            _ => content::receive(body, keep).await,
        }
    }

    /// Whether a data call is answered 401 before its content is read.
    pub(in crate::simulator) fn is_early(&self) -> bool {
        matches!(self.action, Some(Action::Early(_)))
    }

    /// Whether the answer says 401 in its envelope alone.
    pub(in crate::simulator) fn is_in_band_401(&self) -> bool {
        self.action == Some(Action::InBand(StatusCode::UNAUTHORIZED.as_u16()))
    }

    /// What a call that issued tokens counts as.
    pub(in crate::simulator) fn outcome(&self) -> Outcome {
        match self.action {
            Some(Action::Lose(_) | Action::Garbage(_)) => Outcome::Lost,
            None
            | Some(
                Action::Status(_)
                | Action::StatusUntil(_)
                | Action::InBand(_)
                | Action::Early(_)
                | Action::Delay(_)
                | Action::Reset,
            ) => Outcome::Ok,
        }
    }

    /// Whether no answer arrives whole, whatever it would have been.
    pub(in crate::simulator) fn loses_the_answer(&self) -> bool {
        matches!(self.action, Some(Action::Lose(_)))
    }

    /// What stands in for processing the call, if anything does.
    pub(in crate::simulator) fn instead(&self) -> Option<Result<Answer, Cut>> {
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

    /// What takes the place of an answer with credentials, `content`, if it is spoilt. `other_user` makes
    /// a token of somebody else.
    pub(in crate::simulator) fn spoilt(
        &self,
        content: Value,
        other_user: impl FnOnce() -> String,
    ) -> Result<Answer, Value> {
        match &self.action {
            Some(Action::Garbage(garbage)) => Ok(answer::fixed(
                StatusCode::OK,
                garbage.content_type(),
                garbage.spoil(content, other_user),
            )),
            _ => Err(content),
        }
    }

    /// What becomes of the answer once the call was processed.
    pub(in crate::simulator) async fn afterwards(&self, answer: Answer) -> Result<Answer, Cut> {
        match &self.action {
            Some(Action::Lose(lost)) => match lost {
                Lost::Reset => Err(Cut::Reset),
                Lost::Half => Ok(answer::halved(answer)),
                Lost::Hang => std::future::pending().await,
            },
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

impl Garbage {
    fn content_type(&self) -> &'static str {
        match self {
            Garbage::Html => "text/html",
            _ => "application/json",
        }
    }

    /// The content that `envelope` becomes. [`Garbage::OtherUser`] takes a token from the tables:
    /// `other_user`.
    fn spoil(&self, mut envelope: Value, other_user: impl FnOnce() -> String) -> String {
        match self {
            Garbage::Html => return "<!doctype html><title>It works!</title>".to_owned(),
            Garbage::Empty => return String::new(),
            Garbage::CutJson => {
                let mut text = envelope.to_string();
                text.truncate(text.len() / 2);
                return text;
            }
            Garbage::ResultNull => envelope["Result"] = Value::Null,
            Garbage::OtherStatus(status) => envelope["Status"] = (*status).into(),
            Garbage::NoRefreshToken => {
                if let Some(result) = envelope["Result"].as_object_mut() {
                    result.remove("RefreshToken");
                }
            }
            Garbage::Huge => envelope["Title"] = "x".repeat(10_000_000).into(),
            Garbage::ExpiresIn(value) => {
                envelope["Result"]["AccessToken"]["ExpiresIn"] = value.clone();
            }
            Garbage::OtherUser => {
                envelope["Result"]["AccessToken"]["Token"] = other_user().into();
            }
        }
        envelope.to_string()
    }
}

impl Delay {
    pub(super) fn draw(self) -> Duration {
        Duration::from_millis(match self {
            Delay::Millis(millis) => millis,
            Delay::UpToMillis(most) => fastrand::u64(..=most),
        })
    }
}

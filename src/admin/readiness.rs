//! Whether this process is ready, and what it suffers from. A sidecar's readiness is its pod's: only
//! what keeps this very process from its work counts, nothing that is Damoov's.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::SystemTime;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Serialize;

use super::Status;
use super::code::Code;
use super::engine::{Engine, Logins};
use super::reply;
use crate::server::Stage;

/// Something that lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Condition {
    /// Its stable name.
    pub(super) code: Code,
    /// What it is, for people.
    pub(super) message: String,
    /// When it began, or was seen first (RFC 3339).
    pub(super) since: String,
}

/// What `/readyz` answers.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    ok: bool,
    reasons: Vec<Condition>,
    degraded: Vec<Condition>,
}

impl Report {
    /// Everything that is wrong; why it is not ready comes first.
    pub(super) fn codes(&self) -> impl Iterator<Item = Code> {
        let conditions = self.reasons.iter().chain(&self.degraded);
        conditions.map(|condition| condition.code)
    }

    /// Ready if nothing speaks against it.
    pub(super) fn of(reasons: Vec<Condition>, degraded: Vec<Condition>) -> Report {
        Report {
            ok: reasons.is_empty(),
            reasons,
            degraded,
        }
    }

    /// 200 if it is ready, else 503.
    pub(super) fn answer(&self) -> Response<Bytes> {
        let status = match self.ok {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        let content = serde_json::to_vec(self).expect("strings and lists are JSON");
        reply::whole(status, "application/json", content.into())
    }

    /// Everything that is wrong.
    pub(super) fn conditions(&self) -> Vec<Condition> {
        self.reasons.iter().chain(&self.degraded).cloned().collect()
    }
}

/// Remembers since when each condition lasts.
#[derive(Debug, Default)]
pub(super) struct Readiness(Mutex<HashMap<Code, String>>);

impl Readiness {
    /// Whether it has started.
    pub(super) fn started<E: Engine>(&self, status: &Status<E>) -> Report {
        let reasons = match status.engine.get() {
            Some(_) => Vec::new(),
            None => self.since(vec![starting()]),
        };
        Report::of(reasons, Vec::new())
    }

    /// Why it is not ready.
    pub(super) fn reasons<E: Engine>(&self, status: &Status<E>) -> Vec<(Code, String)> {
        let mut reasons = Vec::new();
        if *status.stage.borrow() > Stage::Serving {
            let message = "the process is about to end; requests in progress are finished";
            reasons.push((Code::Draining, message.to_owned()));
        }
        match status.engine.get().map(Engine::writable) {
            None => reasons.push(starting()),
            Some(Err(error)) => reasons.push((Code::StoreUnwritable, error.to_string())),
            Some(Ok(())) => {}
        }
        reasons
    }

    /// The whole state, if this stands in the way of logins.
    pub(super) fn look<E: Engine>(&self, status: &Status<E>, logins: &Logins) -> Report {
        let reasons = self.reasons(status);
        let mut degraded = Vec::new();
        if let Some(engine) = status.engine.get() {
            degraded = engine.conditions(logins);
            if let Some(away) = engine.away() {
                let message = format!(
                    "the store is not reached: {}; requests with a token in memory are served, and \
                     no token is renewed",
                    away.why
                );
                degraded.push((Code::StoreAway, message));
                self.began(Code::StoreAway, away.since);
            }
            if let Some((host, since)) = engine.unreachable() {
                let message = format!("{host} cannot be connected to; the log says why");
                degraded.push((Code::UpstreamUnreachable, message));
                self.began(Code::UpstreamUnreachable, since);
            }
        }
        let config = status.reloads.state();
        if let Some(refused) = &config.refused {
            degraded.push((Code::ReloadFailed, refused.to_string()));
            self.began(Code::ReloadFailed, refused.since);
        }
        if let Some(restart) = &config.restart {
            degraded.push((Code::RestartNeeded, restart.to_string()));
            self.began(Code::RestartNeeded, restart.since);
        }
        if let Some(unwritable) = status.log.unwritable() {
            degraded.push((Code::LogUnwritable, unwritable.why));
            self.began(Code::LogUnwritable, unwritable.since);
        }
        let count = reasons.len();
        let mut all = self.since(reasons.into_iter().chain(degraded).collect());
        let degraded = all.split_off(count);
        Report::of(all, degraded)
    }

    /// The condition knows itself when it began.
    fn began(&self, code: Code, since: SystemTime) {
        if let Ok(since) = jiff::Timestamp::try_from(since) {
            let mut known = self.0.lock().expect("no code panics under this lock");
            known.insert(code, to_the_second(since));
        }
    }

    /// Gives each condition its beginning: now, if it was not there when this was last asked.
    fn since(&self, conditions: Vec<(Code, String)>) -> Vec<Condition> {
        let now = to_the_second(jiff::Timestamp::now());
        let mut known = self.0.lock().expect("no code panics under this lock");
        let begun: HashMap<_, _> = conditions
            .iter()
            .map(|(code, _)| (*code, known.remove(code).unwrap_or_else(|| now.clone())))
            .collect();
        *known = begun;
        conditions
            .into_iter()
            .map(|(code, message)| Condition {
                code,
                message,
                since: known.get(&code).unwrap_or(&now).clone(),
            })
            .collect()
    }
}

fn to_the_second(at: jiff::Timestamp) -> String {
    at.round(jiff::Unit::Second).unwrap_or(at).to_string()
}

fn starting() -> (Code, String) {
    let message = "the store is being opened";
    (Code::Starting, message.to_owned())
}

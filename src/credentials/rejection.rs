//! What follows a 401, for requests, WebSocket handshakes and live messages alike: a renewal, one
//! replay with newer credentials, and what the replay says about 401s to come.
//!
//! ```text
//! 401 ─ newer credentials there already? ──────────────────────────── yes ─▶ replay with them
//!       │ no
//!       a replay got a 401 in the last 60 s, or one is under way? ─── yes ─▶ the 401 is the answer
//!       │ no
//!       renew: never hand the rejected ones out again ─ newer ones ───────▶ replay with them
//!
//! replay ─ ok           ▶ accepted: a later 401 for these credentials renews again
//!        ─ unauthorized ▶ suppressed: for 60 s, 401s of this principal are the answer, for they are
//!        │                not about expiry
//!        ─ failed, impossible, dropped, or no answer within 5 s ▶ nothing is known
//! ```

use std::sync::Arc;

use super::Error;
use super::engine::Engine;
use super::provider::{Provider, ask};
use super::vault::cache::Lookup;
use super::vault::credentials::Credentials;
use crate::caller::Authorized;
use crate::metrics::{Metrics, ReplayLabels, ReplayResult, Trigger};

/// Credentials newer than rejected ones, for one replay. End it with one of its methods, which say how the
/// replay ended; if it is dropped, nothing is concluded: the caller left, or no answer came that could be
/// understood.
#[must_use = "say how the replay ended"]
pub struct Renewed<'a> {
    engine: &'a Engine,
    authorized: &'a Authorized,
    credentials: Arc<Credentials>,
}

/// What is to be done about a 401.
enum Rejection {
    /// Newer credentials are there already.
    Overtaken(Arc<Credentials>),
    /// A renewal is due.
    Due,
    /// A replay with newer credentials got a 401 too, or is under way and will tell.
    Final,
}

impl Provider {
    /// Newer credentials than `rejected`, which got a 401, for a replay at once. `None` if the 401 is
    /// the answer.
    pub async fn renew<'a>(
        &'a self,
        authorized: &'a Authorized,
        rejected: &Credentials,
    ) -> Result<Option<Renewed<'a>>, Error> {
        let credentials = match self.note_rejection(authorized, rejected) {
            Rejection::Overtaken(newer) => newer,
            Rejection::Due => {
                let ask = ask(authorized, Some(rejected), Trigger::Rejected);
                self.wait(authorized, ask).await?
            }
            Rejection::Final => return Ok(None),
        };
        credentials.begin_replay(self.engine.clock.now());
        Ok(Some(Renewed {
            engine: &self.engine,
            authorized,
            credentials,
        }))
    }

    /// Starts what [`Provider::renew`] does, for the next request: this one cannot be sent again.
    pub fn renew_without_replay(&self, authorized: &Authorized, rejected: &Credentials) {
        count(&self.engine.metrics, ReplayResult::Impossible);
        if let Rejection::Due = self.note_rejection(authorized, rejected) {
            let ask = ask(authorized, Some(rejected), Trigger::Rejected);
            self.engine.join_or_start(authorized.principal(), ask, None);
        }
    }

    fn note_rejection(&self, authorized: &Authorized, rejected: &Credentials) -> Rejection {
        let (cache, principal) = (&self.engine.vault.cache, authorized.principal());
        if let Lookup::Fresh(newer) | Lookup::Stale(newer) = cache.look_up(principal)
            && newer.generation > rejected.generation
        {
            return Rejection::Overtaken(newer);
        }
        let now = self.engine.clock.now();
        if cache.is_suppressed(principal) || rejected.is_replay_pending(now) {
            return Rejection::Final;
        }
        cache.reject(principal, rejected.generation);
        Rejection::Due
    }
}

impl Renewed<'_> {
    /// To replay with.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// An answer other than 401 came.
    pub fn ok(self) {
        self.credentials.accept();
        self.count(ReplayResult::Ok);
    }

    /// A 401 came again: it is not about expiry.
    pub fn unauthorized(self) {
        self.engine
            .vault
            .cache
            .suppress(self.authorized.principal());
        self.count(ReplayResult::Rejected);
    }

    /// No answer came.
    pub fn failed(self) {
        self.count(ReplayResult::Failed);
    }

    /// There was no replay, because the content was not kept.
    pub fn impossible(self) {
        self.count(ReplayResult::Impossible);
    }

    fn count(&self, result: ReplayResult) {
        count(&self.engine.metrics, result);
    }
}

fn count(metrics: &Metrics, result: ReplayResult) {
    let labels = ReplayLabels { result };
    metrics.replays.get_or_create(&labels).inc();
}

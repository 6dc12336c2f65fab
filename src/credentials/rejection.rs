//! What follows a 401, for requests, WebSocket handshakes and live messages alike: a renewal, one
//! replay with newer credentials, and what the replay says about 401s to come.
//!
//! ```text
//! 401 ─ other credentials there already? ──────────────────────────── yes ─▶ replay with them
//!       │ no
//!       a replay got a 401 in the last 60 s, or one is under way? ─── yes ─▶ the 401 is the answer
//!       │ no
//!       renew: never hand the rejected ones out again ─ newer ones ───────▶ replay with them
//!
//! replay ─ ok           ▶ accepted: a later 401 for these credentials renews again
//!        ─ unauthorized ▶ with a token that was received since the 401? ─ yes ─▶ suppressed
//!        │                │ no: it may have ended with the rejected one
//!        │                the 401 is the answer; renew, for the next request
//!        ─ failed, impossible, dropped, or no answer within 5 s ▶ nothing is known
//! ```
//!
//! While a principal is suppressed, for 60 s, its 401s are the answer, for they are not about expiry. A note
//! in the store tells all processes on it.

use std::sync::Arc;

use super::Error;
use super::engine::Engine;
use super::provider::{Provider, ask};
use super::vault::cache::SUPPRESSED_FOR;
use super::vault::credentials::Credentials;
use crate::caller::Authorized;
use crate::metrics::{Metrics, ReplayLabels, ReplayResult, Trigger};
use crate::principal::Principal;
use crate::store::{Generation, Note};

/// Credentials newer than rejected ones, for one replay. End it with one of its methods, which say how the
/// replay ended; if it is dropped, nothing is concluded: the caller left, or no answer came that could be
/// understood.
#[must_use = "say how the replay ended"]
pub struct Renewed<'a> {
    engine: &'a Arc<Engine>,
    authorized: &'a Authorized,
    credentials: Arc<Credentials>,
    receipt: Receipt,
}

/// When credentials were received, as far as this process knows.
#[derive(Clone, Copy)]
enum Receipt {
    /// Since the first 401: if they get one, too, it is not about expiry.
    Since,
    /// Perhaps before it: what ended the rejected ones may have ended them as well.
    PerhapsBefore,
}

/// What is to be done about a 401.
enum Rejection {
    /// Newer credentials are there already, or those that a store which went back holds.
    Overtaken(Arc<Credentials>),
    /// A renewal is due, for a newer generation than this.
    Due(Generation),
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
        let rejected_at = self.engine.clock.now();
        let (credentials, is_new) = match self.note_rejection(authorized, rejected) {
            Rejection::Overtaken(newer) => {
                let is_new = newer.renewed.is_some() && !newer.is_accepted();
                (newer, is_new)
            }
            Rejection::Due(generation) => {
                let ask = ask(authorized, Some(generation), Trigger::Rejected);
                let newer = self.wait(authorized, ask).await?;
                let cache = &self.engine.vault.cache;
                if newer.is_same_token(rejected) && cache.is_suppressed(authorized.principal()) {
                    // Another process knows that no newer one helps.
                    return Ok(None);
                }
                let is_new = newer.renewed.is_some_and(|at| at >= rejected_at);
                (newer, is_new)
            }
            Rejection::Final => return Ok(None),
        };
        credentials.begin_replay(self.engine.clock.now());
        Ok(Some(Renewed {
            engine: &self.engine,
            authorized,
            credentials,
            receipt: match is_new {
                true => Receipt::Since,
                false => Receipt::PerhapsBefore,
            },
        }))
    }

    /// Starts what [`Provider::renew`] does, for the next request: this one cannot be sent again.
    pub fn renew_without_replay(&self, authorized: &Authorized, rejected: &Credentials) {
        count(&self.engine.metrics, ReplayResult::Impossible);
        if let Rejection::Due(generation) = self.note_rejection(authorized, rejected) {
            let ask = ask(authorized, Some(generation), Trigger::Rejected);
            self.engine.join_or_start(authorized.principal(), ask, None);
        }
    }

    fn note_rejection(&self, authorized: &Authorized, rejected: &Credentials) -> Rejection {
        let (cache, principal) = (&self.engine.vault.cache, authorized.principal());
        if let Some(another) = cache.another(rejected) {
            return Rejection::Overtaken(another);
        }
        let now = self.engine.clock.now();
        if cache.is_suppressed(principal) || rejected.is_replay_pending(now) {
            return Rejection::Final;
        }
        Rejection::Due(cache.reject(rejected))
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

    /// A 401 came again, which is the answer.
    pub fn unauthorized(self) {
        let (engine, principal) = (self.engine, self.authorized.principal());
        match self.receipt {
            // Another replay found out.
            _ if engine.vault.cache.is_suppressed(principal) => {}
            Receipt::Since => {
                engine.vault.cache.suppress(principal);
                self.tell_others(principal.clone());
            }
            Receipt::PerhapsBefore => {
                let cache = &engine.vault.cache;
                if cache.another(&self.credentials).is_none() {
                    let generation = cache.reject(&self.credentials);
                    let ask = ask(self.authorized, Some(generation), Trigger::Rejected);
                    engine.join_or_start(principal, ask, None);
                }
            }
        }
        self.count(ReplayResult::Rejected);
    }

    /// Other processes on the store do not renew for 401s of `principal` either.
    fn tell_others(&self, principal: Principal) {
        let engine = self.engine.clone();
        self.engine.spawn_to_completion(async move {
            let until = engine.vault.wall().plus(SUPPRESSED_FOR);
            let note = Note::SuppressedUntil(until);
            if let Err(error) = engine.vault.note(&principal, note).await {
                tracing::debug!(%error, "that a newer token got a 401, too, could not be noted");
            }
        });
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::credentials::fixture::{Api, Medium, Says, authorized, settings, user};
    use crate::store::Store;

    #[tokio::test]
    async fn what_one_process_found_about_401s_holds_for_all() {
        let (api, medium) = (Api::start().await, Medium::new());
        let (one, store) = medium.start_faulty(&api, settings());
        let (other, _) = medium.start_faulty(&api, settings());
        let caller = authorized(user(1));
        let renewed = one
            .provider
            .renew(&caller, &one.get(user(1)).await.unwrap())
            .await;
        renewed.unwrap().expect("a newer one").unauthorized();
        let noted = async {
            while store
                .load(&user(1))
                .await
                .unwrap()
                .notes
                .suppressed_until
                .is_none()
            {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let noted = tokio::time::timeout(Duration::from_secs(10), noted).await;
        noted.unwrap();

        let newest = other.get(user(1)).await.unwrap();
        for _ in 0..3 {
            let renewed = other.provider.renew(&caller, &newest).await;
            assert!(renewed.unwrap().is_none(), "the 401 is the answer");
            let served = other.get(user(1)).await.unwrap();
            assert_eq!(served.generation, newest.generation);
        }
        assert_eq!(api.calls(), ["Login", "RefreshToken"]);
        assert_eq!(store.calls("note"), 1);
    }

    #[tokio::test]
    async fn tokens_that_all_ended_at_once_suppress_nobody() {
        let (api, medium) = (Api::start().await, Medium::new());
        let (one, store) = medium.start_faulty(&api, settings());
        let (other, _) = medium.start_faulty(&api, settings());
        let caller = authorized(user(1));
        let first = one.get(user(1)).await.unwrap();
        let pair = other.get(user(1)).await.unwrap();
        let renewed = other.provider.renew(&caller, &pair).await.unwrap();
        renewed.expect("a newer one").ok();
        // Damoov ends all of them. This process adopts one of those.
        let adopted = one.provider.renew(&caller, &first).await.unwrap();
        let adopted = adopted.expect("what the other one committed");
        let ended = adopted.credentials().token().to_owned();
        adopted.unauthorized();
        let next = one.get(user(1)).await.unwrap();
        assert_ne!(next.token(), ended);
        assert_eq!(api.calls(), ["Login", "RefreshToken", "RefreshToken"]);
        assert_eq!(store.calls("note"), 0);
        // With this one, which is new, it would be known.
        let newest = one.provider.renew(&caller, &next).await.unwrap();
        newest.expect("a newer one").unauthorized();
        let last = one.get(user(1)).await.unwrap();
        let suppressed = one.provider.renew(&caller, &last).await.unwrap();
        assert!(suppressed.is_none());
        assert_eq!(api.calls().len(), 4);
    }

    #[tokio::test]
    async fn another_program_is_noticed_whichever_process_committed_the_pair() {
        let (api, medium) = (Api::start().await, Medium::new());
        let mut generous = settings();
        generous.budget.windows[0].logins = 10;
        let (one, _) = medium.start_faulty(&api, generous.clone());
        let (other, _) = medium.start_faulty(&api, generous);
        let caller = authorized(user(1));
        let first = one.get(user(1)).await.unwrap();
        api.will_say([Says::Rejected]);
        let renewed = other
            .provider
            .renew(&caller, &other.get(user(1)).await.unwrap())
            .await;
        renewed.unwrap().expect("a login").ok();
        let second = one.provider.renew(&caller, &first).await.unwrap();
        let second = second.expect("what the other one committed");
        let pair = one.get(user(1)).await.unwrap();
        assert_eq!(pair.token(), second.credentials().token());
        second.ok();
        assert_eq!(api.calls(), ["Login", "RefreshToken", "Login"]);

        api.will_say([Says::Rejected]);
        let contested = one.provider.renew(&caller, &pair).await.map(drop);
        assert!(
            matches!(contested, Err(Error::Contested { .. })),
            "{contested:?}"
        );
        assert_eq!(api.calls().len(), 4, "one refresh more, and no login");
    }
}

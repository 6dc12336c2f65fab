//! Pairs that no renewal brought, and pairs that must go: the answer to a registration is taken into the
//! store; a user that was deleted or moved is forgotten.

use std::sync::Arc;

use super::engine::Engine;
use super::renewal::renewals::Outcome;
use super::vault::cache::Lookup;
use super::vault::commit::{Committed, NewPair};
use super::vault::credentials::Credentials;
use super::vault::pair::Pair;
use super::vault::repeated::repeated;
use super::{Error, Provider};
use crate::clock::Timestamp;
use crate::damoov::auth::{Grant, Unreadable};
use crate::metrics::{AuthEndpoint, StoreOperation};
use crate::principal::{InstanceId, Principal};
use crate::store::{self, Note};

/// Tokens that a registration may bring. Asked for before it is sent, handed in with what it
/// brought.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Nothing of the registration's can be older.
    since: Timestamp,
}

impl Provider {
    /// To be called before a registration is sent: makes sure that its tokens can be kept.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`]: they cannot; do not send it.
    pub fn expect_tokens(&self) -> Result<Expected, Error> {
        self.can_keep()?;
        let since = self.engine.vault.wall();
        Ok(Expected { since })
    }

    /// Makes the tokens that a registration of `principal` brought its newest ones, which saves a login.
    /// If a login came meanwhile, its tokens stay. Durable when it returns; runs to its end even if the
    /// caller hangs up. Waits at most `wait`.
    ///
    /// # Errors
    ///
    /// [`Error::BadResponse`]: no access token, or another user's. [`Error::StoreUnavailable`]: not
    /// durable; it is tried again in the background.
    pub async fn adopt(
        &self,
        expected: Expected,
        principal: &Principal,
        instance: Option<InstanceId>,
        grant: Grant,
    ) -> Result<Arc<Credentials>, Error> {
        let engine = &self.engine;
        if !engine.vault.is_whole(principal, &grant) {
            return Err(Error::BadResponse);
        }
        let answers = engine.endpoint.unreadable_answers();
        answers.read(AuthEndpoint::Registration);
        let pair = Pair::from_grant(grant, None, engine.vault.wall()).ok_or(Error::BadResponse)?;
        let adoption = engine.spawn_to_completion({
            let (engine, principal) = (engine.clone(), principal.clone());
            async move {
                engine
                    .adopt_pair(expected, &principal, instance, pair)
                    .await
            }
        });
        let wait = engine.clock.to_real(engine.current.now().settings.wait);
        match tokio::time::timeout(wait, adoption).await {
            Ok(Ok(adopted)) => adopted?.ok_or(Error::BadResponse),
            // The runtime is gone.
            Ok(Err(_)) => Err(Error::Closing),
            Err(_) => Err(match self.can_keep() {
                Err(error) => error.into(),
                Ok(()) => Error::WaitedTooLong,
            }),
        }
    }

    /// Whether tokens that come now can be made durable.
    fn can_keep(&self) -> Result<(), store::Error> {
        self.writable()?;
        match self.condition().away {
            Some(away) => Err(store::Error::Away(away.why)),
            None => Ok(()),
        }
    }

    /// A registration or a move that brought no tokens: `user` is known under `instance` from now
    /// on, unless it has a pair. Durable when it returns. An instance that is not configured is not
    /// remembered: no login could be made there.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`].
    pub async fn registered(&self, user: &Principal, instance: InstanceId) -> Result<(), Error> {
        match self.engine.current.now().directory.instance(instance) {
            Some(_) => {
                self.engine
                    .vault
                    .note(user, Note::RegisteredIn(instance))
                    .await
            }
            None => Ok(()),
        }
    }

    /// The answer to a registration could not be read: its tokens are lost.
    pub fn registration_unreadable(&self, status: Option<u16>, why: Unreadable) {
        let answers = self.engine.endpoint.unreadable_answers();
        answers.note(AuthEndpoint::Registration, status, why);
    }

    /// The configured instance that a user is known under.
    pub async fn known_instance(&self, user: &Principal) -> Option<InstanceId> {
        if self.engine.current.now().directory.instances().len() < 2 {
            return None;
        }
        let known = match self.engine.vault.cache.look_up(user) {
            Lookup::Fresh(found) | Lookup::Stale(found) => found.instance,
            Lookup::Unusable | Lookup::Absent => {
                self.engine.vault.load(user).await.ok()?.known_instance()
            }
        };
        known.filter(|id| self.engine.current.now().directory.instance(*id).is_some())
    }

    /// Drops the pair and all notes, here at once and in every process within a second, and ends
    /// what was handed out: the epoch is raised. Durable when it returns.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`].
    pub async fn forget(&self, principal: &Principal) -> Result<(), Error> {
        let store = &self.engine.vault.store;
        let forgotten = repeated(|| store.forget(principal)).await;
        self.engine.vault.counted(StoreOperation::Note, forgotten)?;
        self.engine.vault.cache.forget(principal);
        self.engine.starts_anew(principal);
        let principal = self.log_name(principal);
        tracing::info!(target: "audit", %principal, "forget");
        Ok(())
    }
}

impl Engine {
    /// Drops what only this process remembers of a principal that was forgotten.
    fn starts_anew(&self, principal: &Principal) {
        self.vault.cache.end_suppression(principal);
        self.guards.mass_rejection.moved_on(principal);
        self.guards.contested.follow(principal, None);
    }

    /// Commits `pair` over any older one. Without a lease, since it has been issued already: a refresh under
    /// way, here or elsewhere, finds itself superseded.
    async fn adopt_pair(
        &self,
        expected: Expected,
        principal: &Principal,
        instance: Option<InstanceId>,
        mut pair: Pair,
    ) -> Outcome {
        let mut entry = self.vault.load_patiently(principal).await?;
        loop {
            // A user cannot be logged in before it is registered: such a login has revoked `pair`.
            let stands = self.vault.open(principal, &entry)?;
            let received = entry.record.as_ref().map(|record| record.received);
            if received.is_some_and(|received| received > expected.since)
                && let Some(newer) = &stands
            {
                return Ok(self.vault.publish_entry(principal, &entry, newer));
            }
            pair = pair.replacing(stands.as_ref());
            let new = NewPair {
                principal,
                entry: &entry,
                instance,
                lease: None,
            };
            let committed = self.vault.make_durable(new, &pair, |_| {});
            match committed.await? {
                Committed::Durable(credentials) => {
                    self.vault.note_named(principal);
                    // Its RefreshToken is as new as after a login.
                    if let Err(error) = self.guards.mass_rejection.logged_in(principal).await {
                        tracing::warn!(%error, "the guard against mass rejections could not record a registration");
                    }
                    return Ok(credentials);
                }
                Committed::Superseded(now) => entry = now,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;
    use crate::credentials::Need;
    use crate::credentials::fixture::{
        Api, Medium, Process, authorized, device, grant, jwt, main, settings, user,
    };
    use crate::damoov::auth::ExpiresInForm;
    use crate::secret::Secret;
    use crate::store::{Generation, Rejected, Store};

    /// User 1's.
    async fn adopt(process: &Process, grant: Grant) -> Result<Arc<Credentials>, Error> {
        let provider = &process.provider;
        let expected = provider.expect_tokens().unwrap();
        provider
            .adopt(expected, &user(1), Some(main()), grant)
            .await
    }

    #[tokio::test]
    async fn a_registrations_tokens_are_used_by_every_process_and_survive_all() {
        let medium = Medium::new();
        let (one, other) = (medium.start(), medium.start());
        let adopted = adopt(&one, grant(&user(1), 7)).await.unwrap();
        let got = one
            .provider
            .get(&authorized(user(1)), Need::Fresh)
            .await
            .unwrap();
        assert!(Arc::ptr_eq(&adopted, &got.credentials));

        let elsewhere = other
            .provider
            .get(&authorized(user(1)), Need::Fresh)
            .await
            .unwrap();
        for credentials in [&adopted, &elsewhere.credentials] {
            assert_eq!(credentials.token(), jwt(&user(1), 7));
            assert_eq!(credentials.instance(), Some(main()));
            let name = one.provider.log_name(&user(1));
            assert_eq!(credentials.log_name(), name);
            assert_eq!(credentials.expires_in_form(), ExpiresInForm::Text);
            let left = credentials.left(one.clock.now()).as_secs();
            assert!((86_390..=86_400).contains(&left), "{left}");
        }
        let entry = one.store.load(&user(1)).await.unwrap();
        assert!(entry.record.unwrap().known);
    }

    #[tokio::test]
    async fn an_adopted_pair_replaces_what_was_expected_but_nothing_newer() {
        let medium = Medium::new();
        let (one, other) = (medium.start(), medium.start());
        let expected = one.provider.expect_tokens().unwrap();
        while one.clock.wall() <= expected.since {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for serial in 1..=3 {
            let process = if serial % 2 == 0 { &one } else { &other };
            let adopted = adopt(process, grant(&user(1), serial)).await.unwrap();
            assert_eq!(adopted.token(), jwt(&user(1), serial));
        }
        let (somebody, late) = (user(1), grant(&user(1), 4));
        let late = one.provider.adopt(expected, &somebody, None, late).await;
        assert_eq!(late.unwrap().token(), jwt(&user(1), 3));
        let entry = one.store.load(&user(1)).await.unwrap();
        assert_eq!(entry.generation, Generation(3));
    }

    #[tokio::test]
    async fn a_rejected_login_is_forgotten_over_an_adopted_pair() {
        let process = Medium::new().start();
        let rejected = Rejected {
            until: process.clock.wall().plus(Duration::from_secs(60)),
            with: [0; 8],
        };
        let note = Note::Rejected(rejected);
        process.store.note(&user(1), note).await.unwrap();
        adopt(&process, grant(&user(1), 1)).await.unwrap();
        let entry = process.store.load(&user(1)).await.unwrap();
        assert_eq!(entry.notes.rejected, None);
    }

    #[tokio::test]
    async fn a_caller_that_hangs_up_does_not_lose_its_registration() {
        let process = Medium::new().start();
        let adoption = adopt(&process, grant(&user(1), 1));
        assert!(adoption.now_or_never().is_none());
        process.background.finish(Duration::from_secs(5)).await;
        let entry = process.store.load(&user(1)).await.unwrap();
        assert!(entry.record.is_some());
    }

    #[tokio::test]
    async fn a_registrations_tokens_outlast_a_store_that_is_away() {
        let api = Api::start().await;
        let (process, store) = Medium::new().start_faulty(&api, settings());
        let provider = &process.provider;
        store.is_away(true);
        let refused = provider.expect_tokens().map(drop);
        assert!(
            matches!(refused, Err(Error::StoreUnavailable(_))),
            "do not send it"
        );
        store.is_away(false);
        let expected = provider.expect_tokens().unwrap();
        store.is_away(true);
        let grant = grant(&user(1), 1);
        let adopted = provider.adopt(expected, &user(1), None, grant).await;
        assert!(matches!(adopted, Err(Error::StoreUnavailable(_))));
        store.is_away(false);
        assert_eq!(process.background.finish(Duration::from_secs(5)).await, 0);
        assert!(store.load(&user(1)).await.unwrap().record.is_some());
    }

    #[tokio::test]
    async fn tokens_that_are_another_users_or_missing_are_not_adopted() {
        let process = Medium::new().start();
        let named = |device_token| Grant {
            device_token,
            ..grant(&user(1), 1)
        };
        for bad in [
            grant(&user(2), 1),
            named(Some(device(2))),
            Grant {
                access_token: None,
                refresh_token: Some(Secret::from("refresh")),
                ..named(None)
            },
        ] {
            let adopted = adopt(&process, bad).await;
            assert_eq!(adopted.unwrap_err(), Error::BadResponse);
        }
        assert_eq!(process.store.count().await, Ok(0));
    }

    #[tokio::test]
    async fn a_forgotten_user_is_gone_at_once_and_can_be_adopted_anew() {
        let process = Medium::new().start();
        let provider = &process.provider;
        let before = adopt(&process, grant(&user(1), 1)).await.unwrap().epoch();
        provider.forget(&user(1)).await.unwrap();
        assert!(provider.engine.vault.cache.peek(&user(1)).is_none());
        assert_eq!(process.store.load(&user(1)).await.unwrap().record, None);

        let anew = adopt(&process, grant(&user(1), 2)).await.unwrap();
        assert!(anew.epoch() > before);
        let got = provider
            .get(&authorized(user(1)), Need::Fresh)
            .await
            .unwrap();
        assert_eq!(got.credentials.token(), jwt(&user(1), 2));
    }
}

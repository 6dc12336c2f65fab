//! The other grant: a login, which is scarce. Everything that may stand in its way comes before a
//! slot of the budget is taken.

use std::pin::pin;
use std::time::Duration;

use super::renewals::{Outcome, Probing, Renewal};
use super::token_endpoint::Reply;
use crate::credentials::Error;
use crate::credentials::engine::Engine;
use crate::credentials::guards::backoff::Permit;
use crate::credentials::guards::breaker::Fingerprint;
use crate::credentials::guards::budget::Seeker;
use crate::credentials::guards::mass_rejection::AGAIN;
use crate::credentials::vault::pair::Pair;
use crate::damoov::auth::{self, Answer, Call};
use crate::metrics::{Grant, RenewalResult};
use crate::principal::{InstanceId, Principal};
use crate::store::{Class, Entry, Note, Rejected, SlotId};

/// The call that goes first after a back-off has its slot within this time, or lets another go.
const SLOT_WITHIN: Duration = Duration::from_secs(1);

/// What a login is made with.
struct Identity {
    call: Call,
    key: Key,
}

/// The credential that a login shows.
#[derive(Clone, Copy)]
struct Key {
    /// `None` for an account.
    instance: Option<InstanceId>,
    /// Identifies instance and key, or account and password, without giving them away.
    fingerprint: Fingerprint,
}

impl Engine {
    /// Refuses early, before pace and lease, what could only end in a refused login. Else the pair to
    /// refresh with; `None` if only a login helps.
    pub(crate) fn check_refused(
        &self,
        renewal: &Renewal,
        entry: &Entry,
    ) -> Result<Option<Pair>, Error> {
        if renewal.ask.probing == Probing::No
            && let Some(rejected) = self.mass_rejection.waits_with(&renewal.principal)
        {
            if entry.record.is_some() && rejected == (entry.generation, entry.epoch) {
                return Err(self.suspended());
            }
            self.mass_rejection.moved_on(&renewal.principal);
        }
        if let Some(pair) = self.refreshable(renewal, entry)? {
            return Ok(Some(pair));
        }
        self.check_remembered(entry, &self.identity(renewal, entry)?)?;
        self.check_known_contested(entry)?;
        Ok(None)
    }

    /// While refreshes are rejected by the mass, who was rejected takes no turn and no lease.
    pub(crate) async fn check_not_waiting(&self, renewal: &Renewal) -> Result<(), Error> {
        if self.mass_rejection.waits_with(&renewal.principal).is_some() {
            let entry = self.load(&renewal.principal).await?;
            self.check_refused(renewal, &entry)?;
        }
        Ok(())
    }

    /// Logs the renewal's principal in and commits the pair.
    pub(crate) async fn log_in(&self, renewal: &Renewal, entry: &Entry) -> Outcome {
        let refused = |error| {
            self.count(
                renewal,
                Grant::Login,
                RenewalResult::Refused,
                Duration::ZERO,
            );
            error
        };
        let identity = self.identity(renewal, entry)?;
        self.check_remembered(entry, &identity).map_err(refused)?;
        self.check_suspended(renewal, entry)
            .await
            .map_err(refused)?;
        self.check_contested(renewal, entry)
            .await
            .map_err(refused)?;
        let own = &self.login_backoff;
        if let Some(rest) = own.rest(&renewal.principal)
            && rest.until > renewal.patience()
        {
            return Err(rest.error);
        }
        let class = class(&renewal.principal, entry);
        let key = identity.key;
        if key.instance.is_some() {
            let admitted = self.breakers.admit(key.fingerprint, class).await;
            if !admitted.map_err(|error| refused(error.into()))? {
                return Err(refused(Error::LoginRejected));
            }
        }
        loop {
            let Identity { call, key } = self.identity(renewal, entry)?;
            let ready = self.ready_to_log_in(renewal, entry, class).await;
            let Ok(Some((slot, permit))) = ready else {
                self.give_breaker_back(key, class).await;
                return match ready {
                    Err(
                        error @ (Error::BudgetExhausted { .. }
                        | Error::LoginBlocked { .. }
                        | Error::Suspended { .. }),
                    ) => Err(refused(error)),
                    other => other.map(|_| None),
                };
            };
            let started = self.clock.now();
            let reply = self.endpoint.log_in(call).await;
            let took = self.clock.now().since(started);
            if let Reply::NotSent(_) = reply {
                self.budget.give_back(&*self.store, slot).await;
                self.count(renewal, Grant::Login, RenewalResult::Failed, took);
                let error = reply.error();
                self.call_failed(renewal, own, permit, reply.failure(), &error);
                renewal.set_last_error(error);
                continue;
            }
            self.budget.end(&*self.store, slot).await;
            let result = match &reply {
                Reply::Answered(Answer::Granted(grant))
                    if self.is_whole(&renewal.principal, grant) =>
                {
                    RenewalResult::Ok
                }
                Reply::Answered(Answer::Rejected) => RenewalResult::Rejected,
                Reply::Answered(Answer::Limited { .. }) => RenewalResult::Limited,
                Reply::Answered(_) | Reply::NotSent(_) | Reply::Lost(_) => RenewalResult::Failed,
            };
            self.count(renewal, Grant::Login, result, took);
            return match (result, reply) {
                (RenewalResult::Ok, Reply::Answered(Answer::Granted(grant))) => {
                    self.call_answered(renewal, own, permit);
                    let pair =
                        Pair::from_grant(grant, None, self.wall()).ok_or(Error::BadResponse)?;
                    self.logged_in(renewal, entry, key, pair).await
                }
                (_, Reply::Answered(Answer::Rejected)) => {
                    self.call_answered(renewal, own, permit);
                    self.login_rejected(renewal, entry, key).await?;
                    Err(Error::LoginRejected)
                }
                (_, Reply::Answered(Answer::Limited { retry_after })) => {
                    // It is logins that are limited, not the host that is ill.
                    drop(permit);
                    let retry_after = self.login_limited(retry_after).await?;
                    Err(Error::LoginBlocked { retry_after })
                }
                (_, reply) => {
                    let error = reply.error();
                    self.call_failed(renewal, own, permit, reply.failure(), &error);
                    Err(error)
                }
            };
        }
    }

    /// Waits until the login may be sent: a slot of the budget, and the right to call the host. `None`
    /// if it is not to be sent any more. A slot that is not used is given back.
    async fn ready_to_log_in(
        &self,
        renewal: &Renewal,
        entry: &Entry,
        class: Class,
    ) -> Result<Option<(SlotId, Permit<'_>)>, Error> {
        loop {
            let Some((slot, permit)) = self.slot_and_permit(renewal, class).await? else {
                return Ok(None);
            };
            // Much may have changed while it waited.
            let stands = self.may_still_log_in(renewal, entry).await;
            if let (Ok(true), Some(permit)) = (&stands, permit) {
                return Ok(Some((slot, permit)));
            }
            self.budget.give_back(&*self.store, slot).await;
            if !stands? {
                return Ok(None);
            }
        }
    }

    /// A login that a breaker let through was not sent: another may be.
    async fn give_breaker_back(&self, key: Key, class: Class) {
        if key.instance.is_some()
            && let Err(error) = self.breakers.not_tried(key.fingerprint, class).await
        {
            tracing::debug!(%error, "a login that was not sent could not be told to the breaker");
        }
    }

    /// A slot of the budget, `None` if nobody waits for the login any more; and the right to call the
    /// host, `None` if it rests since.
    async fn slot_and_permit(
        &self,
        renewal: &Renewal,
        class: Class,
    ) -> Result<Option<(SlotId, Option<Permit<'_>>)>, Error> {
        let mut permit = Some(self.permit(renewal, &self.login_backoff).await?);
        let seeker = Seeker::Renewal(renewal);
        let slot = self.budget.take(&*self.store, class, seeker);
        let mut slot = pin!(slot);
        // Others wait for the call that goes first: it does not wait for a slot.
        let first = permit.as_ref().is_some_and(Permit::goes_first);
        let slot = tokio::select! {
            biased;
            slot = &mut slot => slot,
            () = tokio::time::sleep(SLOT_WITHIN), if first => {
                permit = None;
                slot.await
            }
        };
        let Some(slot) = slot? else {
            return Ok(None);
        };
        // What others found out meanwhile counts.
        let permit = permit.filter(Permit::goes_first);
        Ok(Some((slot, permit.or_else(|| self.backoff.pass_now()))))
    }

    /// Whether a login of the pair in `entry` is still in order; false if another process renews it.
    async fn may_still_log_in(&self, renewal: &Renewal, entry: &Entry) -> Result<bool, Error> {
        self.check_suspended(renewal, entry).await?;
        Ok(!self.is_overtaken(&renewal.principal, entry).await?)
    }

    /// A login was answered with 429: none until the block ends, in real time from now.
    pub(crate) async fn login_limited(
        &self,
        retry_after: Option<Duration>,
    ) -> Result<Duration, Error> {
        let (retry_after, is_news) = self.budget.block(&*self.store, retry_after).await?;
        let seconds = retry_after.as_secs();
        tracing::debug!(seconds, "Damoov answered a login with 429");
        if is_news {
            tracing::error!(
                seconds,
                "Damoov answers logins with 429: no login until the block ends, and half as many \
                 for a day; does another program log in from this address?"
            );
        }
        Ok(retry_after)
    }

    async fn logged_in(&self, renewal: &Renewal, entry: &Entry, key: Key, pair: Pair) -> Outcome {
        let committed = self.commit_login(renewal, entry, key.instance, pair).await;
        if let Some(instance) = key.instance {
            self.close_breaker(instance, key.fingerprint).await;
        }
        if let Err(error) = self.mass_rejection.logged_in(&renewal.principal).await {
            tracing::warn!(%error, "the guard against mass rejections could not record a login");
        }
        if self.is_displaced(entry)
            && let Err(error) = self
                .note(&renewal.principal, Note::Displaced(self.wall()))
                .await
        {
            tracing::warn!(%error, "a login that replaced a rejected pair could not be noted");
        }
        committed
    }

    async fn login_rejected(
        &self,
        renewal: &Renewal,
        entry: &Entry,
        key: Key,
    ) -> Result<(), Error> {
        let known = entry.record.as_ref().is_some_and(|record| record.known);
        if let Some(instance) = key.instance
            && known
            && self.breakers.rejected(key.fingerprint).await?
        {
            tracing::error!(
                %instance,
                "logins of this instance are rejected one after the other: is its key right? Only \
                 a probe is sent now and then, all other logins are held back"
            );
        }
        let until = self.wall().plus(self.settings.remember_rejected);
        self.note(
            &renewal.principal,
            Note::Rejected(Rejected {
                until,
                with: key.fingerprint,
            }),
        )
        .await
    }

    /// Who logs in, with what.
    fn identity(&self, renewal: &Renewal, entry: &Entry) -> Result<Identity, Error> {
        match &renewal.principal {
            Principal::Account(name) => {
                let account = self.directory.account(name).ok_or(Error::AccountUnknown)?;
                Ok(Identity {
                    call: auth::log_in_account(&account.email, &account.password),
                    key: Key {
                        instance: None,
                        fingerprint: account.fingerprint(&self.ring),
                    },
                })
            }
            Principal::User(user) => {
                let instance = match renewal.ask.instance {
                    Some(asked) => self.directory.instance(asked),
                    None => entry
                        .known_instance()
                        .and_then(|id| self.directory.instance(id))
                        .or_else(|| self.directory.default_instance()),
                }
                .ok_or(Error::InstanceUnknown)?;
                Ok(Identity {
                    call: auth::log_in_user(*user, instance.id, &instance.key),
                    key: Key {
                        instance: Some(instance.id),
                        fingerprint: instance.fingerprint(&self.ring),
                    },
                })
            }
        }
    }

    /// The pair in `entry`, where a refresh with it comes before a login.
    fn refreshable(&self, renewal: &Renewal, entry: &Entry) -> Result<Option<Pair>, Error> {
        // A probe asks again: it may have been the API that was wrong.
        let is_dead = entry.notes.refresh_dead == Some(entry.generation);
        if is_dead && renewal.ask.probing == Probing::No {
            return Ok(None);
        }
        let pair = self.open(&renewal.principal, entry)?;
        Ok(pair.filter(|pair| pair.refresh_token.is_some()))
    }

    fn check_remembered(&self, entry: &Entry, identity: &Identity) -> Result<(), Error> {
        match entry.notes.rejected {
            Some(Rejected { until, with })
                if with == identity.key.fingerprint
                    && stands(until.since(self.wall()), self.settings.remember_rejected) =>
            {
                Err(Error::LoginRejected)
            }
            _ => Ok(()),
        }
    }

    /// Those who hold a pair wait while it is the API that is wrong; a probe passes. Asks the store:
    /// another process may have found out.
    async fn check_suspended(&self, renewal: &Renewal, entry: &Entry) -> Result<(), Error> {
        let holds_a_pair = entry.record.is_some();
        if holds_a_pair
            && renewal.ask.probing != Probing::ByLogin
            && self.mass_rejection.hold(&renewal.principal, entry).await?
        {
            return Err(self.suspended());
        }
        Ok(())
    }

    /// A login of this instance succeeded.
    async fn close_breaker(&self, instance: InstanceId, key: Fingerprint) {
        match self.breakers.accepted(key).await {
            Ok(None) => {}
            Ok(Some((open, hurt))) => {
                let seconds = self.clock.to_real(open).as_secs();
                tracing::warn!(
                    %instance,
                    seconds,
                    hurt,
                    "logins of this instance are accepted again, and no longer held back"
                );
            }
            Err(error) => {
                tracing::warn!(%instance, %error, "the breaker could not record an accepted login");
            }
        }
    }

    fn suspended(&self) -> Error {
        self.mass_rejection.held_back();
        Error::Suspended {
            retry_after: self.clock.to_real(AGAIN),
        }
    }
}

/// Whether a note that stands for `longest` stands still, with `left` to go. One with far more to
/// go was made while the wall clock was ahead, and would outlive its reason by as much.
pub(crate) fn stands(left: Duration, longest: Duration) -> bool {
    !left.is_zero() && left <= longest.saturating_mul(2)
}

/// Principals seen before may use the reserve; accounts are configured, hence known.
pub(crate) fn class(principal: &Principal, entry: &Entry) -> Class {
    match (principal, &entry.record) {
        (Principal::Account(_), _) => Class::Known,
        (Principal::User(_), Some(record)) if record.known => Class::Known,
        (Principal::User(_), _) => Class::New,
    }
}

//! The other grant: a login, which is scarce. Everything that may stand in its way comes before a
//! slot of the budget is taken.

mod answered;

use std::pin::pin;
use std::time::Duration;

use super::identity::Key;
use super::leased::{Found, Leased};
use super::means::class_of;
use super::permits::call_failed;
use super::ready::Ready;
use super::renewals::{Outcome, Probing, Renewal};
use super::token_endpoint::Reply;
use crate::credentials::Error;
use crate::credentials::engine::Engine;
use crate::credentials::guards::backoff::Permit;
use crate::credentials::guards::seeker::Seeker;
use crate::damoov::auth::Call;
use crate::metrics::{Grant, RenewalResult};
use crate::store::{Class, Entry, SlotId};
use answered::Sent;

/// The call that goes first after a back-off has its slot within this time, or lets another go.
const SLOT_WITHIN: Duration = Duration::from_secs(1);

/// Whether a login has waited since the lease was taken.
#[derive(Clone, Copy)]
enum Waited {
    No,
    Yes,
}

/// Whether a login that has its slot is still in order.
enum Stands {
    Yes,
    /// Another process renews, or the lease is lost.
    No,
    /// It may be, once the store is no longer in doubt.
    InDoubt,
}

impl Engine {
    /// Logs the renewal's principal in and commits the pair. What was made `ready` before the lease was
    /// taken is used, or given back.
    pub(super) async fn log_in(
        &self,
        renewal: &Renewal,
        leased: &Leased,
        ready: &mut Option<Ready<'_>>,
    ) -> Outcome {
        let entry = leased.entry();
        let class = class_of(renewal, entry);
        let mut key = self.identity(renewal, entry)?.key;
        let mut first = self.ready_for(entry, key, ready).await;
        if first.is_none() {
            if !self.outlast_doubt_of_a_pair(renewal, entry).await? {
                return Ok(None);
            }
            key = self.may_log_in(renewal, leased.found(), class).await?;
        }
        loop {
            let ready = self
                .ready_to_log_in(renewal, leased, class, first.take())
                .await;
            let Ok(Some((slot, permit))) = ready else {
                self.give_breaker_back(key, class).await;
                let none = ready.map(|_| None);
                return none.map_err(|error| self.refused_in_line(renewal, error));
            };
            let Some(call) = self.call_with(key, renewal, entry) else {
                // Another key is configured now: a caller that waits starts another renewal.
                self.guards.budget.give_back(slot).await;
                self.give_breaker_back(key, class).await;
                return Ok(None);
            };
            let started = self.clock.now();
            let calling = self
                .endpoint
                .log_in(call, self.call_timeout(), leased.hold());
            let reply = calling.await;
            let took = self.clock.now().since(started);
            if let Reply::Withheld | Reply::NotSent(_) = reply {
                self.guards.budget.give_back(slot).await;
                if let Reply::NotSent(_) = reply {
                    self.login_not_sent(renewal, permit, &reply, took);
                }
                continue;
            }
            let sent = Sent {
                key,
                slot,
                permit,
                took,
            };
            return self.login_ended(renewal, leased, sent, reply).await;
        }
    }

    /// The call that logs in with `key`, if that is still the one that is configured.
    fn call_with(&self, key: Key, renewal: &Renewal, entry: &Entry) -> Option<Call> {
        let identity = self.identity(renewal, entry).ok()?;
        (identity.key == key).then_some(identity.call)
    }

    /// Whether a guard refuses the login, before a slot of the budget is taken. Returns the key that it is
    /// made with.
    pub(super) async fn may_log_in(
        &self,
        renewal: &Renewal,
        found: &Found,
        class: Class,
    ) -> Result<Key, Error> {
        let (principal, entry) = (&renewal.principal, found.entry());
        let refused = |error| self.refused(renewal, error);
        let key = self.identity(renewal, entry)?.key;
        self.check_remembered(entry, key).map_err(refused)?;
        self.check_suspended(renewal, entry)
            .await
            .map_err(refused)?;
        let displaced = self.is_displaced(found);
        let contested = &self.guards.contested;
        let checked = contested.check(&self.vault, principal, entry, displaced);
        checked.await.map_err(refused)?;
        if let Some(rest) = self.guards.login_backoff.rest(principal)
            && rest.until > renewal.patience()
        {
            return Err(rest.error);
        }
        if key.instance.is_some() {
            let admitted = self.guards.breakers.admit(key.fingerprint, class).await;
            if !admitted.map_err(|error| refused(error.into()))? {
                return Err(refused(Error::LoginRejected));
            }
        }
        Ok(key)
    }

    /// Counts a login that was refused, and gives the reason back.
    fn refused(&self, renewal: &Renewal, error: Error) -> Error {
        self.count(
            renewal,
            Grant::Login,
            RenewalResult::Refused,
            Duration::ZERO,
        );
        error
    }

    /// The same, of one that has waited for its slot in vain.
    pub(super) fn refused_in_line(&self, renewal: &Renewal, error: Error) -> Error {
        match error {
            Error::BudgetExhausted { .. }
            | Error::LoginBlocked { .. }
            | Error::Suspended { .. } => self.refused(renewal, error),
            other => other,
        }
    }

    /// Waits until the login may be sent: a slot of the budget, and the right to call the host, which it
    /// may have as the `first`. Returns `None` if it is not to be sent any more. A slot that is not used is
    /// given back.
    async fn ready_to_log_in<'a>(
        &'a self,
        renewal: &Renewal,
        leased: &Leased,
        class: Class,
        first: Option<(SlotId, Permit<'a>)>,
    ) -> Result<Option<(SlotId, Permit<'a>)>, Error> {
        let mut waited = Waited::No;
        let mut taken = first.map(|(slot, permit)| (slot, Some(permit)));
        loop {
            let (slot, permit) = match taken.take() {
                Some(taken) => taken,
                None => {
                    waited = Waited::Yes;
                    match self.slot_and_permit(renewal, class).await? {
                        Some(taken) => taken,
                        None => return Ok(None),
                    }
                }
            };
            // Much may have changed while it waited.
            let stands = self.may_still_log_in(renewal, leased, waited).await;
            if let (Ok(Stands::Yes), Some(permit)) = (&stands, permit) {
                return Ok(Some((slot, permit)));
            }
            self.guards.budget.give_back(slot).await;
            match stands? {
                Stands::Yes => {}
                Stands::No => return Ok(None),
                Stands::InDoubt => {
                    if !self
                        .outlast_doubt_of_a_pair(renewal, leased.entry())
                        .await?
                    {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// A slot of the budget, and the right to call the host, which is `None` if the host has begun to rest.
    /// Returns `None` if no caller waits for the login any more.
    pub(super) async fn slot_and_permit(
        &self,
        renewal: &Renewal,
        class: Class,
    ) -> Result<Option<(SlotId, Option<Permit<'_>>)>, Error> {
        let own = &self.guards.login_backoff;
        let mut permit = Some(self.permit(renewal, own).await?);
        let mut slot = pin!(self.guards.budget.take(class, renewal));
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
        let permit = permit.or_else(|| self.guards.backoff.pass_now());
        Ok(Some((slot, permit)))
    }

    /// Whether a login for the pair in `leased` is still in order, and outlasted by the lease.
    async fn may_still_log_in(
        &self,
        renewal: &Renewal,
        leased: &Leased,
        waited: Waited,
    ) -> Result<Stands, Error> {
        let (hold, entry) = (leased.hold(), leased.entry());
        self.check_suspended(renewal, entry).await?;
        if entry.record.is_some() && self.vault.is_in_doubt() {
            return Ok(Stands::InDoubt);
        }
        let is_overtaken = match waited {
            Waited::Yes => self.is_overtaken(renewal, hold, entry).await?,
            Waited::No => false,
        };
        match is_overtaken || !self.may_call(&renewal.principal, hold).await? {
            true => Ok(Stands::No),
            false => Ok(Stands::Yes),
        }
    }

    /// Refuses a principal that holds a pair while logins are suspended; a probe passes. Asks the store,
    /// because another process may have suspended them.
    async fn check_suspended(&self, renewal: &Renewal, entry: &Entry) -> Result<(), Error> {
        let holds_a_pair = entry.record.is_some();
        let guard = &self.guards.mass_rejection;
        if holds_a_pair
            && renewal.ask.probing != Probing::ByLogin
            && guard.hold(&renewal.principal, entry).await?
        {
            return Err(guard.refusal());
        }
        Ok(())
    }

    /// A login that a breaker let through was not sent: another may be.
    pub(super) async fn give_breaker_back(&self, key: Key, class: Class) {
        let breakers = &self.guards.breakers;
        if key.instance.is_some()
            && let Err(error) = breakers.not_tried(key.fingerprint, class).await
        {
            tracing::debug!(%error, "a login that was not sent could not be told to the breaker");
        }
    }

    /// It was not sent, because its host cannot be reached.
    fn login_not_sent(&self, renewal: &Renewal, permit: Permit<'_>, reply: &Reply, took: Duration) {
        self.count(renewal, Grant::Login, RenewalResult::Failed, took);
        let error = reply.error();
        let own = &self.guards.login_backoff;
        call_failed(renewal, own, permit, reply.failure(), &error);
        renewal.set_last_error(error);
    }

    /// Whether a pair was rejected for no reason that is known here, so that another program may have
    /// logged its principal in.
    fn is_displaced(&self, found: &Found) -> bool {
        let entry = found.entry();
        found.was_rejected_for_no_reason()
            && !self.guards.mass_rejection.has_outlived(entry)
            && self.guards.contested.would_show(&self.vault, entry)
    }
}

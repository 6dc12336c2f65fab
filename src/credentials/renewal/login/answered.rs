//! What the answer to a login means: for its principal, for the guards, and for the slot that it took.

use std::time::Duration;

use crate::credentials::Error;
use crate::credentials::engine::Engine;
use crate::credentials::guards::backoff::Permit;
use crate::credentials::renewal::identity::Key;
use crate::credentials::renewal::leased::Leased;
use crate::credentials::renewal::permits::{call_answered, call_failed};
use crate::credentials::renewal::renewals::{Outcome, Renewal};
use crate::credentials::renewal::token_endpoint::Reply;
use crate::credentials::vault::commit::NewPair;
use crate::credentials::vault::pair::Pair;
use crate::damoov::auth::Answer;
use crate::metrics::{Grant, RenewalResult};
use crate::store::{Entry, Note, Rejected, SlotId};

/// A login that was sent.
pub(super) struct Sent<'a> {
    pub(super) key: Key,
    pub(super) slot: SlotId,
    pub(super) permit: Permit<'a>,
    /// How long it took.
    pub(super) took: Duration,
}

impl Engine {
    /// A login was sent, and answered or lost.
    pub(super) async fn login_ended(
        &self,
        renewal: &Renewal,
        leased: &Leased,
        sent: Sent<'_>,
        reply: Reply,
    ) -> Outcome {
        let slot = sent.slot;
        if let Reply::Answered(Answer::Limited { retry_after }) = reply {
            self.count(renewal, Grant::Login, RenewalResult::Limited, sent.took);
            // It is logins that are limited, not the host that is ill.
            drop(sent.permit);
            let retry_after = self.guards.budget.limited(slot, retry_after).await;
            return Err(Error::LoginBlocked { retry_after });
        }
        // A pair that was received does not wait until the slot's end is written.
        let learnt = self.login_answered(renewal, leased, sent, reply);
        let (outcome, ()) = tokio::join!(learnt, self.guards.budget.end(slot));
        outcome
    }

    async fn login_answered(
        &self,
        renewal: &Renewal,
        leased: &Leased,
        sent: Sent<'_>,
        reply: Reply,
    ) -> Outcome {
        let Sent {
            key, permit, took, ..
        } = sent;
        let own = &self.guards.login_backoff;
        let count = |result| self.count(renewal, Grant::Login, result, took);
        match reply {
            Reply::Answered(Answer::Granted(grant))
                if self.vault.is_whole(&renewal.principal, &grant) =>
            {
                count(RenewalResult::Ok);
                call_answered(renewal, own, permit);
                let pair = Pair::from_grant(grant, None, self.vault.wall());
                let pair = pair.ok_or(Error::BadResponse)?;
                self.logged_in(renewal, leased, key, pair).await
            }
            Reply::Answered(Answer::Rejected) => {
                count(RenewalResult::Rejected);
                call_answered(renewal, own, permit);
                self.login_rejected(renewal, leased.entry(), key).await?;
                Err(Error::LoginRejected)
            }
            Reply::Answered(_) | Reply::NotSent(_) | Reply::Withheld | Reply::Lost(_) => {
                count(RenewalResult::Failed);
                let error = reply.error();
                call_failed(renewal, own, permit, reply.failure(), &error);
                Err(error)
            }
        }
    }

    async fn logged_in(&self, renewal: &Renewal, leased: &Leased, key: Key, pair: Pair) -> Outcome {
        let principal = &renewal.principal;
        let new = NewPair {
            principal,
            entry: leased.entry(),
            instance: key.instance,
            lease: Some(leased.hold()),
        };
        let on_error = |error| renewal.set_last_error(error);
        let committed = self.vault.commit_login(new, pair, on_error).await;
        if let Some(instance) = key.instance {
            self.guards.breakers.close(instance, key.fingerprint).await;
        }
        if let Err(error) = self.guards.mass_rejection.logged_in(principal).await {
            tracing::warn!(%error, "the guard against mass rejections could not record a login");
        }
        let displaced = Note::Displaced(self.vault.wall());
        if self.is_displaced(leased.found())
            && let Err(error) = self.vault.note(principal, displaced).await
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
        {
            let breakers = &self.guards.breakers;
            breakers.rejected(instance, key.fingerprint).await?;
        }
        let remembered = self.current.now().settings.remember_rejected;
        let rejected = Rejected {
            until: self.vault.wall().plus(remembered),
            with: key.fingerprint,
        };
        self.vault
            .note(&renewal.principal, Note::Rejected(rejected))
            .await
    }
}

//! Pairs that did not come of a renewal, and pairs that are to be no more: a registration's answer
//! is taken into the store, a user that was deleted or moved is forgotten.

use std::sync::Arc;

use super::engine::{Engine, Made};
use super::flights::Outcome;
use super::pair::Pair;
use super::{Credentials, Error, Provider};
use crate::damoov::auth::Grant;
use crate::metrics::StoreOperation;
use crate::principal::{InstanceId, Principal};

impl Provider {
    /// Makes the tokens that a registration of `principal` brought its newest, whatever is there:
    /// a login saved. Durable when it returns; goes on to its end when the caller hangs up. Waits
    /// at most `wait`.
    ///
    /// # Errors
    ///
    /// [`Error::BadResponse`]: no access token, or another user's. [`Error::StoreUnavailable`]: not
    /// durable; it is tried on.
    pub async fn adopt(
        &self,
        principal: &Principal,
        instance: Option<InstanceId>,
        grant: Grant,
    ) -> Result<Arc<Credentials>, Error> {
        let engine = &self.engine;
        if !engine.is_whole(principal, &grant) {
            return Err(Error::BadResponse);
        }
        let pair = Pair::from_grant(grant, None, engine.wall()).ok_or(Error::BadResponse)?;
        let adoption = engine.see_through({
            let (engine, principal) = (engine.clone(), principal.clone());
            async move { engine.adopt_pair(&principal, instance, &pair).await }
        });
        let wait = engine.clock.to_real(engine.settings.wait);
        match tokio::time::timeout(wait, adoption).await {
            Ok(Ok(adopted)) => adopted?.ok_or(Error::BadResponse),
            // The runtime is gone.
            Ok(Err(_)) => Err(Error::Closing),
            Err(_) => Err(match engine.store.writable() {
                Err(error) => error.into(),
                Ok(()) => Error::WaitedTooLong,
            }),
        }
    }

    /// Drops the pair and all notes, here at once and in every process within a second, and ends
    /// what was handed out: the epoch is raised. Durable when it returns.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`].
    pub async fn forget(&self, principal: &Principal) -> Result<(), Error> {
        let forgotten = self.engine.store.forget(principal).await;
        self.engine.counted(StoreOperation::Note, forgotten)?;
        self.engine.cache.forget(principal);
        Ok(())
    }
}

impl Engine {
    /// Commits `pair` on top of whatever stands there. Without a lease: those are the run's, not
    /// the task's, so that giving one back here would take it from a flight of the same principal.
    /// A renewal under way, here or elsewhere, finds itself superseded.
    async fn adopt_pair(
        &self,
        principal: &Principal,
        instance: Option<InstanceId>,
        pair: &Pair,
    ) -> Outcome {
        self.mass_rejection.logged_in(principal);
        let mut entry = self.load(principal).await?;
        loop {
            let made = self.make_durable(principal, &entry, instance, pair, |_| {});
            match made.await? {
                Made::Durable(credentials) => return Ok(credentials),
                Made::Superseded(now) => entry = now,
            }
        }
    }
}

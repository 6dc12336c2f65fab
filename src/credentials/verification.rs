//! Whether stored pairs are good: refreshes them as the keeper does, one at a time, and never logs a
//! principal in. For a command that runs beside a proxy or before its start.

use std::sync::Arc;

use super::Error;
use super::engine::{Engine, Parts};
use super::explain::Stored;
use super::renewal::renewals::{Ask, Probing, Running};
use super::vault::hold::Leasing;
use crate::metrics::Trigger;
use crate::principal::Principal;
use crate::store::{Entry, LeaseId};

/// Refreshes pairs that no request asked for.
pub struct Verifier {
    engine: Arc<Engine>,
}

/// What came of one refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// It succeeded, here or in a running proxy; the new pair is stored.
    Refreshed,
    /// The API rejects the RefreshToken.
    Rejected,
    /// A running proxy is renewing the pair.
    Busy,
    /// The refresh ended in a way that says nothing about the pair.
    Failed(Error),
}

impl Verifier {
    /// With an engine that does nothing by itself.
    pub fn new(parts: Parts<'_>) -> Verifier {
        let engine = Engine::new(parts);
        Verifier { engine }
    }

    /// What is known of the pair in `entry`.
    pub fn stored(&self, principal: &Principal, entry: &Entry) -> Stored {
        Stored::of(&self.engine.vault.ring, principal, entry)
    }

    /// Refreshes the pair of `principal`. Must not be cancelled: the answer to a refresh under way would
    /// be lost, which costs a login.
    pub async fn verify(&self, principal: &Principal) -> Verified {
        match self.refresh(principal).await {
            Ok(verified) => verified,
            Err(error) => Verified::Failed(error),
        }
    }

    async fn refresh(&self, principal: &Principal) -> Result<Verified, Error> {
        let engine = &self.engine;
        // A success is to end a suspension that other processes saw.
        engine.guards.mass_rejection.follow().await?;
        let before = engine.vault.load(principal).await?;
        let ask = Ask {
            instance: None,
            newer_than: Some(before.generation),
            trigger: Trigger::Keep,
            probing: Probing::No,
        };
        let Running::Started(renewal, completion) = engine.renewals.join_or_start(principal, ask)
        else {
            return Ok(Verified::Busy);
        };
        // No caller waits for this renewal, so that it does not log in.
        let outcome = engine.run(&renewal).await;
        drop(completion);
        if outcome?.is_some() {
            return Ok(Verified::Refreshed);
        }
        let after = engine.vault.load(principal).await?;
        if after.generation > before.generation {
            return Ok(Verified::Refreshed);
        }
        // It gave way to the holder of the lease, or was rejected.
        let id = LeaseId::fresh();
        let leasing = engine.vault.lease(principal, id, engine.lease_time());
        Ok(match leasing.await? {
            Leasing::Theirs { .. } => Verified::Busy,
            Leasing::Ours { hold, .. } => {
                engine.vault.release(principal, &hold);
                Verified::Rejected
            }
        })
    }
}

//! Waits for a renewal, for one caller.

use std::sync::Arc;

use super::renewals::Ask;
use crate::credentials::engine::Engine;
use crate::credentials::{Credentials, Error};
use crate::principal::{InstanceId, Principal};

impl Engine {
    /// Joins the renewal of `principal`, or starts one, and waits for its end, at most `wait`. If this is
    /// dropped, the renewal notices.
    pub(crate) async fn wait_for(
        self: &Arc<Self>,
        principal: &Principal,
        ask: Ask,
    ) -> Result<Arc<Credentials>, Error> {
        let deadline = self.clock.now().plus(self.current.now().settings.wait);
        loop {
            let renewal = self.join_or_start_for_caller(principal, ask.clone(), deadline);
            let left = self.clock.to_real(deadline.since(self.clock.now()));
            let Ok(outcome) = tokio::time::timeout(left, renewal.ended()).await else {
                return Err(renewal.last_error());
            };
            match outcome {
                Ok(Some(found))
                    if renewal.is_newer(&found, ask.newer_than)
                        || self.vault.cache.is_suppressed(principal) =>
                {
                    return self.found_for(ask.instance, found);
                }
                // It was started for less than this caller needs, or for another instance: once more.
                Ok(_) => {}
                Err(_) if renewal.ask.instance != ask.instance => {}
                Err(error) => return Err(error),
            }
            if self.clock.now() >= deadline {
                return Err(renewal.last_error());
            }
        }
    }

    /// A user known under another instance than the one named, or under one that is configured no longer, is
    /// an error.
    pub(crate) fn found_for(
        &self,
        asked: Option<InstanceId>,
        found: Arc<Credentials>,
    ) -> Result<Arc<Credentials>, Error> {
        match (asked, found.instance) {
            (Some(asked), Some(known)) if asked != known => Err(Error::InstanceMismatch),
            (_, Some(known)) if !self.current.has(known) => Err(Error::InstanceGone),
            _ => Ok(found),
        }
    }
}

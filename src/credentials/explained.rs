//! The explanation of a principal by the process that serves it.

use super::explain::{Explanation, Inquiry, explain};
use super::{Error, Provider};
use crate::principal::Principal;

impl Provider {
    /// Everything that the store tells of `principal`, and what follows from it. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`].
    pub async fn explain(&self, principal: &Principal) -> Result<Explanation, Error> {
        let engine = &self.engine;
        let (store, configured) = (&engine.vault.store, engine.current.now());
        let entry = store.load(principal).await?;
        let inquiry = Inquiry {
            settings: &configured.settings,
            directory: &configured.directory,
            ring: &engine.vault.ring,
            principal,
            entry: &entry,
            budget: &engine.guards.budget.state().await?,
            lease: store.lease_holder(principal).await?,
            condition: &store.condition(),
            now: store.stamp(),
        };
        let guard = |name: String| {
            let store = store.clone();
            async move { store.guard(&name).await }
        };
        Ok(explain(&inquiry, guard).await?)
    }
}

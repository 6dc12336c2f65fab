//! What a running engine tells of its principals, beside the explanation of one: for people who look.

use super::vault::census::Census;
use super::{Error, Provider};
use crate::clock::Timestamp;
use crate::store::{Cursor, Listed, LoginBudget, Page};

impl Provider {
    /// The state of the login budget, as its windows are configured.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`].
    pub async fn login_budget(&self) -> Result<LoginBudget, Error> {
        self.engine.guards.budget.state().await
    }

    /// At most `limit` principals that the store knows, those after the place `after`, as of now.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`].
    pub async fn list(
        &self,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<(Page, Timestamp), Error> {
        let store = &self.engine.vault.store;
        let page = store.list(Listed::Known, after, limit).await?;
        Ok((page, store.now()))
    }

    /// The credentials in memory by their freshness, as of a moment ago.
    pub fn census(&self) -> Census {
        let vault = &self.engine.vault;
        vault.census.look(|| vault.cache.census())
    }

    /// Bytes that credentials take in memory now, and may take.
    pub fn memory(&self) -> (u64, u64) {
        let engine = &self.engine;
        let limit = engine.current.now().settings.max_cached;
        (engine.vault.cache.bytes() as u64, limit)
    }
}

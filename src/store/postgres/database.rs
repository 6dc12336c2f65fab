//! What the server does with entries, as those see it who must know what it has acknowledged.

use std::time::Duration;

use async_trait::async_trait;

use crate::principal::Principal;
use crate::store::{Commit, Day, Entry, Error, Lease, LeaseId, Note, Record, Restored, Version};

/// The methods of [`Store`] on entries, as plain SQL: what the server did not acknowledge is an error.
///
/// [`Store`]: crate::store::Store
#[async_trait]
pub(super) trait Database: Send + Sync + 'static {
    /// [`Store::load`](crate::store::Store::load).
    async fn load(&self, principal: &Principal) -> Result<Entry, Error>;

    /// [`Store::lease`](crate::store::Store::lease).
    async fn lease(
        &self,
        principal: &Principal,
        id: LeaseId,
        ttl: Duration,
    ) -> Result<(Lease, Result<Entry, Error>), Error>;

    /// [`Store::commit`](crate::store::Store::commit).
    async fn commit(
        &self,
        principal: &Principal,
        record: Record,
        over: Version,
        lease: Option<LeaseId>,
    ) -> Result<Commit, Error>;

    /// [`Store::note`](crate::store::Store::note).
    async fn note(&self, principal: &Principal, note: Note) -> Result<(), Error>;

    /// [`Store::forget`](crate::store::Store::forget), or with `unused_since`
    /// [`Uses::forget_unused`](crate::store::Uses::forget_unused); returns the version that stands then,
    /// `None` if nothing was dropped.
    async fn forget(
        &self,
        principal: &Principal,
        unused_since: Option<Day>,
    ) -> Result<Option<Version>, Error>;

    /// [`Store::restore`](crate::store::Store::restore).
    async fn restore(&self, entries: Vec<(Principal, Entry)>) -> Result<Vec<Restored>, Error>;

    /// Returns what stands for each of these principals, in any order.
    async fn standing(&self, of: &[Principal]) -> Result<Vec<(Principal, Entry)>, Error>;
}

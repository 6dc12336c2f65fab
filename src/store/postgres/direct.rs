//! The server itself, without what is kept beside it.

use std::time::Duration;

use async_trait::async_trait;

use super::batch::Queue;
use super::database::Database;
use super::entries::Entries;
use super::leases::{Answer, Asked, Leases};
use crate::principal::Principal;
use crate::store::{Commit, Day, Entry, Error, Lease, LeaseId, Note, Record, Restored, Version};

/// What is asked of the server about entries.
pub(super) struct Direct {
    pub(super) entries: Entries,
    /// Taken, extended and released in groups.
    pub(super) leases: Queue<Leases>,
}

#[async_trait]
impl Database for Direct {
    async fn load(&self, principal: &Principal) -> Result<Entry, Error> {
        self.entries.load(principal).await
    }

    async fn lease(
        &self,
        principal: &Principal,
        id: LeaseId,
        ttl: Duration,
    ) -> Result<(Lease, Result<Entry, Error>), Error> {
        match self.leases.ask(principal, Asked::Take(id, ttl)).await? {
            Answer::Taken(lease, entry) => Ok((lease, *entry)),
            Answer::Extended(_) | Answer::Released => Err(Error::Closed),
        }
    }

    async fn commit(
        &self,
        principal: &Principal,
        record: Record,
        over: Version,
        lease: Option<LeaseId>,
    ) -> Result<Commit, Error> {
        self.entries.commit(principal, record, over, lease).await
    }

    async fn note(&self, principal: &Principal, note: Note) -> Result<(), Error> {
        self.entries.note(principal, note).await
    }

    async fn forget(
        &self,
        principal: &Principal,
        unused_since: Option<Day>,
    ) -> Result<Option<Version>, Error> {
        self.entries.forget(principal, unused_since).await
    }

    async fn restore(&self, entries: Vec<(Principal, Entry)>) -> Result<Vec<Restored>, Error> {
        self.entries.restore(entries).await
    }

    async fn standing(&self, of: &[Principal]) -> Result<Vec<(Principal, Entry)>, Error> {
        self.entries.standing(of).await
    }
}

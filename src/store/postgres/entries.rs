//! Entries, one by one as callers ask for them, and many at a time as the server is asked.
//!
//! All transactions that write share a lock, which a forget has alone ([`super::tombstones`]). They lock rows in
//! one order, so that no two wait for each other: uses, then entries, both sorted by principal; then leases, sorted by principal. What follows from an entry is locked after it: its rows in
//! `due` and `rejections`, and the end of the feed. Keepers claim rows of `due` without their entries, and
//! so wait for no lock.

use std::collections::HashSet;
use std::sync::Arc;

use tokio_postgres::types::Type;

use super::batch::Queue;
use super::columns::LOCK;
use super::commits::{Commits, Proposal};
use super::link::Link;
use super::loads::{self, Loads};
use super::notes::Noting;
use super::restores;
use super::session::Statement;
use super::tombstones;
use crate::principal::Principal;
use crate::store::{
    Commit, Day, Entry, Error, LeaseId, Note, Pseudonyms, Record, Resealed, Restored, Tombstone,
    Version,
};

/// The entries of the store.
pub(super) struct Entries {
    link: Link,
    pseudonyms: Pseudonyms,
    loads: Queue<Loads>,
    commits: Queue<Commits>,
    notes: Queue<Noting>,
}

const RESEAL: &str = "UPDATE entries SET sealed = anew.sealed, key_id = anew.key_id
    FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::bytea[])
        AS anew (principal, before, sealed, key_id)
    WHERE entries.principal = anew.principal AND entries.sealed = anew.before
    RETURNING entries.principal";
const KEY_FOLLOWS: &str = "UPDATE due SET key_id = entries.key_id FROM entries
    WHERE due.principal = ANY($1) AND entries.principal = due.principal
        AND entries.key_id <> due.key_id";
/// The most tombstones that are raised in one transaction.
const BURIED_AT_ONCE: usize = 500;
/// The most records that are sealed anew in one transaction.
const RESEALED_AT_ONCE: usize = 100;

impl Entries {
    /// Starts what writes in groups, on the runtime that this is called on.
    pub(super) fn start(link: Link, pseudonyms: Pseudonyms) -> Entries {
        let loads = Loads {
            link: link.clone(),
            pseudonyms: pseudonyms.clone(),
        };
        let commits = Commits {
            link: link.clone(),
            pseudonyms: pseudonyms.clone(),
        };
        Entries {
            loads: Queue::start(Arc::new(loads)),
            commits: Queue::start(Arc::new(commits)),
            notes: Queue::start(Arc::new(Noting(link.clone()))),
            link,
            pseudonyms,
        }
    }

    /// As [`crate::store::Store::load`].
    pub(super) async fn load(&self, principal: &Principal) -> Result<Entry, Error> {
        self.loads.ask(principal, ()).await?
    }

    /// What stands for each of `principals`, in any order. An entry that is damaged counts as nothing.
    pub(super) async fn standing(
        &self,
        principals: &[Principal],
    ) -> Result<Vec<(Principal, Entry)>, Error> {
        loads::standing(&self.link, &self.pseudonyms, principals).await
    }

    /// As [`crate::store::Store::commit`], straight to the server.
    pub(super) async fn commit(
        &self,
        principal: &Principal,
        record: Record,
        over: Version,
        lease: Option<LeaseId>,
    ) -> Result<Commit, Error> {
        let proposal = Proposal::new(record, over, lease);
        self.commits.ask(principal, proposal).await?
    }

    /// As [`crate::store::Store::note`].
    pub(super) async fn note(&self, principal: &Principal, note: Note) -> Result<(), Error> {
        self.notes.ask(principal, note.into()).await
    }

    /// As [`crate::store::Store::forget`], or with `unused_since`
    /// [`crate::store::Uses::forget_unused`]; returns the version of the tombstone, if there was something
    /// to drop.
    pub(super) async fn forget(
        &self,
        principal: &Principal,
        unused_since: Option<Day>,
    ) -> Result<Option<Version>, Error> {
        tombstones::forget(&self.link, &self.pseudonyms, principal, unused_since).await
    }

    /// As [`crate::store::Store::bury`].
    pub(super) async fn bury(&self, tombstones: Vec<Tombstone>) -> Result<Vec<Restored>, Error> {
        let mut raised = HashSet::new();
        for tombstones in tombstones.chunks(BURIED_AT_ONCE) {
            raised.extend(tombstones::raise(&self.link, tombstones).await?);
        }
        let became = |tombstone: &Tombstone| match raised.contains(&tombstone.pseudonym) {
            true => Restored::Written,
            false => Restored::Kept,
        };
        Ok(tombstones.iter().map(became).collect())
    }

    /// As [`crate::store::Store::restore`].
    pub(super) async fn restore(
        &self,
        entries: Vec<(Principal, Entry)>,
    ) -> Result<Vec<Restored>, Error> {
        restores::restore(&self.link, &self.pseudonyms, &entries).await
    }

    /// As [`crate::store::Store::reseal`].
    pub(super) async fn reseal(&self, resealed: Vec<Resealed>) -> Result<usize, Error> {
        let mut replaced = 0;
        for resealed in resealed.chunks(RESEALED_AT_ONCE) {
            replaced += self.reseal_at_once(resealed).await?;
        }
        Ok(replaced)
    }

    async fn reseal_at_once(&self, resealed: &[Resealed]) -> Result<usize, Error> {
        let keys: Vec<String> = resealed.iter().map(|it| it.principal.to_string()).collect();
        let before: Vec<&[u8]> = resealed.iter().map(|it| it.before.as_slice()).collect();
        let sealed: Vec<&[u8]> = resealed.iter().map(|it| it.sealed.as_slice()).collect();
        let key_ids: Vec<&[u8]> = resealed.iter().map(|it| it.key.0.as_slice()).collect();
        let principals = [(&keys as _, Type::TEXT_ARRAY)];
        let all = [
            (&keys as _, Type::TEXT_ARRAY),
            (&before as _, Type::BYTEA_ARRAY),
            (&sealed as _, Type::BYTEA_ARRAY),
            (&key_ids as _, Type::BYTEA_ARRAY),
        ];
        let done = self.link.write([
            Statement {
                sql: LOCK,
                parameters: &principals,
            },
            Statement {
                sql: RESEAL,
                parameters: &all,
            },
            Statement {
                sql: KEY_FOLLOWS,
                parameters: &principals,
            },
        ]);
        let [_, replaced, _] = done.await?;
        Ok(replaced.len())
    }

    /// Finishes what was asked.
    pub(super) async fn close(&self) {
        self.loads.close().await;
        self.notes.close().await;
        self.commits.close().await;
    }
}

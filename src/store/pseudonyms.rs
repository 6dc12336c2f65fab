//! A store whose tombstones hold no DeviceToken: what is left of a user who was forgotten, its generation and
//! epoch, stands under a pseudonym, a keyed hash in the form of a DeviceToken. Whoever has the key and asks
//! for the user finds it; whoever reads the store alone learns nothing.
//!
//! ```text
//!   forget ──▶ a tombstone under the user's own name, which the other processes hear of
//!                 │ bury, once they have          ▲ unearth, before it is written again
//!                 ▼                               │
//!              a tombstone under the pseudonym ───┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use tokio::sync::mpsc;

use super::{
    Budgets, Change, Class, Commit, Condition, Cursor, Day, Entry, Error, Guard, GuardRows,
    Guarded, KeyId, Lease, LeaseHolder, LeaseId, Listed, LoginBudget, LoginWindows, Note, Page,
    Record, Resealed, Restored, Slot, SlotId, Store, StoreClock, Unused, Uses, Version,
};
use crate::clock::{Stamp, Timestamp};
use crate::principal::Principal;

/// The pseudonyms of a principal, one for each key that tombstones may have been buried with, the current
/// one first. None of a principal whose name may stand.
pub type PseudonymsOf = Arc<dyn Fn(&Principal) -> Vec<Principal> + Send + Sync>;

/// A store that finds tombstones under pseudonyms.
pub struct Pseudonymous {
    store: Arc<dyn Store>,
    pseudonyms_of: PseudonymsOf,
}

impl Pseudonymous {
    /// `store`, with these pseudonyms.
    pub fn new(store: Arc<dyn Store>, pseudonyms_of: PseudonymsOf) -> Pseudonymous {
        Pseudonymous {
            store,
            pseudonyms_of,
        }
    }

    /// The tombstone of `principal` under one of its pseudonyms, and under which.
    async fn buried(&self, principal: &Principal) -> Result<Option<(Principal, Version)>, Error> {
        let pseudonyms = (self.pseudonyms_of)(principal);
        let loads = pseudonyms
            .iter()
            .map(|pseudonym| self.store.load(pseudonym));
        let entries = try_join_all(loads).await?;
        let versions = entries.iter().map(Entry::version);
        let buried = pseudonyms.into_iter().zip(versions);
        Ok(buried
            .filter(|(_, version)| *version != Version::default())
            .max_by_key(|(_, version)| (version.epoch, version.generation)))
    }

    /// What is known of `principal`, if `entry` stands under its own name.
    async fn known(&self, principal: &Principal, entry: Entry) -> Result<Entry, Error> {
        // Whoever holds a pair was unearthed when it was committed.
        if entry.record.is_some() {
            return Ok(entry);
        }
        Ok(match self.buried(principal).await? {
            Some((_, version)) if version.epoch > entry.epoch => tombstone(version),
            _ => entry,
        })
    }

    /// Lets the tombstone of `principal`, if there is one, stand under its own name again. Returns whether
    /// there was one.
    async fn unearth(&self, principal: &Principal) -> Result<bool, Error> {
        match self.buried(principal).await? {
            Some((pseudonym, _)) => {
                let moved = vec![(pseudonym, principal.clone())];
                Ok(self.store.move_tombstones(moved).await? > 0)
            }
            None => Ok(false),
        }
    }
}

/// What a forget left.
fn tombstone(version: Version) -> Entry {
    Entry {
        generation: version.generation,
        epoch: version.epoch,
        ..Entry::default()
    }
}

impl StoreClock for Pseudonymous {
    fn stamp(&self) -> Stamp {
        self.store.stamp()
    }
}

#[async_trait]
impl Store for Pseudonymous {
    async fn load(&self, principal: &Principal) -> Result<Entry, Error> {
        let entry = self.store.load(principal).await?;
        self.known(principal, entry).await
    }

    async fn lease(
        &self,
        principal: &Principal,
        id: LeaseId,
        ttl: Duration,
    ) -> Result<(Lease, Result<Entry, Error>), Error> {
        let (lease, entry) = self.store.lease(principal, id, ttl).await?;
        let entry = match entry {
            Ok(entry) => self.known(principal, entry).await,
            Err(error) => Err(error),
        };
        Ok((lease, entry))
    }

    async fn extend(
        &self,
        principal: &Principal,
        id: LeaseId,
        ttl: Duration,
    ) -> Result<bool, Error> {
        self.store.extend(principal, id, ttl).await
    }

    fn release(&self, principal: &Principal, id: LeaseId) {
        self.store.release(principal, id);
    }

    async fn commit(
        &self,
        principal: &Principal,
        record: Record,
        over: Version,
        lease: Option<LeaseId>,
    ) -> Result<Commit, Error> {
        let committed = self.store.commit(principal, record.clone(), over, lease);
        match committed.await? {
            // What it was to be committed over may lie under a pseudonym.
            Commit::Superseded(stands) if stands.record.is_none() && stands.version() != over => {
                match self.unearth(principal).await? {
                    true => self.store.commit(principal, record, over, lease).await,
                    false => Ok(Commit::Superseded(stands)),
                }
            }
            committed => Ok(committed),
        }
    }

    async fn note(&self, principal: &Principal, note: Note) -> Result<(), Error> {
        match note {
            // Of principals without a pair, which may have been forgotten.
            Note::Rejected(_) | Note::RegisteredIn(_) => {
                self.unearth(principal).await?;
            }
            Note::RefreshDead(_)
            | Note::RefreshAlive
            | Note::AnswerLost(_)
            | Note::Displaced(_)
            | Note::ContestedUntil(_)
            | Note::SuppressedUntil(_) => {}
        }
        self.store.note(principal, note).await
    }

    async fn drop_rejected(
        &self,
        now: Timestamp,
        latest: Timestamp,
        limit: usize,
    ) -> Result<usize, Error> {
        self.store.drop_rejected(now, latest, limit).await
    }

    async fn forget(&self, principal: &Principal) -> Result<bool, Error> {
        self.store.forget(principal).await
    }

    async fn restore(&self, entries: Vec<(Principal, Entry)>) -> Result<Vec<Restored>, Error> {
        let buried = entries.iter().map(|(principal, _)| self.buried(principal));
        let buried = try_join_all(buried).await?;
        let (mut moved, mut wanted, mut places) = (Vec::new(), Vec::new(), Vec::new());
        let count = entries.len();
        for (place, ((principal, entry), buried)) in entries.into_iter().zip(buried).enumerate() {
            if let Some((pseudonym, version)) = buried {
                if !entry.outranks(&tombstone(version)) {
                    continue;
                }
                moved.push((pseudonym, principal.clone()));
            }
            wanted.push((principal, entry));
            places.push(place);
        }
        if !moved.is_empty() {
            self.store.move_tombstones(moved).await?;
        }
        let mut restored = vec![Restored::Kept; count];
        for (place, what) in places.into_iter().zip(self.store.restore(wanted).await?) {
            restored[place] = what;
        }
        Ok(restored)
    }

    async fn move_tombstones(&self, moved: Vec<(Principal, Principal)>) -> Result<usize, Error> {
        self.store.move_tombstones(moved).await
    }

    async fn tombstones_in_clear(&self, limit: usize) -> Result<Vec<Principal>, Error> {
        self.store.tombstones_in_clear(limit).await
    }

    fn changes(&self) -> mpsc::UnboundedReceiver<Change> {
        self.store.changes()
    }

    async fn claim_due(
        &self,
        before: Timestamp,
        limit: usize,
        hold: Duration,
    ) -> Result<Vec<Principal>, Error> {
        self.store.claim_due(before, limit, hold).await
    }

    async fn list(
        &self,
        listed: Listed,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        self.store.list(listed, after, limit).await
    }

    async fn reseal(&self, resealed: Vec<Resealed>) -> Result<usize, Error> {
        self.store.reseal(resealed).await
    }

    async fn keys(&self) -> Result<Vec<(KeyId, u64)>, Error> {
        self.store.keys().await
    }

    async fn count(&self) -> Result<u64, Error> {
        self.store.count().await
    }

    async fn canary(&self) -> Result<Option<Vec<u8>>, Error> {
        self.store.canary().await
    }

    async fn leave_canary(&self, fresh: Vec<u8>) -> Result<Vec<u8>, Error> {
        self.store.leave_canary(fresh).await
    }

    async fn replace_canary(&self, stands: Vec<u8>, fresh: Vec<u8>) -> Result<bool, Error> {
        self.store.replace_canary(stands, fresh).await
    }

    async fn lease_holder(&self, principal: &Principal) -> Result<Option<LeaseHolder>, Error> {
        self.store.lease_holder(principal).await
    }

    fn writable(&self) -> Result<(), Error> {
        self.store.writable()
    }

    fn condition(&self) -> Condition {
        self.store.condition()
    }
}

#[async_trait]
impl Uses for Pseudonymous {
    async fn mark_used(&self, users: Vec<Principal>, day: Day) -> Result<usize, Error> {
        self.store.mark_used(users, day).await
    }

    async fn mark_unknown(&self, users: Vec<Principal>, day: Day) -> Result<usize, Error> {
        self.store.mark_unknown(users, day).await
    }

    async fn forget_unused(&self, before: Day, limit: usize) -> Result<Unused, Error> {
        self.store.forget_unused(before, limit).await
    }
}

#[async_trait]
impl Budgets for Pseudonymous {
    async fn take_login(
        &self,
        id: SlotId,
        class: Class,
        windows: &LoginWindows,
    ) -> Result<Slot, Error> {
        self.store.take_login(id, class, windows).await
    }

    async fn end_login(&self, group: &str, id: SlotId) -> Result<(), Error> {
        self.store.end_login(group, id).await
    }

    async fn give_login_back(&self, group: &str, id: SlotId) -> Result<(), Error> {
        self.store.give_login_back(group, id).await
    }

    async fn block_logins(
        &self,
        group: &str,
        blocked: Duration,
        halved: Option<Duration>,
    ) -> Result<(), Error> {
        self.store.block_logins(group, blocked, halved).await
    }

    async fn unblock_logins(&self, group: &str) -> Result<bool, Error> {
        self.store.unblock_logins(group).await
    }

    async fn login_budget(&self, windows: &LoginWindows) -> Result<LoginBudget, Error> {
        self.store.login_budget(windows).await
    }
}

#[async_trait]
impl GuardRows for Pseudonymous {
    async fn guard(&self, name: &str) -> Result<Guard, Error> {
        self.store.guard(name).await
    }

    async fn set_guard(&self, name: &str, expected: u64, value: Vec<u8>) -> Result<Guarded, Error> {
        self.store.set_guard(name, expected, value).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::{first, open_in, record, run, user};
    use crate::store::{Generation, Rejected};

    /// A store in which user 1 was forgotten and lies under the pseudonym of the key that was current then,
    /// the second one, and the version that it has.
    async fn buried(folder: &tempfile::TempDir) -> (Pseudonymous, Version) {
        let store = open_in(folder.path(), run(), crate::clock::Clock::real());
        let names: PseudonymsOf = Arc::new(|principal| {
            let is_one = *principal == user(1);
            let names = is_one.then(|| vec![user(101), user(102)]);
            names.unwrap_or_default()
        });
        let store = Pseudonymous::new(store, names);
        first(&store, &user(1), record(1)).await;
        store.forget(&user(1)).await.unwrap();
        let version = store.load(&user(1)).await.unwrap().version();
        let moved = store.move_tombstones(vec![(user(1), user(102))]).await;
        assert_eq!(moved, Ok(1));
        (store, version)
    }

    #[tokio::test]
    async fn a_buried_user_is_still_forgotten_and_its_next_pair_stands_over_the_tombstone() {
        let folder = tempfile::tempdir().unwrap();
        let (store, version) = buried(&folder).await;
        assert_eq!(store.load(&user(1)).await.unwrap().version(), version);
        let (_, entry) = store
            .lease(&user(1), LeaseId::fresh(), Duration::from_secs(9))
            .await
            .unwrap();
        assert_eq!(entry.unwrap().version(), version);
        // What was under way before it was forgotten does not bring it back.
        let before = Version {
            epoch: 0,
            ..version
        };
        let late = store.commit(&user(1), record(2), before, None).await;
        assert!(matches!(late, Ok(Commit::Superseded(stands)) if stands.version() == version));
        let next = store.commit(&user(1), record(3), version, None).await;
        assert_eq!(next, Ok(Commit::Committed(Generation(2))));
        let entry = store.load(&user(1)).await.unwrap();
        assert_eq!((entry.epoch, entry.record), (1, Some(record(3))));
        assert_eq!(store.load(&user(102)).await, Ok(Entry::default()));
    }

    #[tokio::test]
    async fn what_is_noted_or_restored_of_a_buried_user_meets_its_tombstone() {
        let folder = tempfile::tempdir().unwrap();
        let (store, version) = buried(&folder).await;
        let old = Entry {
            generation: Generation(9),
            record: Some(record(9)),
            ..Entry::default()
        };
        let restored = store.restore(vec![(user(1), old)]).await;
        assert_eq!(restored, Ok(vec![Restored::Kept]), "of an earlier epoch");
        let stays = store.load(&user(102)).await.unwrap().version();
        assert_eq!(stays, version, "it is still buried");
        let rejected = Rejected {
            until: Timestamp::from_millis(7),
            with: [0; 8],
        };
        let note = Note::Rejected(rejected);
        store.note(&user(1), note).await.unwrap();
        let entry = store.load(&user(1)).await.unwrap();
        assert_eq!(
            (entry.version(), entry.notes.rejected),
            (version, Some(rejected))
        );
    }
}

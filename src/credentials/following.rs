//! What other processes, or the command line, changed is dropped from memory as the store tells of it.

use std::collections::HashMap;
use std::sync::Arc;

use super::engine::Engine;
use crate::principal::Principal;
use crate::store::{Change, Pseudonym, Version};

/// Changes that are followed together, and names that are compared before others have a turn.
const AT_ONCE: usize = 1_000;

/// Follows what the store tells, until it is closed.
pub(crate) async fn follow(engine: Arc<Engine>) {
    let mut changes = engine.vault.store.changes();
    let mut told = Vec::new();
    while changes.recv_many(&mut told, AT_ONCE).await > 0 {
        engine.follow(&told).await;
        told.clear();
    }
}

impl Engine {
    /// Drops what `changes` have overtaken. If that may be anybody's, what is in memory is looked up before a
    /// token that was handed out is believed.
    pub(crate) async fn follow(&self, changes: &[Change]) {
        let mut forgotten = HashMap::new();
        for change in changes {
            match change {
                Change::Entry { principal, version } => self.overtaken(principal, *version),
                Change::Forgotten(tombstone) => {
                    forgotten.insert(tombstone.pseudonym, tombstone.version);
                }
                Change::Everything => self.vault.cache.everything_moved(),
            }
        }
        if !forgotten.is_empty() {
            self.follow_forgotten(&forgotten).await;
        }
    }

    /// Pseudonyms do not say whose they are: that of every principal in memory is compared.
    async fn follow_forgotten(&self, forgotten: &HashMap<Pseudonym, Version>) {
        let pseudonyms = self.vault.ring.pseudonyms();
        for some in self.remembered().chunks(AT_ONCE) {
            for principal in some {
                for pseudonym in pseudonyms.all(principal) {
                    if let Some(version) = forgotten.get(&pseudonym) {
                        self.overtaken(principal, *version);
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Everybody of whom this process remembers what a change overtakes; some more than once.
    fn remembered(&self) -> Vec<Principal> {
        let mut principals = self.vault.cache.principals();
        principals.extend(self.guards.contested.principals());
        principals.extend(self.guards.mass_rejection.principals());
        principals
    }

    fn overtaken(&self, principal: &Principal, version: Version) {
        let Version { generation, epoch } = version;
        self.vault.cache.follow(principal, generation, epoch);
        self.guards.contested.follow(principal, Some(epoch));
        if let Some(rejected) = self.guards.mass_rejection.waits_with(principal)
            && rejected != (generation, epoch)
        {
            self.guards.mass_rejection.moved_on(principal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::credentials::fixture::{Medium, user};
    use crate::store::{Generation, Tombstone};

    #[tokio::test]
    async fn who_is_forgotten_elsewhere_is_found_by_its_pseudonym() {
        let process = Medium::new().start();
        let engine = &process.provider.engine;
        let cache = &engine.vault.cache;
        for n in 1..=3 {
            process.adopt(&user(n), 1).await;
        }
        for n in 3..=5 {
            cache.suppress_for(&user(n), 0, Duration::from_secs(60));
        }
        let left_of = |n| {
            let version = Version {
                generation: Generation(1),
                epoch: 1,
            };
            Change::Forgotten(Tombstone {
                pseudonym: engine.vault.ring.pseudonyms().current(&user(n)),
                version,
            })
        };
        engine.follow(&[1, 3, 5, 9].map(left_of)).await;
        let held = (1..=5).filter(|n| cache.peek(&user(*n)).is_some());
        assert_eq!(held.collect::<Vec<_>>(), [2]);
        let suppressed = (1..=5).filter(|n| cache.is_suppressed(&user(*n)));
        assert_eq!(suppressed.collect::<Vec<_>>(), [4]);
        // Who has logged in again meanwhile stays.
        process.provider.forget(&user(2)).await.unwrap();
        process.adopt(&user(2), 2).await;
        engine.follow(&[left_of(2)]).await;
        assert!(cache.peek(&user(2)).is_some());
    }
}

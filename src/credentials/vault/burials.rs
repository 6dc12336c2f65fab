//! Tombstones that stand under the names of their users until every process has heard of them; then they are
//! buried under pseudonyms.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::Vault;
use crate::principal::Principal;
use crate::store::{Change, Error};

/// Other processes hear of a change within a second.
const HEARD_WITHIN: Duration = Duration::from_secs(10);
/// On a store that other machines share, a process that was cut off may restore what it committed in the last
/// ten minutes: the tombstone is what keeps it from that.
const HEARD_WITHIN_SHARED: Duration = Duration::from_secs(15 * 60);
/// How often it is looked for tombstones that this process did not hear of.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// Tombstones that are looked for, or moved, at once.
const AT_ONCE: usize = 500;

/// Those that wait.
#[derive(Debug, Default)]
pub(crate) struct Burials {
    /// Users, and since when each is known to be forgotten.
    waiting: Mutex<HashMap<Principal, Instant>>,
    looked: Mutex<Option<Instant>>,
}

impl Burials {
    /// The store told of this. Whoever was once forgotten may be now.
    pub(crate) fn follow(&self, change: &Change) {
        if let Change::Entry { principal, version } = change
            && version.epoch > 0
        {
            self.wait_for(principal.clone());
        }
    }

    fn wait_for(&self, principal: Principal) {
        let mut waiting = self.waiting.lock().expect("no code panics under this lock");
        waiting.entry(principal).or_insert_with(Instant::now);
    }

    /// Those that have waited for so long. They wait no more.
    fn due(&self, after: Duration) -> Vec<Principal> {
        let mut waiting = self.waiting.lock().expect("no code panics under this lock");
        let due = waiting.extract_if(|_, since| since.elapsed() >= after);
        due.map(|(principal, _)| principal).collect()
    }

    /// Whether it is time to look for others.
    fn is_to_look(&self) -> bool {
        let mut looked = self.looked.lock().expect("no code panics under this lock");
        let is_due = looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY);
        if is_due {
            *looked = Some(Instant::now());
        }
        is_due
    }
}

impl Vault {
    /// Buries the tombstones that are due.
    pub(crate) async fn bury(&self) -> Result<(), Error> {
        if self.burials.is_to_look() {
            for principal in self.store.tombstones_in_clear(AT_ONCE).await? {
                self.burials.wait_for(principal);
            }
        }
        let after = match self.store.condition().shared {
            false => HEARD_WITHIN,
            true => HEARD_WITHIN_SHARED,
        };
        let due = self.burials.due(after);
        let moved = due.into_iter().filter_map(|principal| {
            let pseudonym = self.ring.pseudonyms(&principal).into_iter().next()?;
            Some((principal, pseudonym))
        });
        let moved: Vec<_> = moved.collect();
        for some in moved.chunks(AT_ONCE) {
            if let Err(error) = self.store.move_tombstones(some.to_vec()).await {
                for (principal, _) in some {
                    self.burials.wait_for(principal.clone());
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

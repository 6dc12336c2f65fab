//! A store that went back in time: a backup was restored, or a server took over that lacks the last
//! commits. What stands there is all that is left, so that memory gives way: it takes over the store's
//! numbers, and keeps of its own only a token that is good.

use std::time::Duration;

use super::Vault;
use crate::principal::Principal;
use crate::store::{Entry, Generation};
use crate::telemetry::episode::Episode;

/// The setback is over once no older entry was found for this long.
const QUIET: Duration = Duration::from_secs(60);

/// How it is logged.
pub(super) fn episode() -> Episode {
    Episode::ending_after(QUIET)
}

impl Vault {
    /// Whether `entry`, just read, is older than `known`, the newest generation that this process knew of
    /// before it read. Then memory gives way to it.
    ///
    /// Right after the store came back this is not believed: other processes may restore what it lost.
    pub(crate) fn went_back(
        &self,
        principal: &Principal,
        known: Option<Generation>,
        entry: &Entry,
    ) -> bool {
        if known.is_none_or(|known| known <= entry.generation) {
            if let Some(over) = self.setback.worked() {
                let (seconds, entries) = (over.seconds(), over.hurt);
                tracing::warn!(
                    seconds,
                    entries,
                    "no more entries of the store are older than what this process had in memory"
                );
            }
            return false;
        }
        if self.is_in_doubt() {
            return false;
        }
        self.cache.give_way(principal, entry.version());
        self.metrics.store_went_back.inc();
        if self.setback.failed() {
            tracing::warn!(
                principal = self.log_name(principal).as_str(),
                "the store went back in time: entries are older than what this process had in memory; \
                 was a backup restored, or did a server take over that lacks the last writes? Pairs \
                 that are found dead are replaced by logins, as fast as the budget allows"
            );
        }
        true
    }

    /// Whether the store came back a moment ago, so that other processes may restore what it lost.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.store.condition().doubted_for.is_some()
    }
}

#[cfg(test)]
mod tests;

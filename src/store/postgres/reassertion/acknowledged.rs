//! What the server acknowledged to this process lately: the newest entry of each principal, sealed as it
//! was sent. Knows no server.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::principal::Principal;
use crate::store::Entry;

/// No standby that is promoted lags behind for longer.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// Some twelve thousand pairs. The oldest is dropped first.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// What an entry takes besides its sealed text: the rest of it, its principal twice, both maps.
const OVERHEAD: usize = 400;

/// Entries that were acknowledged in the last 10 minutes, of at most 16 MiB.
#[derive(Debug, Default)]
pub(in crate::store::postgres) struct Acknowledged(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    entries: HashMap<Principal, Remembrance>,
    /// Whose entry was acknowledged when, in that order.
    order: BTreeMap<u64, Principal>,
    /// The last place in that order.
    last: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Remembrance {
    entry: Entry,
    place: u64,
    at: Instant,
}

impl Acknowledged {
    /// Remembers an entry that the server has acknowledged, unless a newer one of the principal is.
    pub(in crate::store::postgres) fn remember(&self, principal: &Principal, entry: Entry) {
        let mut remembered = self.locked();
        if let Some(known) = remembered.entries.get(principal)
            && known.entry.outranks(&entry)
        {
            return;
        }
        remembered.remove(principal);
        remembered.last += 1;
        let place = remembered.last;
        remembered.bytes += weight(&entry);
        remembered.order.insert(place, principal.clone());
        let remembrance = Remembrance {
            entry,
            place,
            at: Instant::now(),
        };
        remembered.entries.insert(principal.clone(), remembrance);
        remembered.expire();
    }

    /// The entry of `principal` that was acknowledged last.
    pub(in crate::store::postgres) fn of(&self, principal: &Principal) -> Option<Entry> {
        let mut remembered = self.locked();
        remembered.expire();
        let known = remembered.entries.get(principal)?;
        Some(known.entry.clone())
    }

    /// Returns up to `limit` entries in the order in which they were acknowledged, each with its place
    /// in it; the first of them after the place `after`, which is 0 at first.
    pub(super) fn page(&self, after: u64, limit: usize) -> Vec<(u64, Principal, Entry)> {
        let mut remembered = self.locked();
        remembered.expire();
        let places = remembered.order.range(after + 1..).take(limit);
        let page = places.filter_map(|(place, principal)| {
            let known = remembered.entries.get(principal)?;
            Some((*place, principal.clone(), known.entry.clone()))
        });
        page.collect()
    }

    /// Drops what is too old.
    pub(super) fn expire(&self) {
        self.locked().expire();
    }

    fn locked(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().expect("no code panics under this lock")
    }
}

impl Remembered {
    fn remove(&mut self, principal: &Principal) {
        if let Some(known) = self.entries.remove(principal) {
            self.order.remove(&known.place);
            self.bytes -= weight(&known.entry);
        }
    }

    fn expire(&mut self) {
        while let Some((_, oldest)) = self.order.first_key_value() {
            let is_too_old = self
                .entries
                .get(oldest)
                .is_none_or(|known| known.at.elapsed() >= KEPT_FOR);
            if !is_too_old && self.bytes <= MAX_BYTES {
                return;
            }
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
    }
}

fn weight(entry: &Entry) -> usize {
    let sealed = entry
        .record
        .as_ref()
        .map_or(0, |record| record.sealed.len());
    sealed + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::{record, user};
    use crate::store::{Generation, Record};

    fn pair(generation: u64) -> Entry {
        Entry {
            generation: Generation(generation),
            record: Some(record(1)),
            ..Entry::default()
        }
    }

    fn whose(acknowledged: &Acknowledged) -> Vec<Principal> {
        let page = acknowledged.page(0, usize::MAX);
        page.into_iter()
            .map(|(_, principal, _)| principal)
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_entry_of_each_is_remembered_for_ten_minutes() {
        let acknowledged = Acknowledged::default();
        acknowledged.remember(&user(1), pair(1));
        tokio::time::advance(Duration::from_secs(300)).await;
        acknowledged.remember(&user(2), pair(1));
        acknowledged.remember(&user(1), pair(2));
        acknowledged.remember(&user(1), pair(1));
        assert_eq!(acknowledged.of(&user(1)), Some(pair(2)));
        assert_eq!(whose(&acknowledged), [user(2), user(1)]);
        tokio::time::advance(Duration::from_secs(599)).await;
        assert_eq!(acknowledged.of(&user(1)), Some(pair(2)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(acknowledged.of(&user(1)), None);
        assert_eq!(whose(&acknowledged), []);
        assert_eq!(acknowledged.locked().bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_is_dropped_where_there_are_too_many() {
        let acknowledged = Acknowledged::default();
        let large = Entry {
            record: Some(Record {
                sealed: vec![0; MAX_BYTES / 4],
                ..record(1)
            }),
            ..Entry::default()
        };
        for n in 1..=5 {
            acknowledged.remember(&user(n), large.clone());
            assert!(acknowledged.locked().bytes <= MAX_BYTES);
        }
        assert_eq!(whose(&acknowledged), [user(3), user(4), user(5)]);
    }

    #[tokio::test(start_paused = true)]
    async fn pages_go_on_after_the_place_of_the_last_one() {
        let acknowledged = Acknowledged::default();
        for n in 1..=5 {
            acknowledged.remember(&user(n), pair(n));
        }
        let mut seen = Vec::new();
        let mut after = 0;
        loop {
            let page = acknowledged.page(after, 2);
            let Some((last, ..)) = page.last() else { break };
            after = *last;
            seen.extend(page.into_iter().map(|(_, principal, _)| principal));
        }
        assert_eq!(seen, (1..=5).map(user).collect::<Vec<_>>());
    }
}

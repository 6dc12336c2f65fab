//! The table of credentials in memory. It holds at most a given number of bytes; beyond that it drops
//! entries that were not asked for recently. Knows nothing of freshness.
//!
//! The clock algorithm: a hand goes round the entries of a shard; it spares an entry that was asked for
//! since it came by last, and drops the first one that was not.
//!
//! Made to be small: a table of numbers finds the place of an `Arc`, and the credentials themselves say
//! whose they are. A general cache keeps about 300 bytes more for each key.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use hashbrown::HashTable;

use super::credentials::Credentials;
use crate::principal::Principal;

/// Parts of the table, each under its own lock, which is held for one look-up; during a walk over all
/// of them, for one part at a time.
const SHARDS: usize = 256;

/// All credentials in memory.
#[derive(Debug)]
pub(crate) struct ClockCache {
    shards: Box<[Mutex<Shard>]>,
    /// Keyed: principals are named by callers.
    hasher: RandomState,
    /// What one shard holds at most, in bytes.
    most: usize,
}

#[derive(Debug, Default)]
struct Shard {
    /// Where in `entries` a principal's credentials are, by hash.
    places: HashTable<u32>,
    entries: Vec<Arc<Credentials>>,
    /// What they cost together, as [`Credentials::bytes`] counts it.
    bytes: usize,
    /// The entry that is looked at next when room is needed.
    hand: usize,
}

impl ClockCache {
    /// Keeps at most about `max_bytes`, but at least one entry in each shard.
    pub(crate) fn new(max_bytes: u64) -> ClockCache {
        let most = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        ClockCache {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            most: most / SHARDS,
        }
    }

    /// The credentials of `principal`, which now count as asked for.
    pub(crate) fn get(&self, principal: &Principal) -> Option<Arc<Credentials>> {
        let hash = self.hasher.hash_one(principal);
        let shard = self.shard(hash);
        let found = &shard.entries[shard.place(hash, principal)?];
        if !found.asked_for.load(Ordering::Relaxed) {
            found.asked_for.store(true, Ordering::Relaxed);
        }
        Some(found.clone())
    }

    /// Keeps `credentials`. If there are some of the same principal already, replaces them only if
    /// `replaces` returns true for those.
    pub(crate) fn put(
        &self,
        credentials: &Arc<Credentials>,
        replaces: impl FnOnce(&Credentials) -> bool,
    ) {
        let hash = self.hasher.hash_one(&credentials.principal);
        let mut guard = self.shard(hash);
        let shard = &mut *guard;
        match shard.place(hash, &credentials.principal) {
            Some(place) if !replaces(&shard.entries[place]) => return,
            Some(place) => {
                let replaced = std::mem::replace(&mut shard.entries[place], credentials.clone());
                shard.bytes -= replaced.bytes();
                let asked_for = replaced.asked_for.load(Ordering::Relaxed);
                credentials.asked_for.store(asked_for, Ordering::Relaxed);
                let named_on = replaced.named_on.load(Ordering::Relaxed);
                credentials.named_on.store(named_on, Ordering::Relaxed);
            }
            None => shard.push(hash, credentials.clone(), &self.hasher),
        }
        shard.bytes += credentials.bytes();
        while shard.bytes > self.most && shard.entries.len() > 1 {
            shard.drop_one_but(credentials, &self.hasher);
        }
    }

    /// Drops the credentials of `principal` if `also` returns true for them.
    pub(crate) fn remove_if(&self, principal: &Principal, also: impl FnOnce(&Credentials) -> bool) {
        let hash = self.hasher.hash_one(principal);
        let mut shard = self.shard(hash);
        if let Some(place) = shard.place(hash, principal)
            && also(&shard.entries[place])
        {
            shard.remove(place, &self.hasher);
        }
    }

    /// Those for which `wanted` returns true.
    pub(crate) fn filter(&self, wanted: impl Fn(&Credentials) -> bool) -> Vec<Arc<Credentials>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = locked(shard);
            all.extend(shard.entries.iter().filter(|entry| wanted(entry)).cloned());
        }
        all
    }

    /// Shows all of them, those of one part at a time under its lock.
    pub(crate) fn for_each(&self, mut show: impl FnMut(&Credentials)) {
        for shard in &self.shards {
            locked(shard).entries.iter().for_each(|entry| show(entry));
        }
    }

    /// What they cost together, as [`Credentials::bytes`] counts it.
    pub(crate) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| locked(shard).bytes).sum()
    }

    /// How many are in memory.
    pub(crate) fn count(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|shard| locked(shard).entries.len()).sum()
    }

    /// Chosen by bits that a shard's own table does not look at first.
    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        let number = (hash >> 32) as usize % SHARDS;
        locked(&self.shards[number])
    }
}

fn locked(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().expect("no code panics under this lock")
}

impl Shard {
    fn place(&self, hash: u64, principal: &Principal) -> Option<usize> {
        let is_theirs = |place: &u32| self.entries[*place as usize].principal == *principal;
        self.places
            .find(hash, is_theirs)
            .map(|place| *place as usize)
    }

    fn push(&mut self, hash: u64, credentials: Arc<Credentials>, hasher: &RandomState) {
        let place =
            u32::try_from(self.entries.len()).expect("no shard holds four thousand million");
        self.entries.push(credentials);
        let entries = &self.entries;
        self.places.insert_unique(hash, place, |place| {
            hasher.hash_one(&entries[*place as usize].principal)
        });
    }

    /// Moves the hand until it finds an entry that was not asked for since it came by last, and drops
    /// it. Spares `newest`, which needs the room.
    fn drop_one_but(&mut self, newest: &Arc<Credentials>, hasher: &RandomState) {
        loop {
            self.hand = match self.hand {
                hand if hand < self.entries.len() => hand,
                _ => 0,
            };
            let here = self.hand;
            self.hand += 1;
            let entry = &self.entries[here];
            if !entry.asked_for.swap(false, Ordering::Relaxed) && !Arc::ptr_eq(entry, newest) {
                self.remove(here, hasher);
                return;
            }
        }
    }

    /// The last entry moves into the place that becomes free.
    fn remove(&mut self, place: usize, hasher: &RandomState) {
        let removed = self.entries.swap_remove(place);
        self.bytes -= removed.bytes();
        let was_at = |wanted: usize| move |place: &u32| *place as usize == wanted;
        let hash = hasher.hash_one(&removed.principal);
        if let Ok(found) = self.places.find_entry(hash, was_at(place)) {
            found.remove();
        }
        if let Some(moved) = self.entries.get(place) {
            let hash = hasher.hash_one(&moved.principal);
            let last = self.entries.len();
            if let Some(moved) = self.places.find_mut(hash, was_at(last)) {
                *moved = u32::try_from(place).expect("it had one");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::fixture::{credentials_of, user};

    fn put(hot: &ClockCache, number: u32) -> Arc<Credentials> {
        let credentials = credentials_of(user(number), 1);
        hot.put(&credentials, |_| true);
        credentials
    }

    #[test]
    fn what_was_put_is_found_and_what_was_removed_is_not() {
        let hot = ClockCache::new(1 << 30);
        let all: Vec<_> = (0..10_000).map(|number| put(&hot, number)).collect();
        assert_eq!(hot.count(), 10_000);
        for number in (0..10_000).step_by(3) {
            hot.remove_if(&user(number), |_| false);
            assert!(hot.get(&user(number)).is_some());
            hot.remove_if(&user(number), |_| true);
        }
        for (number, put) in (0..).zip(&all) {
            match hot.get(&user(number)) {
                Some(found) => assert!(Arc::ptr_eq(&found, put)),
                None => assert_eq!(number % 3, 0),
            }
        }
        assert_eq!(hot.count(), 6_666);
        assert_eq!(hot.filter(|_| true).len(), 6_666);
        assert_eq!(hot.filter(|found| found.principal == user(1)).len(), 1);
    }

    #[test]
    fn one_place_a_principal_however_often_it_is_put() {
        let hot = ClockCache::new(1 << 30);
        let (first, second) = (put(&hot, 1), put(&hot, 1));
        assert!(!Arc::ptr_eq(&first, &second));
        hot.put(&first, |there| !std::ptr::eq(there, &*second));
        assert!(Arc::ptr_eq(&hot.get(&user(1)).unwrap(), &second));
        assert_eq!(hot.count(), 1);
        let third = put(&hot, 1);
        assert!(
            third.asked_for.load(Ordering::Relaxed),
            "as the one that it replaced"
        );
        hot.remove_if(&user(1), |_| true);
        assert!(hot.get(&user(1)).is_none());
    }

    #[test]
    fn no_more_than_fits_is_kept_and_what_is_asked_for_stays() {
        let each = credentials_of(user(0), 1).bytes();
        let hot = ClockCache::new((1_000 * SHARDS * each).try_into().unwrap());
        let asked = 0..10_000;
        for number in 0..600_000 {
            put(&hot, number);
            // Every entry in turn, often enough to be seen between two rounds of a hand.
            assert!(hot.get(&user(number % asked.end)).is_some(), "{number}");
        }
        let kept = hot.count();
        assert!((200_000..=1_000 * SHARDS).contains(&kept), "{kept}");
        for shard in &hot.shards {
            let shard = locked(shard);
            assert!(shard.bytes <= 1_000 * each);
            assert_eq!(shard.bytes, shard.entries.len() * each);
            assert_eq!(shard.places.len(), shard.entries.len());
        }
    }

    #[test]
    fn one_that_fits_nowhere_is_kept_until_another_comes() {
        let hot = ClockCache::new(1);
        for number in 0..10_000 {
            put(&hot, number);
            assert!(hot.get(&user(number)).is_some());
        }
        assert_eq!(hot.count(), SHARDS);
    }
}

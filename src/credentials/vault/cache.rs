//! Credentials in memory: which may be used, and which 401s are acted on. The life of one token is in
//! [`credentials`](super::credentials); which are dropped for want of room, in
//! [`clock_cache`](super::clock_cache).
//!
//! # What a 401 does
//!
//! ```text
//!                     401 for the newest token
//!   as usual ───────────────────────────────────────▶ renewed, and the request replayed
//!      ▲                                                     │ the replay gets a 401 too
//!      │   60 s pass, or the principal is forgotten          ▼
//!      └──────────────────────────────────────────────── suppressed
//! ```
//!
//! While a principal is *suppressed* its 401s are passed on and renew nothing: a newer token did not
//! help, so that they are not about expiry. All processes on one store share that, by a note.
//!
//! # What may have changed unseen
//!
//! What other processes forgot is dropped here as the store tells of it. If it says that
//! [everything may have moved](Cache::everything_moved), nothing is dropped; but before a token that was
//! handed out is believed, its entry is read once more, and then [confirmed](Cache::confirm).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use moka::sync::Cache as Lru;

use super::census::Census;
use super::clock_cache::ClockCache;
use super::credentials::Credentials;
use super::usage::Named;
use crate::clock::{Clock, Moment};
use crate::principal::Principal;
use crate::store::{Generation, Version};

/// How long a principal is suppressed.
pub(crate) const SUPPRESSED_FOR: Duration = Duration::from_secs(60);
/// Suppressed principals remembered at most; beyond it the oldest are forgotten.
const MOST_SUPPRESSED: u64 = 100_000;

/// What is in memory of a principal.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// Use it.
    Fresh(Arc<Credentials>),
    /// Use it and renew it in the background.
    Stale(Arc<Credentials>),
    /// Expired or rejected.
    Unusable,
    /// Nothing.
    Absent,
}

/// All credentials in memory.
#[derive(Debug)]
pub(crate) struct Cache {
    /// Written by publications; entries are dropped when another process commits, when the principal is
    /// forgotten, and when room is needed.
    credentials: ClockCache,
    /// The newest generation of each principal that got a 401, until a newer one is published. Beside
    /// the credentials, because it must outlive their eviction: a rejected token that is read from the
    /// store again is not used.
    rejected: DashMap<Principal, Generation>,
    /// The principals that are suppressed.
    suppressed: Lru<Principal, Suppressed>,
    /// How often everything may have moved in the store.
    moves: AtomicU32,
    /// Whom callers named on which day.
    pub(crate) named: Named,
    clock: Clock,
}

/// One principal is.
#[derive(Clone, Copy, Debug)]
struct Suppressed {
    until: Moment,
    /// The epoch that it had: if it was forgotten since, it is no longer suppressed.
    epoch: u64,
}

impl Cache {
    /// Keeps at most about `max_bytes`.
    pub(crate) fn new(max_bytes: u64, clock: Clock) -> Cache {
        Cache {
            credentials: ClockCache::new(max_bytes),
            rejected: DashMap::new(),
            suppressed: Lru::builder()
                .max_capacity(MOST_SUPPRESSED)
                .time_to_live(clock.to_real(SUPPRESSED_FOR))
                .build(),
            moves: AtomicU32::new(0),
            named: Named::default(),
            clock,
        }
    }

    /// What is in memory of `principal`, whom a caller names, and how good it is now.
    pub(crate) fn look_up(&self, principal: &Principal) -> Lookup {
        match self.credentials.get(principal) {
            None => {
                self.named.note(principal);
                Lookup::Absent
            }
            Some(found) => {
                self.named.note_found(&found);
                self.judge(found)
            }
        }
    }

    /// What is in memory of `principal`, however good: to be looked at, not to be attached.
    pub(crate) fn peek(&self, principal: &Principal) -> Option<Arc<Credentials>> {
        self.credentials.get(principal)
    }

    fn judge(&self, found: Arc<Credentials>) -> Lookup {
        let now = self.clock.now();
        if !found.is_usable(now) {
            return Lookup::Unusable;
        }
        if !found.used.load(Ordering::Relaxed) {
            found.used.store(true, Ordering::Relaxed);
        }
        if now < found.stale {
            Lookup::Fresh(found)
        } else {
            Lookup::Stale(found)
        }
    }

    /// Keeps `credentials` unless newer ones are there. Returns false if they may not be used, because a
    /// 401 came back for them.
    pub(crate) fn publish(&self, credentials: &Arc<Credentials>) -> bool {
        let principal = &credentials.principal;
        self.rejected
            .remove_if(principal, |_, rejected| *rejected < credentials.generation);
        let mark_if_rejected = || {
            let usable = self.may_use(principal, credentials.generation);
            if !usable {
                credentials.rejected.store(true, Ordering::Relaxed);
            }
            usable
        };
        mark_if_rejected();
        self.credentials.put(credentials, |present| {
            present.generation <= credentials.generation
        });
        // Again, because a 401 that came back meanwhile did not find them here.
        mark_if_rejected()
    }

    /// Whether `generation` may be used: no 401 came back for it or a newer one.
    pub(crate) fn may_use(&self, principal: &Principal, generation: Generation) -> bool {
        self.rejected
            .get(principal)
            .is_none_or(|rejected| *rejected < generation)
    }

    /// What may be used of the principal of `rejected`, which got a 401, if that is another token. That 401
    /// says nothing about it.
    pub(crate) fn another(&self, rejected: &Credentials) -> Option<Arc<Credentials>> {
        match self.look_up(&rejected.principal) {
            Lookup::Fresh(held) | Lookup::Stale(held) if !held.is_same_token(rejected) => {
                Some(held)
            }
            _ => None,
        }
    }

    /// Never hands out `rejected`, or an older one, again. Returns its generation: what follows must be newer.
    pub(crate) fn reject(&self, rejected: &Credentials) -> Generation {
        let principal = &rejected.principal;
        let generation = match self.credentials.get(principal) {
            Some(held) if held.is_same_token(rejected) => held.generation,
            // The store went back, and this one has the place of `rejected`.
            Some(held) if held.generation <= rejected.generation => return held.generation,
            Some(_) | None => rejected.generation,
        };
        self.rejected
            .entry(principal.clone())
            .and_modify(|known| *known = (*known).max(generation))
            .or_insert(generation);
        if let Some(found) = self.credentials.get(principal)
            && found.generation <= generation
        {
            found.rejected.store(true, Ordering::Relaxed);
        }
        generation
    }

    /// Suppresses this principal: its next 401s are passed on, for 60 s.
    pub(crate) fn suppress(&self, principal: &Principal) {
        let epoch = self.peek(principal).map_or(0, |found| found.epoch);
        self.suppress_for(principal, epoch, SUPPRESSED_FOR);
    }

    /// The same, for a time that another process began.
    pub(crate) fn suppress_for(&self, principal: &Principal, epoch: u64, left: Duration) {
        let until = self.clock.now().plus(left.min(SUPPRESSED_FOR));
        let suppressed = Suppressed { until, epoch };
        self.suppressed.insert(principal.clone(), suppressed);
    }

    /// The 401 for `generation` is not acted on after all: it may be handed out again.
    pub(crate) fn pardon(&self, principal: &Principal, generation: Generation) {
        self.rejected
            .remove_if(principal, |_, rejected| *rejected == generation);
    }

    /// This principal is suppressed no more: its next 401 renews again.
    pub(crate) fn end_suppression(&self, principal: &Principal) {
        self.suppressed.invalidate(principal);
    }

    /// Whether this principal is suppressed: its 401s are passed on.
    pub(crate) fn is_suppressed(&self, principal: &Principal) -> bool {
        let suppressed = self.suppressed.get(principal);
        suppressed.is_some_and(|suppressed| self.clock.now() < suppressed.until)
    }

    /// Drops what another process, or a forget, has overtaken.
    pub(crate) fn follow(&self, principal: &Principal, generation: Generation, epoch: u64) {
        if self
            .suppressed
            .get(principal)
            .is_some_and(|then| then.epoch != epoch)
        {
            self.end_suppression(principal);
        }
        self.credentials.remove_if(principal, |found| {
            found.generation < generation || found.epoch != epoch
        });
    }

    /// Everybody of whom something is kept that may be overtaken.
    pub(crate) fn principals(&self) -> Vec<Principal> {
        let suppressed = self.suppressed.iter();
        let mut principals: Vec<_> = suppressed.map(|(whose, _)| (*whose).clone()).collect();
        self.credentials
            .for_each(|found| principals.push(found.principal.clone()));
        principals
    }

    /// The newest generation that this process knows of.
    pub(crate) fn newest(&self, principal: &Principal) -> Option<Generation> {
        let held = self.peek(principal).map(|found| found.generation);
        let rejected = self.rejected.get(principal).map(|rejected| *rejected);
        held.max(rejected)
    }

    /// The store went back to the version `to`: nothing counts as newer any more. A token that is good is
    /// kept, as one of that version, and served until it expires or is rejected.
    pub(crate) fn give_way(&self, principal: &Principal, to: Version) {
        self.rejected
            .remove_if(principal, |_, rejected| *rejected > to.generation);
        let Some(held) = self.peek(principal) else {
            return;
        };
        if held.generation <= to.generation {
            return;
        }
        let is_forgotten = held.epoch < to.epoch;
        if is_forgotten || !held.is_usable(self.clock.now()) {
            let is_held = |there: &Credentials| std::ptr::eq(there, &*held);
            return self.credentials.remove_if(principal, is_held);
        }
        let kept = Arc::new(held.renumbered(to));
        self.credentials
            .put(&kept, |there| std::ptr::eq(there, &*held));
        // A 401 that came back meanwhile marked the one before.
        if held.rejected.load(Ordering::Relaxed) {
            self.reject(&kept);
        }
    }

    /// Any entry may be another one now: what is in memory is confirmed no more.
    pub(crate) fn everything_moved(&self) {
        self.moves.fetch_add(1, Ordering::AcqRel);
    }

    /// How often everything may have moved. To be asked before an entry is read.
    pub(crate) fn moved(&self) -> u32 {
        self.moves.load(Ordering::Acquire)
    }

    /// What is in memory of `principal`, if its entry is known to be the one that stands, but for what the
    /// store is yet to tell of.
    pub(crate) fn confirmed(&self, principal: &Principal) -> Option<Arc<Credentials>> {
        let found = self.peek(principal)?;
        (found.confirmed.load(Ordering::Acquire) == self.moved()).then_some(found)
    }

    /// The entry of `principal` was read, after the move number `as_of`, and has this version.
    pub(crate) fn confirm(&self, principal: &Principal, version: Version, as_of: u32) {
        let Version { generation, epoch } = version;
        match self.peek(principal) {
            Some(found) if (found.generation, found.epoch) == (generation, epoch) => {
                found.confirmed.fetch_max(as_of, Ordering::AcqRel);
            }
            Some(_) => self.follow(principal, generation, epoch),
            None => {}
        }
    }

    /// Drops what is in memory of `principal`.
    pub(crate) fn forget(&self, principal: &Principal) {
        self.credentials.remove_if(principal, |_| true);
    }

    /// The used, stale, unexpired ones: what the keeper renews ahead of time.
    pub(crate) fn due_ahead(&self) -> Vec<Arc<Credentials>> {
        let now = self.clock.now();
        self.credentials.filter(|found| {
            found.used.load(Ordering::Relaxed) && found.stale <= now && now < found.expires
        })
    }

    /// How many there are of each freshness. Walks over all.
    pub(crate) fn census(&self) -> Census {
        let now = self.clock.now();
        let mut census = Census::default();
        self.credentials.for_each(|found| {
            let count = match (now < found.stale, found.is_usable(now)) {
                (_, false) => &mut census.expired,
                (false, true) => &mut census.stale,
                (true, true) => &mut census.fresh,
            };
            *count += 1;
        });
        census
    }

    /// What they take together.
    pub(crate) fn bytes(&self) -> usize {
        self.credentials.bytes()
    }

    /// How many are in memory.
    pub(crate) fn count(&self) -> usize {
        self.credentials.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::fixture::credentials_of;

    fn principal() -> Principal {
        Principal::Account("a".into())
    }

    fn credentials(clock: &Clock, generation: u64, stale: u64, expires: u64) -> Arc<Credentials> {
        let at = |seconds| clock.now().plus(Duration::from_secs(seconds));
        let mut made = Arc::into_inner(credentials_of(principal(), generation)).unwrap();
        (made.stale, made.expires) = (at(stale), at(expires));
        Arc::new(made)
    }

    fn cache() -> (Cache, Clock) {
        let clock = Clock::real();
        (Cache::new(1 << 20, clock), clock)
    }

    #[tokio::test(start_paused = true)]
    async fn freshness_passes_through_its_three_states() {
        let (cache, clock) = cache();
        cache.publish(&credentials(&clock, 1, 80, 100));
        assert!(matches!(cache.look_up(&principal()), Lookup::Fresh(_)));
        clock.sleep(Duration::from_secs(81)).await;
        assert!(matches!(cache.look_up(&principal()), Lookup::Stale(_)));
        clock.sleep(Duration::from_secs(20)).await;
        assert!(matches!(cache.look_up(&principal()), Lookup::Unusable));
    }

    #[test]
    fn a_census_counts_each_by_its_freshness() {
        let (cache, clock) = cache();
        let publish = |number: u64, stale, expires| {
            let mut made = Arc::into_inner(credentials(&clock, 1, stale, expires)).unwrap();
            made.principal = Principal::Account(number.to_string().into());
            cache.publish(&Arc::new(made));
        };
        for (number, stale, expires) in [(1, 80, 100), (2, 0, 100), (3, 0, 100), (4, 0, 0)] {
            publish(number, stale, expires);
        }
        publish(5, 80, 100);
        let fifth = cache.peek(&Principal::Account("5".into()));
        cache.reject(&fifth.expect("it was published"));
        let expected = Census {
            fresh: 1,
            stale: 2,
            expired: 2,
        };
        assert_eq!(cache.census(), expected);
    }

    #[test]
    fn a_rejected_generation_is_never_found_again_and_outlives_eviction() {
        let (cache, clock) = cache();
        cache.publish(&credentials(&clock, 3, 80, 100));
        cache.reject(&credentials_of(principal(), 3));
        assert!(matches!(cache.look_up(&principal()), Lookup::Unusable));

        cache.forget(&principal());
        assert!(!cache.publish(&credentials(&clock, 3, 80, 100)));
        assert!(matches!(cache.look_up(&principal()), Lookup::Unusable));
        assert!(cache.publish(&credentials(&clock, 4, 80, 100)));
        assert!(matches!(cache.look_up(&principal()), Lookup::Fresh(_)));
    }

    #[test]
    fn a_late_rejection_of_an_older_generation_changes_nothing() {
        let (cache, clock) = cache();
        cache.publish(&credentials(&clock, 4, 80, 100));
        cache.reject(&credentials_of(principal(), 3));
        assert!(matches!(cache.look_up(&principal()), Lookup::Fresh(_)));
    }

    #[test]
    fn an_older_publication_does_not_overwrite_a_newer_one() {
        let (cache, clock) = cache();
        cache.publish(&credentials(&clock, 4, 80, 100));
        cache.publish(&credentials(&clock, 3, 80, 100));
        assert!(
            matches!(cache.look_up(&principal()), Lookup::Fresh(found) if found.generation.0 == 4)
        );
    }

    #[test]
    fn a_change_elsewhere_drops_what_it_overtook() {
        let (cache, clock) = cache();
        for (generation, epoch, stays) in [(4, 0, true), (3, 0, true), (5, 0, false), (4, 1, false)]
        {
            cache.publish(&credentials(&clock, 4, 80, 100));
            cache.follow(&principal(), Generation(generation), epoch);
            assert_eq!(
                !matches!(cache.look_up(&principal()), Lookup::Absent),
                stays
            );
        }
    }

    #[test]
    fn memory_gives_way_to_a_store_that_went_back() {
        let (cache, clock) = cache();
        let to = |generation| Version {
            generation: Generation(generation),
            epoch: 0,
        };
        let rejected = credentials(&clock, 7, 80, 100);
        cache.publish(&rejected);
        cache.reject(&rejected);
        assert_eq!(cache.newest(&principal()), Some(Generation(7)));
        cache.give_way(&principal(), to(4));
        assert!(matches!(cache.look_up(&principal()), Lookup::Absent));
        assert_eq!(cache.newest(&principal()), None);
        cache.publish(&credentials(&clock, 5, 80, 100));
        cache.give_way(&principal(), to(5));
        assert_eq!(cache.newest(&principal()), Some(Generation(5)));
        // A 401 for one of before says nothing about what stands.
        assert!(cache.another(&rejected).is_some());
        cache.reject(&rejected);
        assert!(matches!(cache.look_up(&principal()), Lookup::Fresh(_)));
    }

    #[test]
    fn a_good_token_is_kept_under_the_number_that_the_store_went_back_to() {
        let (cache, clock) = cache();
        let good = credentials(&clock, 7, 80, 100);
        cache.publish(&good);
        for epoch in [0, 1] {
            let generation = Generation(4 - epoch);
            cache.give_way(&principal(), Version { generation, epoch });
            assert_eq!(cache.newest(&principal()).is_some(), epoch == 0);
            match cache.look_up(&principal()) {
                Lookup::Fresh(kept) => {
                    assert!(kept.is_same_token(&good));
                    assert_eq!(kept.generation, generation);
                }
                _ => assert_eq!(epoch, 1, "it was forgotten"),
            }
        }
        cache.publish(&good);
        let generation = Generation(4);
        cache.give_way(
            &principal(),
            Version {
                generation,
                epoch: 0,
            },
        );
        assert_eq!(cache.reject(&good), generation);
        assert!(matches!(cache.look_up(&principal()), Lookup::Unusable));
        assert!(cache.publish(&credentials(&clock, 5, 80, 100)));
    }

    #[test]
    fn what_is_in_memory_is_confirmed_until_everything_moves() {
        let (cache, clock) = cache();
        let version = |generation, epoch| Version {
            generation: Generation(generation),
            epoch,
        };
        cache.publish(&credentials(&clock, 4, 80, 100));
        assert!(cache.confirmed(&principal()).is_some());
        let before = cache.moved();
        cache.everything_moved();
        cache.confirm(&principal(), version(4, 0), before);
        assert!(cache.confirmed(&principal()).is_none(), "read before");
        assert!(matches!(cache.look_up(&principal()), Lookup::Fresh(_)));
        cache.confirm(&principal(), version(4, 0), cache.moved());
        assert!(cache.confirmed(&principal()).is_some());
        cache.confirm(&principal(), version(4, 1), cache.moved());
        assert!(cache.peek(&principal()).is_none(), "it was forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_suppression_that_another_process_began_ends_as_it_would_there() {
        let (cache, clock) = cache();
        cache.suppress_for(&principal(), 0, Duration::from_secs(20));
        clock.sleep(Duration::from_secs(19)).await;
        assert!(cache.is_suppressed(&principal()));
        clock.sleep(Duration::from_secs(2)).await;
        assert!(!cache.is_suppressed(&principal()));
    }

    #[test]
    fn a_principal_forgotten_elsewhere_is_suppressed_no_more() {
        let (cache, clock) = cache();
        cache.publish(&credentials(&clock, 4, 80, 100));
        cache.suppress(&principal());
        cache.follow(&principal(), Generation(5), 0);
        assert!(cache.is_suppressed(&principal()));
        cache.follow(&principal(), Generation(5), 1);
        assert!(!cache.is_suppressed(&principal()));
    }
}

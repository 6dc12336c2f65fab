//! Credentials in memory: what to use, what not to use again. What to forget is decided in
//! [`clock_cache`](super::clock_cache), what is fresh here.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dashmap::DashMap;
use http::HeaderValue;
use moka::sync::Cache as Lru;

use super::clock_cache::ClockCache;
use super::pair::JwtHash;
use crate::clock::{Clock, Moment};
use crate::damoov::auth::ExpiresInForm;
use crate::principal::{InstanceId, Principal};
use crate::store::Generation;
use crate::telemetry::LogName;

/// An access token ready to be attached. The RefreshToken stays sealed in the store.
#[derive(Debug)]
pub struct Credentials {
    /// Whose it is.
    pub(in crate::credentials) principal: Principal,
    /// The ready-made `Authorization` value, marked sensitive.
    pub(in crate::credentials) authorization: HeaderValue,
    /// What stands for the principal in logs: a hash that is not worth making for every request.
    pub(in crate::credentials) log_hash: [u8; 8],
    /// Which pair this token belongs to.
    pub(in crate::credentials) generation: Generation,
    /// The entry's epoch when it was read.
    pub(in crate::credentials) epoch: u64,
    /// The instance that the user is known under; `None` for accounts, or if it is no longer known.
    pub(in crate::credentials) instance: Option<InstanceId>,
    /// How the API wrote `ExpiresIn` for it.
    pub(in crate::credentials) expires_in_form: ExpiresInForm,
    /// The JWT before this one, once somebody has shown it.
    pub(in crate::credentials) previous: OnceLock<Box<JwtHash>>,
    /// When this process renewed it; `None` if it was found in the store.
    pub(in crate::credentials) renewed: Option<Moment>,
    /// From here on it is renewed in the background.
    pub(in crate::credentials) stale: Moment,
    /// From here on it is not used.
    pub(in crate::credentials) expires: Moment,
    /// A 401 came back for it.
    pub(in crate::credentials) rejected: AtomicBool,
    /// It was used: the keeper renews it ahead of time.
    pub(in crate::credentials) used: AtomicBool,
    /// Somebody asked for it since it was last considered to be forgotten.
    pub(in crate::credentials) asked_for: AtomicBool,
    /// No background renewal before this moment, in milliseconds.
    pub(in crate::credentials) not_ahead_before: AtomicU64,
    /// [`UNTRIED`], [`ACCEPTED`], or until when the first replay with it is under way, in
    /// milliseconds.
    pub(in crate::credentials) replay: AtomicU64,
}

/// What [`Credentials::authorization`] begins with.
pub(crate) const SCHEME: &str = "Bearer ";
/// Nobody has replayed with this token yet.
pub(crate) const UNTRIED: u64 = 0;
/// An answer other than 401 came back for this token.
const ACCEPTED: u64 = u64::MAX;

impl Credentials {
    /// `Bearer <token>`, marked sensitive.
    pub fn authorization(&self) -> &HeaderValue {
        &self.authorization
    }

    /// Which pair this token belongs to.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// What stands for the principal in logs.
    pub fn log_name(&self) -> LogName {
        LogName::of(self.log_hash)
    }

    /// The bare JWT.
    pub fn token(&self) -> &str {
        std::str::from_utf8(&self.authorization.as_bytes()[SCHEME.len()..])
            .expect("the value was made of a string")
    }

    /// The epoch of the principal's entry: a forget raises it.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The instance that the user is known under; `None` for accounts, or if it is no longer known.
    pub fn instance(&self) -> Option<InstanceId> {
        self.instance
    }

    /// How long the JWT still lives at `now`, a moment of the engine's own [`Clock`]; zero once it
    /// has expired. 30 days at most.
    pub fn left(&self, now: Moment) -> Duration {
        self.expires.since(now)
    }

    /// How the API wrote `ExpiresIn` when it gave this JWT out.
    pub fn expires_in_form(&self) -> ExpiresInForm {
        self.expires_in_form
    }

    /// What it costs in memory: itself, behind an `Arc`, and the token, as the allocator rounds
    /// it; what shares the token with a request; its places in the table.
    pub(in crate::credentials) fn bytes(&self) -> usize {
        const COUNTS: usize = 2 * size_of::<usize>();
        const SHARED: usize = 32;
        const PLACES: usize = 24;
        let token = self.authorization.len();
        size_of::<Credentials>() + COUNTS + token + token / 8 + SHARED + PLACES
    }

    /// An answer other than 401 came back for it.
    pub fn accept(&self) {
        if self.replay.load(Ordering::Relaxed) != ACCEPTED {
            self.replay.store(ACCEPTED, Ordering::Relaxed);
        }
    }

    /// Somebody replays with it now.
    pub(in crate::credentials) fn begin_replay(&self, now: Moment) {
        let until = now.plus(REPLAY_WITHIN).as_millis();
        // One that was tried before is judged already.
        let _ = self
            .replay
            .compare_exchange(UNTRIED, until, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether a replay will tell if a 401 for it is about expiry.
    pub(in crate::credentials) fn is_replay_pending(&self, now: Moment) -> bool {
        let until = self.replay.load(Ordering::Relaxed);
        until != ACCEPTED && now.as_millis() < until
    }

    /// Whether a background renewal is due now; asking counts as starting one, so that a failing
    /// one is not started again by every request.
    pub(in crate::credentials) fn claim_ahead(&self, now: Moment) -> bool {
        let (now, next) = (now.as_millis(), now.plus(AHEAD_AGAIN).as_millis());
        let free = self.not_ahead_before.load(Ordering::Relaxed);
        free <= now
            && self
                .not_ahead_before
                .compare_exchange(free, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

/// After a background renewal was started, the next one of the same token waits this long.
const AHEAD_AGAIN: Duration = Duration::from_secs(60);
/// A replay is answered within this time, or judges nothing.
const REPLAY_WITHIN: Duration = Duration::from_secs(5);
/// A principal whose replay got a 401 too is not renewed for 401s for this long.
const SUPPRESSED_FOR: Duration = Duration::from_secs(60);
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
    credentials: ClockCache,
    /// The newest generation that got a 401, until a newer one is there: it outlives eviction.
    rejected: DashMap<Principal, Generation>,
    /// Principals whose 401s are not about expiry, with the epoch that they had then.
    suppressed: Lru<Principal, u64>,
    clock: Clock,
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
            clock,
        }
    }

    /// What there is, and how good it is now.
    pub(crate) fn look_up(&self, principal: &Principal) -> Lookup {
        match self.credentials.get(principal) {
            None => Lookup::Absent,
            Some(found) => self.judge(found),
        }
    }

    /// What there is, however good: for what it says, not to be attached.
    pub(crate) fn peek(&self, principal: &Principal) -> Option<Arc<Credentials>> {
        self.credentials.get(principal)
    }

    fn judge(&self, found: Arc<Credentials>) -> Lookup {
        let now = self.clock.now();
        if now >= found.expires || found.rejected.load(Ordering::Relaxed) {
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

    /// Keeps `credentials` unless newer ones are there; false when they may not be used: a 401
    /// came back for them.
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

    /// Never hands out `generation`, or an older one, again.
    pub(crate) fn reject(&self, principal: &Principal, generation: Generation) {
        self.rejected
            .entry(principal.clone())
            .and_modify(|known| *known = (*known).max(generation))
            .or_insert(generation);
        if let Some(found) = self.credentials.get(principal)
            && found.generation <= generation
        {
            found.rejected.store(true, Ordering::Relaxed);
        }
    }

    /// The next 401s of this principal are the answer, for 60 s.
    pub(crate) fn suppress(&self, principal: &Principal) {
        let epoch = self.peek(principal).map_or(0, |found| found.epoch);
        self.suppressed.insert(principal.clone(), epoch);
    }

    /// The next 401 of this principal renews again.
    pub(crate) fn end_suppression(&self, principal: &Principal) {
        self.suppressed.invalidate(principal);
    }

    /// Whether a 401 of this principal is the answer.
    pub(crate) fn is_suppressed(&self, principal: &Principal) -> bool {
        self.suppressed.contains_key(principal)
    }

    /// Drops what another process, or a forget, has overtaken.
    pub(crate) fn follow(&self, principal: &Principal, generation: Generation, epoch: u64) {
        if self
            .suppressed
            .get(principal)
            .is_some_and(|then| then != epoch)
        {
            self.end_suppression(principal);
        }
        self.credentials.remove_if(principal, |found| {
            found.generation < generation || found.epoch != epoch
        });
    }

    /// Drops what there is.
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
        let made = Arc::into_inner(credentials_of(principal(), generation)).unwrap();
        Arc::new(Credentials {
            stale: at(stale),
            expires: at(expires),
            ..made
        })
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
    fn a_rejected_generation_is_never_found_again_and_outlives_eviction() {
        let (cache, clock) = cache();
        cache.publish(&credentials(&clock, 3, 80, 100));
        cache.reject(&principal(), Generation(3));
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
        cache.reject(&principal(), Generation(3));
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
    fn who_is_forgotten_elsewhere_is_suppressed_no_more() {
        let (cache, clock) = cache();
        cache.publish(&credentials(&clock, 4, 80, 100));
        cache.suppress(&principal());
        cache.follow(&principal(), Generation(5), 0);
        assert!(cache.is_suppressed(&principal()));
        cache.follow(&principal(), Generation(5), 1);
        assert!(!cache.is_suppressed(&principal()));
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_say_what_they_are_and_how_long_they_live() {
        let (_, clock) = cache();
        let found = credentials(&clock, 1, 0, 100);
        assert_eq!(found.token(), "x");
        clock.sleep(Duration::from_secs(40)).await;
        assert_eq!(found.left(clock.now()), Duration::from_secs(60));
        clock.sleep(Duration::from_secs(70)).await;
        assert_eq!(found.left(clock.now()), Duration::ZERO);
    }

    #[test]
    fn hot_credentials_with_a_jwt_of_700_bytes_cost_at_most_1_100_bytes() {
        let jwt = "x".repeat(700);
        let mut hot = Arc::into_inner(credentials_of(principal(), 1)).unwrap();
        hot.authorization = HeaderValue::try_from([SCHEME, &jwt].concat()).unwrap();
        assert!((1_000..=1_100).contains(&hot.bytes()), "{}", hot.bytes());
    }

    #[test]
    fn a_background_renewal_is_claimed_once_a_minute() {
        let (_, clock) = cache();
        let found = credentials(&clock, 1, 0, 100);
        let now = clock.now();
        assert!(found.claim_ahead(now));
        assert!(!found.claim_ahead(now));
        assert!(found.claim_ahead(now.plus(Duration::from_secs(60))));
    }
}

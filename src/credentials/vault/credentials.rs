//! One access token, ready to be attached, and what is known of it. What follows from that for a
//! request is said in [`cache`](super::cache).
//!
//! # Freshness
//!
//! ```text
//!           80 % of its life          its whole life
//!   fresh ───────────────────▶ stale ────────────────▶ expired
//!     │                          │
//!     └──────────────────────────┴──── 401 ──────────▶ rejected
//! ```
//!
//! A *fresh* token is attached. A *stale* one is attached as well, and renewed in the background. An
//! *expired* or *rejected* one is never attached again.
//!
//! # Whether it is known to work
//!
//! ```text
//!   untried ── begin_replay ──▶ replay pending ── 5 s ──▶ no conclusion
//!      │                              │
//!      └───────── an answer other than 401 ─────────────▶ accepted
//! ```
//!
//! A 401 is usually about expiry: the request is replayed with a newer token. The first replay with a
//! token shows whether that helps. While it is *pending*, other 401s for the same token are not acted
//! on, since its answer will tell what they mean. If it is answered 401 too, the 401 is not about expiry.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;

use super::pair::JwtHash;
use crate::clock::Moment;
use crate::damoov::auth::ExpiresInForm;
use crate::principal::{InstanceId, Principal};
use crate::store::{Generation, Version};
use crate::telemetry::LogName;

/// An access token ready to be attached. The RefreshToken stays sealed in the store.
#[derive(Debug)]
pub struct Credentials {
    /// Whose it is.
    pub(in crate::credentials) principal: Principal,
    /// The ready-made `Authorization` value, marked sensitive.
    pub(in crate::credentials) authorization: HeaderValue,
    /// What stands for the principal in logs: a hash that is too expensive to make for every request.
    pub(in crate::credentials) log_hash: [u8; 8],
    /// Which pair this token belongs to.
    pub(in crate::credentials) generation: Generation,
    /// The entry's epoch when it was read.
    pub(in crate::credentials) epoch: u64,
    /// The instance that the user is known under; `None` for accounts, or if it is no longer known.
    pub(in crate::credentials) instance: Option<InstanceId>,
    /// How the API wrote `ExpiresIn` for it.
    pub(in crate::credentials) expires_in_form: ExpiresInForm,
    /// The JWT before this one, once a caller has shown it: read from the store then, so that the next
    /// caller that shows it costs no read.
    pub(in crate::credentials) previous: OnceLock<Box<JwtHash>>,
    /// When this process renewed it; `None` if it was found in the store.
    pub(in crate::credentials) renewed: Option<Moment>,
    /// From here on it is renewed in the background.
    pub(in crate::credentials) stale: Moment,
    /// From here on it is not used.
    pub(in crate::credentials) expires: Moment,
    /// A 401 came back for it. Written by the cache alone.
    pub(in crate::credentials) rejected: AtomicBool,
    /// A request used it: the keeper renews it ahead of time. Never cleared; the next token starts
    /// unused.
    pub(in crate::credentials) used: AtomicBool,
    /// A request asked for it since the clock cache last considered dropping it. Set by each look-up,
    /// cleared by the cache's hand.
    pub(in crate::credentials) asked_for: AtomicBool,
    /// The day on which a caller [named](super::usage::Named) its principal last; the next token goes on from
    /// there.
    pub(in crate::credentials) named_on: AtomicI32,
    /// Up to which of the cache's [moves](super::cache::Cache::everything_moved) its entry is known to be
    /// the one that stands. Raised when it is read again.
    pub(in crate::credentials) confirmed: AtomicU32,
    /// No background renewal starts before this moment, in milliseconds of the clock.
    not_ahead_before: AtomicU64,
    /// [`UNTRIED`], [`ACCEPTED`], or until when the first replay with it is pending, in milliseconds
    /// of the clock.
    replay: AtomicU64,
}

/// What [`Credentials::authorization`] begins with.
pub(crate) const SCHEME: &str = "Bearer ";
/// No request was replayed with this token yet.
const UNTRIED: u64 = 0;
/// An answer other than 401 came back for this token.
const ACCEPTED: u64 = u64::MAX;
/// After a background renewal was started, the next one of the same token waits this long.
const AHEAD_AGAIN: Duration = Duration::from_secs(60);
/// A replay is answered within this time, or nothing is concluded from it.
const REPLAY_WITHIN: Duration = Duration::from_secs(5);

impl Credentials {
    /// A token that has expired and is known under no instance, in the first epoch.
    pub(in crate::credentials) fn new(
        principal: Principal,
        authorization: HeaderValue,
        generation: Generation,
    ) -> Credentials {
        Credentials {
            principal,
            authorization,
            log_hash: [0; 8],
            generation,
            epoch: 0,
            instance: None,
            expires_in_form: ExpiresInForm::Number,
            previous: OnceLock::new(),
            renewed: None,
            stale: Moment::from_millis(0),
            expires: Moment::from_millis(0),
            rejected: AtomicBool::new(false),
            used: AtomicBool::new(false),
            asked_for: AtomicBool::new(false),
            named_on: AtomicI32::new(i32::MIN),
            confirmed: AtomicU32::new(0),
            not_ahead_before: AtomicU64::new(0),
            replay: AtomicU64::new(UNTRIED),
        }
    }

    /// The same token as that of another generation and epoch: the store went back to those.
    pub(in crate::credentials) fn renumbered(&self, to: Version) -> Credentials {
        let flag = |of: &AtomicBool| AtomicBool::new(of.load(Ordering::Relaxed));
        let number = |of: &AtomicU64| AtomicU64::new(of.load(Ordering::Relaxed));
        Credentials {
            principal: self.principal.clone(),
            authorization: self.authorization.clone(),
            log_hash: self.log_hash,
            generation: to.generation,
            epoch: to.epoch,
            instance: self.instance,
            expires_in_form: self.expires_in_form,
            previous: self.previous.clone(),
            renewed: self.renewed,
            stale: self.stale,
            expires: self.expires,
            rejected: flag(&self.rejected),
            used: flag(&self.used),
            asked_for: flag(&self.asked_for),
            named_on: AtomicI32::new(self.named_on.load(Ordering::Relaxed)),
            confirmed: AtomicU32::new(self.confirmed.load(Ordering::Relaxed)),
            not_ahead_before: number(&self.not_ahead_before),
            replay: number(&self.replay),
        }
    }

    /// `Bearer <token>`, marked sensitive.
    pub fn authorization(&self) -> &HeaderValue {
        &self.authorization
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

    /// Whether it has neither expired at `now` nor been rejected.
    pub(in crate::credentials) fn is_usable(&self, now: Moment) -> bool {
        now < self.expires && !self.rejected.load(Ordering::Relaxed)
    }

    /// Whether both are the same JWT, whatever their generations: after a setback of the store a generation
    /// comes a second time.
    pub(in crate::credentials) fn is_same_token(&self, other: &Credentials) -> bool {
        self.authorization == other.authorization
    }

    /// The epoch of the principal's entry: a forget raises it.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The instance that the user is known under; `None` for accounts, or if it is no longer known.
    pub fn instance(&self) -> Option<InstanceId> {
        self.instance
    }

    /// How long the JWT still lives at `now`, a moment of the engine's own
    /// [`Clock`](crate::clock::Clock); zero once it has expired. 30 days at most.
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

    /// Whether an answer other than 401 came back for it.
    pub(in crate::credentials) fn is_accepted(&self) -> bool {
        self.replay.load(Ordering::Relaxed) == ACCEPTED
    }

    /// A request is replayed with it from now on.
    pub(in crate::credentials) fn begin_replay(&self, now: Moment) {
        let until = now.plus(REPLAY_WITHIN).as_millis();
        // Only the first replay tells: after it the token is accepted, or judged by later 401s.
        let _ = self
            .replay
            .compare_exchange(UNTRIED, until, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether the first replay with it is under way, which will tell if a 401 for it is about expiry.
    pub(in crate::credentials) fn is_replay_pending(&self, now: Moment) -> bool {
        let until = self.replay.load(Ordering::Relaxed);
        until != ACCEPTED && now.as_millis() < until
    }

    /// Whether a background renewal is due now. A caller that is told so starts one, so that a renewal
    /// that fails is not started again by every request.
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock;
    use crate::credentials::fixture::{account, credentials_of};

    /// They live for 100 s.
    fn credentials(clock: &Clock) -> Credentials {
        let mut credentials = Arc::into_inner(credentials_of(account(), 1)).unwrap();
        credentials.expires = clock.now().plus(Duration::from_secs(100));
        credentials
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_say_what_they_are_and_how_long_they_live() {
        let clock = Clock::real();
        let found = credentials(&clock);
        assert_eq!(found.token(), "1");
        clock.sleep(Duration::from_secs(40)).await;
        assert_eq!(found.left(clock.now()), Duration::from_secs(60));
        clock.sleep(Duration::from_secs(70)).await;
        assert_eq!(found.left(clock.now()), Duration::ZERO);
    }

    #[test]
    fn credentials_with_a_jwt_of_700_bytes_cost_at_most_1_100_bytes() {
        let jwt = "x".repeat(700);
        let mut found = credentials(&Clock::real());
        found.authorization = HeaderValue::try_from([SCHEME, &jwt].concat()).unwrap();
        assert!(
            (1_000..=1_100).contains(&found.bytes()),
            "{}",
            found.bytes()
        );
    }

    #[test]
    fn a_background_renewal_is_claimed_once_a_minute() {
        let clock = Clock::real();
        let found = credentials(&clock);
        let now = clock.now();
        assert!(found.claim_ahead(now));
        assert!(!found.claim_ahead(now));
        assert!(found.claim_ahead(now.plus(Duration::from_secs(60))));
    }
}

//! One breaker for each InstanceKey: a wrong key must not use up the login budget.
//!
//! ```text
//!              three logins in a row are rejected
//!   closed ───────────────────────────────────────▶ open: one probe of each class in
//!     ▲                                              │     `remember_rejected`
//!     └───────────── a login is accepted ────────────┘
//! ```
//!
//! Only rejected logins of principals that had logged in before count: those of made-up users say nothing
//! about the key. All processes on one store share a breaker, across restarts; a changed key has another
//! one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::shared::{self, Shared, SharedMoment};
use crate::clock::Clock;
use crate::credentials::settings::Current;
use crate::principal::InstanceId;
use crate::store::{Class, Error, Guard, GuardRows};

/// This many rejected logins in a row open the breaker.
const OPENS_AT: u32 = 3;

/// Identifies an instance and its key without giving them away.
pub(crate) type Fingerprint = [u8; 8];

/// The breakers of all instances.
pub(crate) struct Breakers {
    /// One for each key that this process has used; made on first use and kept, since there are no more
    /// keys than the configuration names. The lock is held to find one, never across a call to the store.
    by_key: Mutex<HashMap<Fingerprint, Arc<OfKey>>>,
    store: Arc<dyn GuardRows>,
    /// While open, one login of each class is let through in `remember_rejected`.
    current: Current,
    clock: Clock,
}

/// The breaker of one key.
struct OfKey {
    shared: Shared<Breaker>,
    /// How many logins this process held back while it was open, for the log.
    held: AtomicU64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Breaker {
    Closed {
        /// How many logins in a row were rejected.
        rejected: u32,
    },
    Open {
        since: SharedMoment,
        /// The last probe of a principal that had logged in before.
        last_known: SharedMoment,
        /// The last probe of another one. Apart, because made-up principals, which are all rejected, must
        /// not use up the probes of known ones.
        last_new: SharedMoment,
    },
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker::Closed { rejected: 0 }
    }
}

impl Breaker {
    fn admit(&mut self, class: Class, now: &SharedMoment, probe_every: Duration) -> bool {
        let last = match (self, class) {
            (Breaker::Closed { .. }, _) => return true,
            (Breaker::Open { last_known, .. }, Class::Known) => last_known,
            (Breaker::Open { last_new, .. }, Class::New) => last_new,
        };
        let admitted = now.since(last) >= probe_every;
        if admitted {
            *last = *now;
        }
        admitted
    }

    /// The probe that was admitted last was not sent: the next login of its class is one.
    fn not_tried(&mut self, class: Class) {
        match (self, class) {
            (Breaker::Closed { .. }, _) => {}
            (Breaker::Open { last_known, .. }, Class::Known) => *last_known = Default::default(),
            (Breaker::Open { last_new, .. }, Class::New) => *last_new = Default::default(),
        }
    }

    /// Returns true if this opens it.
    fn rejected(&mut self, now: &SharedMoment) -> bool {
        let Breaker::Closed { rejected } = self else {
            return false;
        };
        *rejected += 1;
        let opens = *rejected >= OPENS_AT;
        if opens {
            *self = Breaker::Open {
                since: *now,
                last_known: *now,
                last_new: *now,
            };
        }
        opens
    }
}

impl Breakers {
    pub(crate) fn new(current: Current, store: Arc<dyn GuardRows>, clock: Clock) -> Breakers {
        Breakers {
            by_key: Mutex::default(),
            store,
            current,
            clock,
        }
    }

    /// Whether a login with this key may be sent now. If the breaker is open, it is the probe.
    pub(crate) async fn admit(&self, key: Fingerprint, class: Class) -> Result<bool, Error> {
        let (breaker, now) = (self.of(key), SharedMoment::now(&*self.store));
        let probe_every = self.current.now().settings.remember_rejected;
        let admit = |breaker: &mut Breaker| breaker.admit(class, &now, probe_every);
        let admitted = breaker.shared.update(&*self.store, admit).await?;
        if !admitted {
            breaker.held.fetch_add(1, Ordering::Relaxed);
        }
        Ok(admitted)
    }

    /// The login that was admitted last was not sent.
    pub(crate) async fn not_tried(&self, key: Fingerprint, class: Class) -> Result<(), Error> {
        let breaker = self.of(key);
        // Read when it was admitted.
        if let Breaker::Closed { .. } = *breaker.shared.last_seen() {
            return Ok(());
        }
        let change = |breaker: &mut Breaker| breaker.not_tried(class);
        breaker.shared.update(&*self.store, change).await
    }

    /// A login of `instance` with this key succeeded.
    pub(crate) async fn close(&self, instance: InstanceId, key: Fingerprint) {
        match self.accepted(key).await {
            Ok(None) => {}
            Ok(Some((open, hurt))) => {
                let seconds = self.clock.to_real(open).as_secs();
                tracing::warn!(
                    %instance,
                    seconds,
                    hurt,
                    "logins of this instance are accepted again, and no longer held back"
                );
            }
            Err(error) => {
                tracing::warn!(%instance, %error, "the breaker could not record an accepted login");
            }
        }
    }

    /// A login succeeded. If that closes an open breaker: how long it was open, and how many logins
    /// this process held back.
    async fn accepted(&self, key: Fingerprint) -> Result<Option<(Duration, u64)>, Error> {
        let breaker = self.of(key);
        // Read when it was admitted.
        if *breaker.shared.last_seen() == Breaker::default() {
            return Ok(None);
        }
        let before = breaker.shared.update(&*self.store, std::mem::take).await?;
        let held = breaker.held.swap(0, Ordering::Relaxed);
        Ok(match before {
            Breaker::Open { since, .. } => {
                Some((SharedMoment::now(&*self.store).since(&since), held))
            }
            Breaker::Closed { .. } => None,
        })
    }

    /// A login of `instance` with this key was rejected, of a principal that had logged in before.
    pub(crate) async fn rejected(
        &self,
        instance: InstanceId,
        key: Fingerprint,
    ) -> Result<(), Error> {
        if self.count_rejected(key).await? {
            tracing::error!(
                %instance,
                "logins of this instance are rejected one after the other: is its key right? Only \
                 a probe is sent now and then, all other logins are held back"
            );
        }
        Ok(())
    }

    /// Returns true if this opens the breaker.
    async fn count_rejected(&self, key: Fingerprint) -> Result<bool, Error> {
        let (breaker, now) = (self.of(key), SharedMoment::now(&*self.store));
        let reject = |breaker: &mut Breaker| breaker.rejected(&now);
        breaker.shared.update(&*self.store, reject).await
    }

    fn of(&self, key: Fingerprint) -> Arc<OfKey> {
        let mut by_key = self.by_key.lock().expect("no code panics under this lock");
        let named = || {
            Arc::new(OfKey {
                shared: Shared::new(row(key)),
                held: AtomicU64::new(0),
            })
        };
        by_key.entry(key).or_insert_with(named).clone()
    }
}

/// The row of the store in which the breaker of this key is.
pub(crate) fn row(key: Fingerprint) -> String {
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("breaker {hex}")
}

/// How long the breaker in a row holds a login of this class back; `None` if it does not.
pub(crate) fn holds(
    row: &Guard,
    class: Class,
    now: &SharedMoment,
    probe_every: Duration,
) -> Option<Duration> {
    let last = match (shared::read(row).ok()?, class) {
        (Breaker::Closed { .. }, _) => return None,
        (Breaker::Open { last_known, .. }, Class::Known) => last_known,
        (Breaker::Open { last_new, .. }, Class::New) => last_new,
    };
    let left = probe_every.saturating_sub(now.since(&last));
    (!left.is_zero()).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Settings;
    use crate::credentials::fixture::{directory, settings};
    use crate::store::contract::{open_in, pseudonyms, run};

    const EVERY: Duration = Duration::from_secs(600);

    fn at(seconds: i64) -> SharedMoment {
        SharedMoment::of_boot(1, seconds)
    }

    fn open() -> Breaker {
        let mut breaker = Breaker::default();
        assert!(!breaker.rejected(&at(0)));
        assert!(!breaker.rejected(&at(0)));
        assert!(breaker.admit(Class::Known, &at(0), EVERY));
        assert!(breaker.rejected(&at(0)));
        breaker
    }

    #[test]
    fn three_rejections_in_a_row_open_it_and_one_probe_passes_in_a_while() {
        let mut breaker = open();
        assert!(!breaker.admit(Class::Known, &at(599), EVERY));
        assert!(breaker.admit(Class::Known, &at(600), EVERY));
        assert!(!breaker.admit(Class::Known, &at(1199), EVERY));
        assert!(breaker.admit(Class::Known, &at(1200), EVERY));
    }

    #[test]
    fn a_probe_that_was_not_sent_is_not_used_up() {
        let mut breaker = open();
        assert!(breaker.admit(Class::Known, &at(600), EVERY));
        breaker.not_tried(Class::Known);
        assert!(!breaker.admit(Class::New, &at(599), EVERY));
        assert!(breaker.admit(Class::Known, &at(601), EVERY));
        assert!(!breaker.admit(Class::Known, &at(602), EVERY));
    }

    #[test]
    fn made_up_principals_do_not_use_up_the_probe_of_known_ones() {
        let mut breaker = open();
        assert!(breaker.admit(Class::New, &at(600), EVERY));
        assert!(!breaker.admit(Class::New, &at(600), EVERY));
        assert!(breaker.admit(Class::Known, &at(600), EVERY));
        assert!(!breaker.admit(Class::Known, &at(600), EVERY));
    }

    #[tokio::test]
    async fn processes_and_restarts_share_it_and_another_key_has_another_one() {
        let directory = tempfile::tempdir().unwrap();
        let start = || {
            let store = open_in(directory.path(), pseudonyms(), run(), Clock::real());
            let settings = Settings {
                remember_rejected: EVERY,
                ..settings()
            };
            let current = Current::new(settings, Arc::new(self::directory()));
            Breakers::new(current, store, Clock::real())
        };
        let (key, changed) = ([1; 8], [2; 8]);
        let one = start();
        for opens in [false, false, true] {
            // Each time in a process that knows nothing yet.
            assert_eq!(start().count_rejected(key).await, Ok(opens));
        }
        for breakers in [&one, &start()] {
            assert_eq!(breakers.admit(key, Class::Known).await, Ok(false));
            assert_eq!(breakers.admit(changed, Class::Known).await, Ok(true));
        }
        let closed = one.accepted(key).await.unwrap();
        assert_eq!(closed.map(|(_, held)| held), Some(1));
        assert_eq!(start().admit(key, Class::Known).await, Ok(true));
    }
}

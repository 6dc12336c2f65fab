//! One breaker per instance: a wrong InstanceKey must not burn the login budget. It opens after
//! rejected logins of principals that had logged in before, and is never fed by ones never seen.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::principal::InstanceId;
use crate::store::Class;

/// So many rejected logins in a row open the breaker.
const OPENS_AT: u32 = 3;

/// The breakers of all instances. A changed key means a new configuration, hence a new one of these.
#[derive(Debug)]
pub(super) struct Breakers {
    by_instance: Mutex<HashMap<InstanceId, Breaker>>,
    /// While open, one login of each class in this time is let through.
    probe_every: Duration,
    clock: Clock,
}

#[derive(Debug)]
enum Breaker {
    Closed {
        rejected: u32,
    },
    /// Principals seen before have a probe of their own: made-up ones, all rejected, must not use
    /// it up.
    Open {
        since: Moment,
        next_known: Moment,
        next_new: Moment,
        /// Logins that were held back.
        held: u64,
    },
}

impl Breakers {
    pub(super) fn new(probe_every: Duration, clock: Clock) -> Breakers {
        Breakers {
            by_instance: Mutex::default(),
            probe_every,
            clock,
        }
    }

    /// Whether a login may be tried now. While open, a yes is the probe.
    pub(super) fn admit(&self, instance: InstanceId, class: Class) -> bool {
        let now = self.clock.now();
        let mut breakers = self.lock();
        let Some(Breaker::Open {
            next_known,
            next_new,
            held,
            ..
        }) = breakers.get_mut(&instance)
        else {
            return true;
        };
        let next_probe = match class {
            Class::Known => next_known,
            Class::New => next_new,
        };
        let admitted = now >= *next_probe;
        match admitted {
            true => *next_probe = now.plus(self.probe_every),
            false => *held += 1,
        }
        admitted
    }

    /// A login succeeded. If that closes an open breaker: how long it was open, and how many logins
    /// it held back.
    pub(super) fn accepted(&self, instance: InstanceId) -> Option<(Duration, u64)> {
        match self.lock().remove(&instance)? {
            Breaker::Open { since, held, .. } => Some((self.clock.now().since(since), held)),
            Breaker::Closed { .. } => None,
        }
    }

    /// A login of a principal that had logged in before was rejected: true when this opens it.
    pub(super) fn rejected(&self, instance: InstanceId) -> bool {
        let mut breakers = self.lock();
        let breaker = breakers
            .entry(instance)
            .or_insert(Breaker::Closed { rejected: 0 });
        let Breaker::Closed { rejected } = breaker else {
            return false;
        };
        *rejected += 1;
        let opens = *rejected >= OPENS_AT;
        if opens {
            let now = self.clock.now();
            let next = now.plus(self.probe_every);
            *breaker = Breaker::Open {
                since: now,
                next_known: next,
                next_new: next,
                held: 0,
            };
        }
        opens
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<InstanceId, Breaker>> {
        self.by_instance
            .lock()
            .expect("no code panics under this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn three_rejections_in_a_row_open_it_and_one_probe_passes_in_a_while() {
        let clock = Clock::real();
        let breakers = Breakers::new(Duration::from_secs(600), clock);
        let instance = InstanceId::parse("11111111-1111-4111-8111-111111111111").unwrap();
        breakers.rejected(instance);
        breakers.rejected(instance);
        assert_eq!(breakers.accepted(instance), None);
        breakers.rejected(instance);
        breakers.rejected(instance);
        assert!(breakers.admit(instance, Class::Known));
        assert!(breakers.rejected(instance));
        assert!(!breakers.admit(instance, Class::Known));

        clock.sleep(Duration::from_secs(600)).await;
        assert!(breakers.admit(instance, Class::Known));
        assert!(!breakers.admit(instance, Class::Known));
        let (open, held) = breakers.accepted(instance).unwrap();
        assert_eq!((open, held), (Duration::from_secs(600), 2));
        assert!(breakers.admit(instance, Class::Known));
    }

    #[tokio::test(start_paused = true)]
    async fn made_up_principals_do_not_use_up_the_probe_of_known_ones() {
        let clock = Clock::real();
        let breakers = Breakers::new(Duration::from_secs(600), clock);
        let instance = InstanceId::parse("11111111-1111-4111-8111-111111111111").unwrap();
        for _ in 0..OPENS_AT {
            breakers.rejected(instance);
        }
        clock.sleep(Duration::from_secs(600)).await;
        assert!(breakers.admit(instance, Class::New));
        assert!(!breakers.admit(instance, Class::New));
        assert!(breakers.admit(instance, Class::Known));
        assert!(!breakers.admit(instance, Class::Known));
    }
}

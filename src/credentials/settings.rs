//! What the configuration says of credentials. It is read at the time of use and replaced as a whole, so
//! that new numbers hold from the next read on, and no reader sees half of a change.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::clock::Clock;
use crate::directory::Directory;
use crate::principal::InstanceId;
use crate::store::LoginWindows;

/// The numbers of the engine. One part of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The API's limit on logins, with a margin. Its group stays what it was at the start: a slot that
    /// is taken is given back to the same group.
    pub budget: LoginWindows,
    /// How long a 429 without Retry-After blocks logins.
    pub blocked_for: Duration,
    /// Renew in the background after this share of a JWT's life: above 0, below 1.
    pub ahead: f64,
    /// How long a request waits for credentials.
    pub wait: Duration,
    /// The deadline of one call to the Auth endpoints.
    pub timeout: Duration,
    /// How long the lease of a renewal lasts without a heartbeat, in real time; longer if `timeout` demands
    /// it.
    pub lease: Duration,
    /// Idle pairs are renewed at this age; `None`: never.
    pub keep_refresh_tokens: Option<Duration>,
    /// The pace of renewals that no request waits for; at least 1.
    pub renewals_per_second: u32,
    /// How long a rejected login is remembered.
    pub remember_rejected: Duration,
    /// One login in this time for a contested principal; zero switches the guard off.
    pub contested_backoff: Duration,
    /// The pairs of users that no caller named for so long are forgotten; `None`: never.
    pub forget_unused: Option<Duration>,
    /// Bytes of credentials kept in memory. Stays what it was at the start: the cache is made for it.
    pub max_cached: u64,
}

/// How long a lease lasts without a heartbeat: so long does a process that died hold others up.
pub const LEASE: Duration = Duration::from_secs(15);
/// By so much a lease that was just taken, or prolonged, outlasts a call: for the store's answer, and for
/// what comes between that and the call.
const LEASE_MARGIN: Duration = Duration::from_secs(5);

impl Settings {
    /// How long a lease lasts without a heartbeat, in real time. A call is sent only if the lease outlasts
    /// its deadline: so it lasts for [`Settings::lease`], but at least 5 s longer than `timeout`, which
    /// `clock` means.
    pub(crate) fn lease_time(&self, clock: Clock) -> Duration {
        let call = clock.to_real(self.timeout);
        self.lease.max(call.saturating_add(LEASE_MARGIN))
    }
}

/// The numbers and the directory of one configuration.
#[derive(Debug)]
pub(crate) struct Configured {
    pub(crate) settings: Settings,
    /// Who can be logged in, with what.
    pub(crate) directory: Arc<Directory>,
}

/// What is in force now. Cheap to clone; every clone sees what is published.
#[derive(Clone, Debug)]
pub(crate) struct Current(Arc<ArcSwap<Configured>>);

impl Current {
    pub(crate) fn new(settings: Settings, directory: Arc<Directory>) -> Current {
        Current(Arc::new(ArcSwap::from_pointee(Configured {
            settings,
            directory,
        })))
    }

    /// What is in force at this moment; it does not change under its holder.
    pub(crate) fn now(&self) -> Arc<Configured> {
        self.0.load_full()
    }

    /// Whether the instance is configured at this moment.
    pub(crate) fn has(&self, instance: InstanceId) -> bool {
        self.0.load().directory.instance(instance).is_some()
    }

    /// Puts these in force, except for what stays as it was at the start.
    pub(crate) fn publish(&self, settings: Settings, directory: Arc<Directory>) {
        let before = self.now();
        let budget = LoginWindows {
            group: before.settings.budget.group.clone(),
            ..settings.budget
        };
        self.0.store(Arc::new(Configured {
            settings: Settings {
                budget,
                max_cached: before.settings.max_cached,
                ..settings
            },
            directory,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::fixture::{directory, settings};

    #[test]
    fn a_lease_outlasts_a_call() {
        let (mut settings, clock) = (settings(), Clock::real());
        (settings.lease, settings.timeout) = (LEASE, Duration::from_secs(10));
        assert_eq!(settings.lease_time(clock), Duration::from_secs(15));
        settings.timeout = Duration::from_secs(60);
        assert_eq!(settings.lease_time(clock), Duration::from_secs(65));
        assert_eq!(settings.lease_time(Clock::scaled(60)), LEASE);
    }

    #[test]
    fn what_is_published_is_seen_by_all_but_for_what_stays() {
        let current = Current::new(settings(), Arc::new(directory()));
        let (other, before) = (current.clone(), current.now());
        let mut new = settings();
        new.wait = Duration::from_secs(7);
        new.budget.group = "another".into();
        new.max_cached += 1;
        current.publish(new, Arc::new(Directory::new(Vec::new(), Vec::new())));

        let now = other.now();
        assert_eq!(now.settings.wait, Duration::from_secs(7));
        assert!(now.directory.instances().is_empty());
        assert_eq!(now.settings.budget.group, before.settings.budget.group);
        assert_eq!(now.settings.max_cached, before.settings.max_cached);
        assert_eq!(before.directory.instances().len(), 2, "held to its end");
    }
}

//! The one clock of the engine: monotonic moments for durations, wall-clock timestamps where an
//! expiry is persisted. With the `simulator` feature `DAMOOV_PROXY_TIME_SCALE` divides every
//! duration, so that a week passes in minutes. Knows nothing of tokens.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::ClockId;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A point on the monotonic clock, in scaled time since the [`Clock`] was made: nanoseconds, which
/// last for 584 years. Does not advance while the machine is suspended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// Later than all others.
    pub const MAX: Moment = Moment(u64::MAX);

    /// The moment `after` this one.
    pub fn plus(self, after: Duration) -> Moment {
        Moment(self.0.saturating_add(nanos(after)))
    }

    /// How long after `earlier` this moment lies; zero if it lies before.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Milliseconds since the clock was made, for an atomic that holds a moment.
    pub fn as_millis(self) -> u64 {
        self.0 / NANOS_A_MILLI
    }

    /// The inverse of [`Moment::as_millis`].
    pub fn from_millis(millis: u64) -> Moment {
        Moment(millis.saturating_mul(NANOS_A_MILLI))
    }
}

/// Milliseconds since the Unix epoch on the (scaled) wall clock. Only what is persisted uses it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Timestamp {
        Timestamp(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The timestamp `after` this one.
    pub fn plus(self, after: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(millis(after)))
    }

    /// The timestamp `before` this one.
    pub fn minus(self, before: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(millis(before)))
    }

    /// How long after `earlier` this lies; zero if it lies before.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// A moment as it is persisted if a step of the wall clock must not count: also by the clock that
/// runs since the machine booted, which nobody sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// The boot that `since_boot` counts from.
    pub boot: Boot,
    /// (Scaled) milliseconds since then, suspended ones too. Below zero: before that boot.
    pub since_boot: i64,
    /// The wall clock of that moment, which counts if the machine has booted since.
    pub wall: Timestamp,
}

/// One boot of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Boot(pub u64);

impl Stamp {
    /// How long before `now` this was: within one boot as the clock since then says, else as the
    /// wall clock does. Zero if it would lie after `now`.
    pub fn age(self, now: Stamp) -> Duration {
        let millis = match self.boot == now.boot {
            true => now.since_boot.saturating_sub(self.since_boot),
            false => now.wall.0.saturating_sub(self.wall.0),
        };
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    /// The same moment on the clocks of `now`: from here on a step of the wall clock does not count.
    pub fn seen_from(self, now: Stamp) -> Stamp {
        match self.boot == now.boot {
            true => self,
            false => now.minus(self.age(now)),
        }
    }

    /// The moment `before` this one.
    pub fn minus(self, before: Duration) -> Stamp {
        Stamp {
            boot: self.boot,
            since_boot: self.since_boot.saturating_sub(millis(before)),
            wall: self.wall.minus(before),
        }
    }
}

const NANOS_A_MILLI: u64 = 1_000_000;

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Tells the time and sleeps. One is made at start and copied to all that need it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    scale: u32,
    /// What [`Clock::stamp`] says instead of the machine's clocks.
    #[cfg(test)]
    set: Option<&'static std::sync::Mutex<Stamp>>,
}

impl Clock {
    /// The clock of an ordinary run: real time.
    pub fn real() -> Clock {
        Clock::scaled(1)
    }

    /// A clock on which `scale` seconds pass in every real one. Zero counts as 1.
    pub fn scaled(scale: u32) -> Clock {
        Clock {
            started: Instant::now(),
            scale: scale.max(1),
            #[cfg(test)]
            set: None,
        }
    }

    /// The same clock in real time: for what a store counts by.
    pub fn unscaled(mut self) -> Clock {
        self.scale = 1;
        self
    }

    /// A clock whose stamps are all the one that [`Clock::set`] said last.
    #[cfg(test)]
    pub(crate) fn standing(at: Stamp) -> Clock {
        let mut clock = Clock::real();
        clock.set = Some(Box::leak(Box::new(std::sync::Mutex::new(at))));
        clock
    }

    #[cfg(test)]
    pub(crate) fn set(&self, at: Stamp) {
        *self.set.expect("a standing clock").lock().unwrap() = at;
    }

    /// Real time, or with the `simulator` feature what `DAMOOV_PROXY_TIME_SCALE` says (a whole
    /// number; anything else counts as 1).
    pub fn from_environment() -> Clock {
        #[cfg(feature = "simulator")]
        if let Some(scale) = std::env::var("DAMOOV_PROXY_TIME_SCALE")
            .ok()
            .and_then(|s| s.parse().ok())
        {
            return Clock::scaled(scale);
        }
        Clock::real()
    }

    /// Now, for durations.
    pub fn now(&self) -> Moment {
        Moment(nanos(self.started.elapsed()).saturating_mul(u64::from(self.scale)))
    }

    /// Now, for what is persisted. Scaled from the Unix epoch, so that several processes with the
    /// same scale agree.
    pub fn wall(&self) -> Timestamp {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.timestamp(since_epoch)
    }

    /// The timestamp of a real time since the Unix epoch, of a clock that is not this machine's.
    pub fn timestamp(&self, since_epoch: Duration) -> Timestamp {
        Timestamp(millis(since_epoch).saturating_mul(i64::from(self.scale)))
    }

    /// Now, for what is persisted and must not move with the wall clock.
    pub fn stamp(&self) -> Stamp {
        #[cfg(test)]
        if let Some(set) = self.set {
            return *set.lock().unwrap();
        }
        Stamp {
            boot: boot(),
            since_boot: millis(since_boot()).saturating_mul(i64::from(self.scale)),
            wall: self.wall(),
        }
    }

    /// Sleeps for `duration` of this clock.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(self.to_real(duration)).await;
    }

    /// Sleeps until `moment`; at once if it has passed.
    pub async fn sleep_until(&self, moment: Moment) {
        self.sleep(moment.since(self.now())).await;
    }

    /// The real time that `duration` of this clock takes.
    pub fn to_real(&self, duration: Duration) -> Duration {
        duration / self.scale
    }

    /// What passes on this clock while `real` passes.
    pub fn from_real(&self, real: Duration) -> Duration {
        real.saturating_mul(self.scale)
    }

    /// What passes on this clock in a real second.
    pub fn second(&self) -> Duration {
        Duration::from_secs(u64::from(self.scale))
    }
}

/// Real time since this machine booted, the time included that it was suspended for. Nobody sets this
/// clock.
pub fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// This boot of this machine, as long as the process lives. If the kernel does not tell, one that
/// no other process knows: then the wall clock counts.
fn boot() -> Boot {
    static BOOT: OnceLock<Boot> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let id = id.ok().and_then(|id| id.trim().parse::<uuid::Uuid>().ok());
        Boot(id.unwrap_or_else(uuid::Uuid::new_v4).as_u64_pair().0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_a_boot_an_age_is_its_clocks_after_another_the_walls() {
        let stamp = |boot, since_boot, wall| Stamp {
            boot: Boot(boot),
            since_boot,
            wall: Timestamp::from_millis(wall),
        };
        let then = stamp(1, 1_000, 500_000);
        let age = |now| then.age(now).as_millis();
        assert_eq!(age(stamp(1, 1_700, 500_700)), 700);
        assert_eq!(age(stamp(1, 1_700, 9_000_000)), 700);
        assert_eq!(age(stamp(1, 1_700, 1)), 700);
        assert_eq!(age(stamp(2, 50, 500_300)), 300);
        assert_eq!(age(stamp(2, 50, 1)), 0);
        let seen = then.seen_from(stamp(2, 50, 500_300));
        assert_eq!(seen, stamp(2, -250, 500_000));
        assert_eq!(seen.age(stamp(2, 150, 9_000_000)).as_millis(), 400);
        let ahead = then.seen_from(stamp(2, 50, 1));
        assert_eq!(ahead, stamp(2, 50, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_scaled_clock_divides_sleeps_and_multiplies_what_has_passed() {
        let clock = Clock::scaled(60);
        let (before, real) = (clock.now(), Instant::now());
        clock.sleep(Duration::from_secs(60)).await;
        assert!(real.elapsed() <= Duration::from_millis(1_010));
        assert!(clock.now().since(before) >= Duration::from_secs(60));
    }

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(
            Moment::from_millis(5).since(Moment::from_millis(9)),
            Duration::ZERO
        );
        let end_of_time = Moment::from_millis(5).plus(Duration::MAX);
        assert_eq!(end_of_time.plus(Duration::MAX), end_of_time);
        assert!(Moment::from_millis(u64::MAX) <= end_of_time);
        assert_eq!(
            Timestamp::from_millis(5).since(Timestamp::from_millis(9)),
            Duration::ZERO
        );
        assert_eq!(
            Timestamp::from_millis(i64::MAX)
                .plus(Duration::MAX)
                .as_millis(),
            i64::MAX
        );
    }
}

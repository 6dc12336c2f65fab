//! The one clock of the engine: monotonic moments for durations, wall-clock timestamps where an
//! expiry is persisted. With the `simulator` feature `DAMOOV_PROXY_TIME_SCALE` divides every
//! duration, so that a week passes in minutes. Knows nothing of tokens.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A point on the monotonic clock, in scaled time since the [`Clock`] was made: nanoseconds, which
/// last for 584 years. Does not advance while the machine is suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

const NANOS_A_MILLI: u64 = 1_000_000;

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Tells the time and sleeps. One is made at start and copied to whoever needs it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    scale: u32,
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
        }
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
        Timestamp(millis(since_epoch).saturating_mul(i64::from(self.scale)))
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
}

#[cfg(test)]
mod tests {
    use super::*;

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

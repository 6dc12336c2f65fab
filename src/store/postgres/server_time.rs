//! The clock of the store: that of the server, as well as it can be told from here. Counted on the
//! clock that runs since this machine booted, so that nobody who sets this machine's clock moves it.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::{self, Boot, Clock, Stamp, Timestamp};

/// The server's clock, as the last measurements say.
pub(super) struct ServerTime {
    /// Scales what is persisted.
    clock: Clock,
    /// `None` until a server was asked: the machine's own clock has to do.
    measured: Mutex<Option<Measured>>,
}

/// What the server's clock was seen to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measured {
    /// The server's clock minus the time since boot, in microseconds.
    offset: i64,
    /// How wrong `offset` may have been when it was measured: half of the round trip.
    error: i64,
    /// When that was: microseconds since boot.
    at: i64,
}

/// A question to a server that is under way.
pub(super) struct Reading {
    asked_at: i64,
}

impl Reading {
    /// The question is sent now.
    pub(super) fn begin() -> Reading {
        Reading {
            asked_at: since_boot(),
        }
    }

    /// The answer has come: the server's clock, in microseconds since the Unix epoch. It was read at
    /// some time in between.
    pub(super) fn end(&self, server: i64) -> Measured {
        let at = since_boot();
        let error = (at - self.asked_at) / 2;
        Measured {
            offset: server.saturating_sub(self.asked_at + error),
            error,
            at,
        }
    }
}

/// Two good quartz clocks drift apart by less: microseconds a second.
const DRIFT: i64 = 100;

impl Measured {
    /// How wrong it may be at `at`.
    fn error_at(self, at: i64) -> i64 {
        self.error + (at - self.at) / 1_000_000 * DRIFT
    }

    /// Whether this one tells more than `old`: it is more precise by now, or proves it wrong.
    fn replaces(self, old: Measured) -> bool {
        let error = old.error_at(self.at);
        self.error <= error || (self.offset - old.offset).abs() > self.error + error
    }
}

impl ServerTime {
    pub(super) fn new(clock: Clock) -> ServerTime {
        ServerTime {
            clock,
            measured: Mutex::default(),
        }
    }

    /// Takes a measurement into account.
    pub(super) fn learn(&self, new: Measured) {
        let mut measured = self
            .measured
            .lock()
            .expect("no code panics under this lock");
        if measured.is_none_or(|old| new.replaces(old)) {
            *measured = Some(new);
        }
    }

    /// The server's clock now, scaled, for what is persisted.
    pub(super) fn wall(&self) -> Timestamp {
        self.clock.timestamp(self.real())
    }

    /// The server's clock as a stamp that every process on the store understands: it counts from one
    /// and the same boot.
    pub(super) fn stamp(&self) -> Stamp {
        let wall = self.wall();
        Stamp {
            boot: Boot(0),
            since_boot: wall.as_millis(),
            wall,
        }
    }

    /// How far the server's clock is ahead of this machine's, in seconds. Zero until it was measured.
    pub(super) fn offset(&self) -> f64 {
        let local = micros(SystemTime::now());
        (self.micros() - local) as f64 / 1e6
    }

    /// The server's clock now, since the Unix epoch.
    fn real(&self) -> Duration {
        Duration::from_micros(self.micros().try_into().unwrap_or(0))
    }

    fn micros(&self) -> i64 {
        let measured = *self
            .measured
            .lock()
            .expect("no code panics under this lock");
        match measured {
            Some(measured) => since_boot().saturating_add(measured.offset),
            None => micros(SystemTime::now()),
        }
    }
}

/// Microseconds since the machine booted, suspended ones too.
fn since_boot() -> i64 {
    i64::try_from(clock::since_boot().as_micros()).unwrap_or(i64::MAX)
}

fn micros(wall: SystemTime) -> i64 {
    let since_epoch = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(offset: i64, error: i64, at_seconds: i64) -> Measured {
        Measured {
            offset,
            error,
            at: at_seconds * 1_000_000,
        }
    }

    #[test]
    fn a_slow_answer_does_not_replace_a_quick_one_until_that_is_old() {
        let quick = measured(5_000, 100, 0);
        assert!(!measured(9_000, 8_000, 10).replaces(quick));
        assert!(measured(9_000, 8_000, 100).replaces(quick));
        assert!(measured(5_050, 90, 10).replaces(quick));
    }

    #[test]
    fn a_clock_that_was_set_is_believed_at_once() {
        let quick = measured(5_000, 100, 0);
        assert!(measured(3_600_000_000, 8_000, 1).replaces(quick));
        assert!(measured(-3_600_000_000, 8_000, 1).replaces(quick));
    }

    #[test]
    fn the_stores_clock_is_the_servers_however_far_away_it_is() {
        let time = ServerTime::new(Clock::scaled(60));
        assert!(time.offset().abs() < 1.0);
        let hour = 3_600_000_000;
        let reading = Reading::begin();
        time.learn(reading.end(micros(SystemTime::now()) + hour));
        assert!((time.offset() - 3600.0).abs() < 1.0);
        let ahead = time.wall().as_millis() - Clock::scaled(60).wall().as_millis();
        assert!((ahead - 60 * 3_600_000).abs() < 60_000, "{ahead}");
        let stamp = time.stamp();
        assert_eq!(stamp.boot, Boot(0));
        assert_eq!(stamp.since_boot, stamp.wall.as_millis());
    }
}

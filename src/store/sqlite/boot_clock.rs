//! The clock of leases and claims: what runs since the machine booted, suspended or not. Nobody sets it, and
//! all processes of the machine read the same.

use std::io;
use std::time::Duration;

use crate::clock;

/// CLOCK_BOOTTIME of one boot. A time of another boot means nothing.
#[derive(Clone, Debug)]
pub(super) struct BootClock {
    /// Names the boot, as the kernel does.
    pub(super) boot: String,
}

impl BootClock {
    /// That of this boot.
    pub(super) fn of_this_boot() -> io::Result<BootClock> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(BootClock {
            boot: boot.trim().to_owned(),
        })
    }

    /// Milliseconds since the boot.
    pub(super) fn now(&self) -> i64 {
        i64::try_from(clock::since_boot().as_millis()).unwrap_or(i64::MAX)
    }

    /// When something ends that lasts for `duration` from now on.
    pub(super) fn after(&self, duration: Duration) -> i64 {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        self.now().saturating_add(millis)
    }

    /// How long it is until the time `until` of the boot `boot`; zero if that is over.
    pub(super) fn left(&self, boot: &str, until: i64) -> Duration {
        let millis = match boot == self.boot {
            true => until.saturating_sub(self.now()),
            false => 0,
        };
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }
}

//! Whether the server may have lost what it acknowledged: for a while after it was found again, and since
//! an entry was seen that is older than what is remembered of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::store::postgres::presence::Arrival;
use crate::telemetry::episode::Episode;

/// How long every process may take to restore what the server lost.
const LASTS: Duration = Duration::from_secs(15);

/// The doubt about what the server says.
#[derive(Debug)]
pub(in crate::store::postgres) struct Doubt {
    connected: Arrival,
    /// Until when nothing is believed that would end a pair, because something was seen to be lost.
    lost_until: Mutex<Option<Instant>>,
    /// Wakes the task that restores.
    noticed: Notify,
    /// How many entries were restored.
    restored: AtomicU64,
    /// Lasts until what the server lost is restored.
    went_back: Episode,
}

impl Doubt {
    /// There is none until `connected` says when it begins.
    pub(in crate::store::postgres) fn new(connected: Arrival) -> Doubt {
        Doubt {
            connected,
            lost_until: Mutex::new(None),
            noticed: Notify::new(),
            restored: AtomicU64::new(0),
            went_back: Episode::new(),
        }
    }

    /// How long it lasts still, if there is any.
    pub(in crate::store::postgres) fn left(&self) -> Option<Duration> {
        let connected = *self.connected.borrow();
        let until = (*self.lost_until()).max(connected.map(|at| at + LASTS))?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Says that an entry was seen which is older than what the server had acknowledged.
    pub(in crate::store::postgres) fn went_back(&self) {
        self.found_lost();
        self.noticed.notify_one();
    }

    /// How many entries were restored in all.
    pub(in crate::store::postgres) fn entries_restored(&self) -> u64 {
        self.restored.load(Ordering::Relaxed)
    }

    /// Waits until such an entry was seen.
    pub(super) async fn noticed(&self) {
        self.noticed.notified().await;
    }

    /// Says that the server has lost something.
    pub(super) fn found_lost(&self) {
        *self.lost_until() = Some(Instant::now() + LASTS);
        if self.went_back.failed() {
            tracing::warn!(
                "the store went back in time: entries that it had acknowledged are gone, as after a \
                 fail-over to a standby that lagged behind. This process restores those that it wrote in \
                 the last 10 minutes"
            );
        }
    }

    fn lost_until(&self) -> MutexGuard<'_, Option<Instant>> {
        let locked = self.lost_until.lock();
        locked.expect("no code panics under this lock")
    }

    /// Says how many entries were restored.
    pub(super) fn count_restored(&self, written: u64) {
        self.restored.fetch_add(written, Ordering::Relaxed);
    }

    /// Says that nothing which this process remembers is missing.
    pub(super) fn restored(&self) {
        if let Some(over) = self.went_back.worked() {
            let restored = self.entries_restored();
            let seconds = over.seconds();
            tracing::warn!(
                seconds,
                restored,
                "what this process wrote lately is in the store again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_found_again_is_doubted_for_15_seconds() {
        let (connected, told) = watch::channel(None);
        let doubt = Doubt::new(told);
        assert_eq!(doubt.left(), None);
        connected.send_replace(Some(Instant::now()));
        // It does not begin only when somebody asks.
        tokio::time::advance(Duration::from_secs(14)).await;
        assert_eq!(doubt.left(), Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(doubt.left(), None);
        doubt.went_back();
        assert_eq!(doubt.left(), Some(LASTS));
        tokio::time::advance(Duration::from_secs(10)).await;
        connected.send_replace(Some(Instant::now()));
        assert_eq!(doubt.left(), Some(LASTS));
        doubt.noticed().await;
    }
}

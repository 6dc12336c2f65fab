//! Whether the server may have lost what it acknowledged: for a while after it was found again, and since
//! an entry was seen that is older than what is remembered of it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::telemetry::episode::Episode;

/// How long every process may take to restore what the server lost.
const LASTS: Duration = Duration::from_secs(15);

/// The doubt about what the server says.
#[derive(Debug)]
pub(in crate::store::postgres) struct Doubt {
    /// Counts whenever the server was found again.
    connected: watch::Receiver<u64>,
    state: Mutex<State>,
    /// Wakes the task that restores.
    noticed: Notify,
    /// How many entries were restored.
    restored: AtomicU64,
    /// Lasts until what the server lost is restored.
    went_back: Episode,
}

#[derive(Debug)]
struct State {
    /// The count of `connected` that is accounted for.
    seen: u64,
    /// Until when nothing is believed that would end a pair.
    until: Option<Instant>,
}

impl Doubt {
    /// There is none until `connected` counts.
    pub(in crate::store::postgres) fn new(connected: watch::Receiver<u64>) -> Doubt {
        let seen = *connected.borrow();
        Doubt {
            connected,
            state: Mutex::new(State { seen, until: None }),
            noticed: Notify::new(),
            restored: AtomicU64::new(0),
            went_back: Episode::new(),
        }
    }

    /// How long it lasts still, if there is any.
    pub(in crate::store::postgres) fn left(&self) -> Option<Duration> {
        let connected = *self.connected.borrow();
        let mut state = self.state.lock().expect("no code panics under this lock");
        let now = Instant::now();
        if connected != state.seen {
            state.seen = connected;
            state.until = Some(now + LASTS);
        }
        let left = state.until?.saturating_duration_since(now);
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
        let mut state = self.state.lock().expect("no code panics under this lock");
        state.until = Some(Instant::now() + LASTS);
        drop(state);
        if self.went_back.failed() {
            tracing::warn!(
                "the store went back in time: entries that it had acknowledged are gone, as after a \
                 fail-over to a standby that lagged behind. This process restores those that it wrote in \
                 the last 10 minutes"
            );
        }
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
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_found_again_is_doubted_for_15_seconds() {
        let (connected, counted) = watch::channel(1);
        let doubt = Doubt::new(counted);
        assert_eq!(doubt.left(), None);
        connected.send_replace(2);
        assert_eq!(doubt.left(), Some(LASTS));
        tokio::time::advance(Duration::from_secs(14)).await;
        assert_eq!(doubt.left(), Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(doubt.left(), None);
        doubt.went_back();
        assert_eq!(doubt.left(), Some(LASTS));
        doubt.noticed().await;
    }
}

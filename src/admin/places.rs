//! The connections of the status listener: there are few places, and whoever holds one without asking
//! for anything gives way. Knows nothing of what is asked.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::task::{AbortHandle, JoinSet};

/// So many connections at most.
pub(super) const MOST: usize = 64;

/// What one connection does now. Clones are of the same connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Place(Arc<AtomicU8>);

const SILENT: u8 = 0;
const ANSWERING: u8 = 1;
const ANSWERED: u8 = 2;

/// Connections, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Places {
    tasks: JoinSet<()>,
    taken: Vec<(Place, AbortHandle)>,
}

/// A head is complete; its answer is ready when this is dropped.
#[derive(Debug)]
pub(super) struct Answering(Place);

impl Place {
    /// From a complete head on.
    pub(super) fn answering(&self) -> Answering {
        self.0.store(ANSWERING, Ordering::Relaxed);
        Answering(self.clone())
    }

    fn is(&self, state: u8) -> bool {
        self.0.load(Ordering::Relaxed) == state
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.store(ANSWERED, Ordering::Relaxed);
    }
}

impl Places {
    /// Returns once there is room for one more. The oldest connection that never had a whole head is
    /// closed for it, else the oldest one that has none now.
    pub(super) async fn make_room(&mut self) {
        while self.taken.len() >= MOST {
            let of = |state| self.taken.iter().position(|(place, _)| place.is(state));
            if let Some(oldest) = of(SILENT).or_else(|| of(ANSWERED)) {
                self.taken[oldest].1.abort();
            }
            self.someone_leaves().await;
        }
    }

    /// Serves one more connection.
    pub(super) fn take(
        &mut self,
        place: Place,
        conversation: impl Future<Output = ()> + Send + 'static,
    ) {
        let handle = self.tasks.spawn(conversation);
        self.taken.push((place, handle));
    }

    /// Returns when a connection has ended; never if there is none.
    pub(super) async fn someone_leaves(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
        self.taken.retain(|(_, handle)| !handle.is_finished());
    }
}

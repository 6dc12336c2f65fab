//! The connections of the status listener. There may be few at a time, so that an old one that asks for
//! nothing is closed for a new one. Knows nothing of what is asked.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::task::{AbortHandle, JoinSet};

/// The most connections at a time.
pub(super) const MOST: usize = 64;
/// How many of the newest connections are not closed for want of a head, because they may not have had
/// the time to send one; below [`MOST`].
pub(super) const NEWEST: usize = 16;

/// What one connection does now. Clones are of the same connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Connection(Arc<AtomicU8>);

/// No head has been whole yet.
const SILENT: u8 = 0;
/// An answer is being made.
const ANSWERING: u8 = 1;
/// The last answer has been made: it is being read, or the connection is idle.
const ANSWERED: u8 = 2;

/// Connections, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// Serve them; aborted when this is dropped.
    tasks: JoinSet<()>,
    /// What each does, and what ends it.
    taken: Vec<(Connection, AbortHandle)>,
}

/// A head is complete; its answer is ready when this is dropped.
#[derive(Debug)]
pub(super) struct Answering(Connection);

impl Connection {
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

impl Connections {
    /// Serves one more connection. If there are [`MOST`] already, one is closed for it: the oldest one that
    /// has never sent a whole head, unless it is among the [`NEWEST`]; else the oldest one that has no
    /// request now; else the oldest one.
    pub(super) fn take(
        &mut self,
        connection: Connection,
        conversation: impl Future<Output = ()> + Send + 'static,
    ) {
        if self.taken.len() >= MOST {
            let of = |state| {
                self.taken
                    .iter()
                    .position(|(connection, _)| connection.is(state))
            };
            let silent = of(SILENT).filter(|oldest| oldest + NEWEST < self.taken.len());
            let oldest = silent.or_else(|| of(ANSWERED)).unwrap_or(0);
            self.taken.remove(oldest).1.abort();
        }
        let handle = self.tasks.spawn(conversation);
        self.taken.push((connection, handle));
    }

    /// Returns when a connection has ended; never if there is none.
    pub(super) async fn one_has_ended(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
        self.taken.retain(|(_, handle)| !handle.is_finished());
    }
}

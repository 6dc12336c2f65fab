//! Reads the configuration aside, one reading at a time: a file may lie on a mount that hangs, or be a pipe
//! that nobody writes. A reading cannot be ended from outside; one that hangs is waited for, and told of.
//!
//! ```text
//!   Idle ── read ──▶ reading ── it ends in time ──▶ Idle
//!    ▲                  └── PATIENCE is over: `Hangs` ──▶ hanging ── read: `Hangs` at once ──┐
//!    └───────────────────────── it returns: read again ──────┴──────◀────────────────────────┘
//! ```

use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

/// A reading, or a look at the files, that takes longer hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Reads. `T`: what a reading brings.
#[derive(Debug)]
pub(super) struct Readings<T> {
    hanging: Option<JoinHandle<T>>,
}

/// Why a reading brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unread {
    /// It has not returned yet, and nothing else is read until it does.
    #[error(
        "the file, or one that it names, was not read within 30 s: it is still waiting for its disk, its mount, \
         or the writer of a pipe; it is read again as soon as that answers, or at a restart"
    )]
    Hangs,
    /// It was reported by the hook of panics, and the next reading may go better.
    #[error("a thread panicked")]
    Panicked,
}

impl<T: Send + 'static> Readings<T> {
    /// None has begun.
    pub(super) fn new() -> Readings<T> {
        Readings { hanging: None }
    }

    /// Whether a reading hangs.
    pub(super) fn hang(&self) -> bool {
        self.hanging.is_some()
    }

    /// What `reading` brings. Not begun if an earlier one hangs.
    pub(super) async fn read(
        &mut self,
        reading: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unread> {
        if self
            .hanging
            .as_ref()
            .is_some_and(|hanging| !hanging.is_finished())
        {
            return Err(Unread::Hangs);
        }
        self.hanging = None;
        let mut reading = spawn_blocking(reading);
        match timeout(PATIENCE, &mut reading).await {
            Ok(read) => read.map_err(|_| Unread::Panicked),
            Err(_) => {
                self.hanging = Some(reading);
                Err(Unread::Hangs)
            }
        }
    }

    /// Returns once the reading that hangs has returned. What it brought is old by then, and dropped.
    pub(super) async fn returned(&mut self) {
        match &mut self.hanging {
            Some(hanging) => {
                let _ = hanging.await;
                self.hanging = None;
            }
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reading_that_hangs_is_told_of_and_is_the_only_one_until_it_returns() {
        let mut readings = Readings::new();
        assert_eq!(readings.read(|| 1).await, Ok(1));
        assert!(readings.returned().now_or_never().is_none(), "none hangs");

        let (go_on, held) = channel();
        let reading = readings.read(move || held.recv().map_or(0, |()| 2));
        let (read, ()) = tokio::join!(reading, tokio::time::advance(PATIENCE));
        assert_eq!(read, Err(Unread::Hangs));
        assert!(Unread::Hangs.to_string().contains("still waiting"));
        let second = readings.read(|| unreachable!("the first has not returned"));
        assert_eq!(second.now_or_never(), Some(Err(Unread::Hangs)));
        assert!(readings.hang());

        go_on.send(()).unwrap();
        readings.returned().await;
        assert!(!readings.hang());
        assert_eq!(readings.read(|| 3).await, Ok(3));
    }

    #[tokio::test]
    async fn a_reading_that_panics_ends_no_other_one() {
        let mut readings = Readings::new();
        assert_eq!(
            readings.read(|| panic!("as a test does")).await,
            Err(Unread::Panicked)
        );
        assert_eq!(readings.read(|| 1).await, Ok(1));
    }
}

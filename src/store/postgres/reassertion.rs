//! Gives the server back what it lost. A fail-over to a standby that lagged behind loses what was
//! acknowledged last, and with it RefreshTokens that exist nowhere else: each process therefore remembers
//! what was acknowledged to it in the last 10 minutes, and restores what is gone.
//!
//! ```text
//!  commit, forget, restore ──acknowledged──▶ remembered for 10 minutes, at most 16 MiB
//!                                                 │
//!  the server is found again, or an entry is ─────▼─────────────────────────────────────┐
//!  seen that is older than what is remembered: what stands is read, and what it lacks   │
//!  is restored, unless another process has restored a later one                         │
//!                                                 └── no answer: again, with back-off ──┘
//! ```

mod acknowledged;
mod doubt;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

pub(super) use self::acknowledged::Acknowledged;
pub(super) use self::doubt::Doubt;
use super::database::Database;
use super::pending::{lacks, overlaid};
use super::presence::Arrival;
use crate::principal::Principal;
use crate::store::{Entry, Error, Restored};

/// How many entries are compared with those of the server at a time.
const AT_ONCE: usize = 200;
/// How often what is too old is dropped if nothing else drops it.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);
/// The first pause after a comparison that failed; doubled with each, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// The task that restores. Aborted when dropped.
pub(super) struct Reassertion {
    restoring: JoinHandle<()>,
}

/// What the task owns.
struct Restorer<D> {
    database: Arc<D>,
    acknowledged: Arc<Acknowledged>,
    doubt: Arc<Doubt>,
    connected: Arrival,
}

impl Reassertion {
    /// Starts the task, on the current runtime.
    pub(super) fn start<D: Database>(
        database: Arc<D>,
        acknowledged: Arc<Acknowledged>,
        doubt: Arc<Doubt>,
        connected: Arrival,
    ) -> Reassertion {
        let restorer = Restorer {
            database,
            acknowledged,
            doubt,
            connected,
        };
        Reassertion {
            restoring: tokio::spawn(restorer.run()),
        }
    }
}

impl Drop for Reassertion {
    fn drop(&mut self) {
        self.restoring.abort();
    }
}

impl<D: Database> Restorer<D> {
    async fn run(mut self) {
        loop {
            tokio::select! {
                found = self.connected.changed() => if found.is_err() { return },
                () = self.doubt.noticed() => {}
                () = sleep(EXPIRE_EVERY) => {
                    self.acknowledged.expire();
                    continue;
                }
            }
            let mut pause = FIRST_PAUSE;
            while let Err(error) = self.restore_what_is_lost().await {
                tracing::debug!(%error, "what the store may have lost cannot be compared");
                sleep(pause.mul_f64(0.8 + fastrand::f64() * 0.4)).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }

    /// Compares all that is remembered with what stands, and restores what is missing there.
    async fn restore_what_is_lost(&self) -> Result<(), Error> {
        let mut after = 0;
        loop {
            let page = self.acknowledged.page(after, AT_ONCE);
            let Some((last, ..)) = page.last() else {
                break;
            };
            after = *last;
            let whose: Vec<_> = page.iter().map(|(_, whose, _)| whose.clone()).collect();
            let standing: HashMap<Principal, Entry> =
                self.database.standing(&whose).await?.into_iter().collect();
            let nothing = Entry::default();
            let lost = page.into_iter().filter_map(|(_, principal, ours)| {
                let stands = standing.get(&principal).unwrap_or(&nothing);
                lacks(stands, &ours).then(|| (principal, overlaid(stands, &ours)))
            });
            self.restore(lost.collect()).await?;
        }
        self.doubt.restored();
        Ok(())
    }

    async fn restore(&self, lost: Vec<(Principal, Entry)>) -> Result<(), Error> {
        if lost.is_empty() {
            return Ok(());
        }
        self.doubt.found_lost();
        let restored = self.database.restore(lost.clone()).await?;
        let mut written = 0;
        for ((principal, entry), restored) in lost.into_iter().zip(restored) {
            if restored == Restored::Written {
                self.acknowledged.remember(&principal, entry);
                written += 1;
            }
        }
        self.doubt.count_restored(written);
        Ok(())
    }
}

#[cfg(test)]
mod tests;

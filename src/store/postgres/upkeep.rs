//! Looks after the store: sees whether it is here, what stands behind it and who shares it. One task, which
//! is the only one that says that the store is away, or back.
//!
//! ```text
//!      10 s, or a call failed            50 ms … 1 s
//!    ┌──────────▶ look ──────────┐    ┌──────────▶ look ─────────┐
//!    │     a write is committed  │    │     it failed            │
//!    └──── here ◀────────────────┘    └──── away ◀───────────────┘
//!           ▲ └───────── it failed ─────────▶ │
//!           └──────── a write is committed ───┘
//! ```

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::address::Address;
use super::link::Link;
use super::presence::Reach;
use super::refusals::Refusal;
use super::server_checks::{self, Standby};
use super::{schema, sidecars};
use crate::store::condition::Away;
use crate::store::{Condition, Error, RunId};
use crate::telemetry::episode::Episode;

/// The task that looks after a store. Dropping it ends it.
pub(super) struct Upkeep {
    watched: Arc<Watched>,
    task: JoinHandle<()>,
}

/// Whose store it is.
#[derive(Clone)]
pub(super) struct Tenancy {
    pub(super) address: Address,
    pub(super) run: RunId,
    /// Whether tables are made if there are none.
    pub(super) create: bool,
}

/// What was seen last.
struct Watched {
    /// Tries even while the store is away.
    link: Link,
    tenancy: Tenancy,
    processes: AtomicU32,
    standby: Mutex<Standby>,
    /// Tables that were seen once are never made again: where they vanished, every user would cost a
    /// login.
    seen: AtomicBool,
    /// The store is away.
    absence: Episode,
    /// The server's clock and this machine's differ.
    clocks: Episode,
    /// The server was found to be unfit while the process ran.
    refusal: Episode,
}

/// Why a look failed.
enum Failed {
    /// It may succeed the next time.
    Away(String),
    /// So it may, but meanwhile the server answers those who read.
    Unwritable(String),
    /// It will not, before somebody does something.
    Refused(Refusal),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        match error {
            Error::Unwritable(why) => Failed::Unwritable(why),
            Error::Away(why) => Failed::Away(why),
            other => Failed::Away(other.to_string()),
        }
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Failed {
        match refusal {
            Refusal::Failed(error) => error.into(),
            refusal => Failed::Refused(refusal),
        }
    }
}

/// How often the server is examined.
const EXAMINE_EVERY: Duration = Duration::from_secs(60);

/// How long the tables may take to be made, which other processes may be making as well.
const TABLES_DEADLINE: Duration = Duration::from_secs(10);

/// After a failed look: the first pause, which doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A look that fails later than this was not answered at all.
const SOON: Duration = Duration::from_secs(1);

/// Clocks that differ by more are worth a warning, in seconds: the proxy goes by the server's.
const CLOCKS_DIFFER: f64 = 2.0;

impl Upkeep {
    /// Looks once, and goes on looking. A store that is away is no error: the process starts, and the
    /// store is used once it is back.
    pub(super) async fn start(link: &Link, tenancy: Tenancy) -> Result<Upkeep, Refusal> {
        let watched = Arc::new(Watched {
            link: link.probing(),
            tenancy,
            processes: AtomicU32::new(1),
            standby: Mutex::new(Standby::Unknown),
            seen: AtomicBool::new(false),
            absence: Episode::new(),
            clocks: Episode::new(),
            refusal: Episode::new(),
        });
        match watched.look(true).await {
            Ok(()) => {}
            Err(Failed::Refused(refusal)) => return Err(refusal),
            Err(failed) => watched.note_failure(failed),
        }
        let task = tokio::spawn(watched.clone().keep_looking());
        Ok(Upkeep { watched, task })
    }

    /// What was seen last.
    pub(super) fn condition(&self) -> Condition {
        let Watched { link, .. } = &*self.watched;
        Condition {
            away: link.absence().map(|absence| Away {
                since: absence.since,
                why: absence.why,
            }),
            processes: self.watched.processes.load(Ordering::Relaxed),
            shared: true,
            clock_offset: link.time.offset(),
            standby: self.watched.standby().known(),
            ..Condition::default()
        }
    }

    /// Ends it, and tells the others that this process does. Best effort.
    pub(super) async fn end(&self) {
        self.task.abort();
        if self.watched.link.absence().is_none() {
            let left = sidecars::leave(&self.watched.link, self.watched.tenancy.run).await;
            if let Err(error) = left {
                tracing::debug!(%error, "the others find out by themselves that this process has ended");
            }
        }
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watched {
    async fn keep_looking(self: Arc<Self>) {
        let suspicion = self.link.suspicion();
        let mut examined = Instant::now();
        let (mut pause, mut beat) = (FIRST_PAUSE, sidecars::FIRST);
        loop {
            match self.link.absence() {
                None => {
                    pause = FIRST_PAUSE;
                    let turn = jittered(beat);
                    beat = (beat * 2).min(sidecars::EVERY);
                    // However many calls fail, their server is not asked all the time.
                    sleep(FIRST_PAUSE).await;
                    tokio::select! {
                        () = sleep(turn) => {}
                        () = suspicion.notified() => {}
                    }
                }
                Some(_) => {
                    sleep(jittered(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            let examine = self.link.absence().is_some() || examined.elapsed() >= EXAMINE_EVERY;
            match self.look_twice(examine).await {
                Ok(()) if examine => examined = Instant::now(),
                Ok(()) => {}
                Err(failed) => self.note_failure(failed),
            }
        }
    }

    /// A connection that was ended says little of the server: a new one says more. One that commits the
    /// transactions of others meanwhile is busy and not away.
    async fn look_twice(&self, examine: bool) -> Result<(), Failed> {
        let (begun, commits) = (Instant::now(), self.link.commits());
        let looked = match self.look(examine).await {
            Err(Failed::Away(_)) if begun.elapsed() < SOON => self.look(examine).await,
            looked => looked,
        };
        match looked {
            Err(Failed::Away(why))
                if self.link.absence().is_none() && self.link.commits() != commits =>
            {
                tracing::debug!(why, "the store is busy");
                Ok(())
            }
            looked => looked,
        }
    }

    /// Sees whether the store is here, by a write of its own, and on demand whether it is fit.
    async fn look(&self, examine: bool) -> Result<(), Failed> {
        if examine {
            self.examine().await?;
        }
        self.link.greet().await?;
        let processes = sidecars::beat(&self.link, self.tenancy.run).await?;
        self.processes.store(processes, Ordering::Relaxed);
        self.compare_clocks();
        self.link.arrive();
        if let Some(over) = self.absence.worked() {
            tracing::info!(seconds = over.seconds(), "the store is back");
        }
        Ok(())
    }

    async fn examine(&self) -> Result<(), Failed> {
        let address = || self.tenancy.address.clone();
        let standby = server_checks::check(&self.link).await?;
        let standby = standby.map_err(|why| Refusal::Unfit {
            address: address(),
            why,
        })?;
        let mut session = self.link.session_within(TABLES_DEADLINE).await?;
        let may_create = self.tenancy.create && !self.seen.load(Ordering::Relaxed);
        if !may_create && !schema::is_there(&mut session).await? {
            return Err(Refusal::Absent(address()).into());
        }
        schema::prepare(&mut session)
            .await
            .map_err(|why| Refusal::of_tables(address(), why))?;
        self.seen.store(true, Ordering::Relaxed);
        if self.refusal.worked().is_some() {
            tracing::info!("the store can be used again");
        }
        let before = std::mem::replace(&mut *self.standby(), standby);
        if standby == Standby::None && before != Standby::None {
            tracing::warn!(
                "no synchronous standby is seen behind the store: unless its service replicates below \
                 the database, a fail-over may lose the last renewals, which running proxies restore \
                 as far as they remember them; set `synchronous_standby_names`"
            );
        }
        Ok(())
    }

    fn note_failure(&self, failed: Failed) {
        let (why, reach) = match failed {
            Failed::Away(why) => (why, Reach::Nothing),
            Failed::Unwritable(why) => (why, Reach::Reads),
            Failed::Refused(refusal) => {
                if self.refusal.found_failing() {
                    tracing::error!(error = %refusal, "the store cannot be used any more");
                }
                (refusal.to_string(), Reach::Nothing)
            }
        };
        if self.absence.found_failing() {
            tracing::warn!(
                error = why,
                "the store is away: no token is renewed until it is back"
            );
        }
        self.link.leave(why, reach);
    }

    fn compare_clocks(&self) {
        let seconds = self.link.time.offset();
        if seconds.abs() > CLOCKS_DIFFER {
            if self.clocks.found_failing() {
                tracing::warn!(
                    seconds,
                    "the clocks of the store's server and of this machine differ; the server's counts"
                );
            }
        } else if self.clocks.worked().is_some() {
            tracing::info!(seconds, "the clocks agree again");
        }
    }

    fn standby(&self) -> std::sync::MutexGuard<'_, Standby> {
        self.standby.lock().expect("no code panics under this lock")
    }
}

/// Half of `pause` or more: many processes that saw the same failure do not come back at the same moment.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests;

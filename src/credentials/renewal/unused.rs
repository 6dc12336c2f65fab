//! `forget_unused`: pairs of users that no caller named for so long are forgotten, which lets the store
//! shrink. The last use is kept to the day and written at most once a day and user, in the background. Every
//! process keeps it, whatever its own setting: the days are true wherever the setting is switched on.
//!
//! ```text
//!   a caller names a user ─ every 10 s: who was named today for the first time? ─ the store: on this day
//!
//!   a day begins: one process of the store counts it ─ was the day before counted, too?
//!        │                 │ no: nobody counted meanwhile, or the clock jumped. The counting begins anew
//!        │                 └ either way: users of whom no day is known count from today
//!        └ 5 minutes later one process with the setting forgets, one by one, who was last named too long ago;
//!          who was marked meanwhile is kept
//! ```

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::credentials::engine::Engine;
use crate::principal::Principal;
use crate::store::{Day, Error, Guarded};

/// How often it is looked who was named. A process that is killed forgets whom callers named since.
const ROUND: Duration = Duration::from_secs(10);
/// By then all processes have written whom callers named on the day before.
const SETTLED: Duration = Duration::from_secs(5 * 60);
/// Users that are looked at in one call, those of them that are forgotten at once, and the pause after
/// either in real time: others wait for the store as well.
const AT_ONCE: usize = 500;
const FORGOTTEN_AT_ONCE: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);
/// How long the end of the process waits for the last write, in real time.
const END_WITHIN: Duration = Duration::from_secs(2);

/// The name of the guard that says which days were counted.
const ROW: &str = "uses";
const DAY: u64 = 86_400;

/// Which days were counted, by any process on the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    /// The first of them without a gap since; not all of it may have been counted.
    since: i32,
    /// The last one.
    last: i32,
    /// The last one on which unused pairs were forgotten.
    forgot: Option<i32>,
}

impl Counted {
    fn anew(Day(today): Day) -> Counted {
        Counted {
            since: today,
            last: today,
            forgot: None,
        }
    }

    /// What is counted once `today` is, too. Of two processes one may be a moment ahead, and so a day.
    fn with(self, today: Day) -> Counted {
        let next = Day(self.last).next();
        match (Day(self.last).minus(1)..=next).contains(&today) {
            true => Counted {
                last: self.last.max(today.0),
                ..self
            },
            false => Counted::anew(today),
        }
    }

    /// Users that were last named before this day are forgotten on `today`; `None`: nobody is, because it
    /// has not been counted for as long.
    fn forgets_before(self, today: Day, after: Duration) -> Option<Day> {
        let days = u32::try_from(after.as_secs().div_ceil(DAY)).unwrap_or(u32::MAX);
        let before = today.minus(days);
        (self.since < before.0 && self.last == today.0).then_some(before)
    }
}

/// Looks after it for as long as the engine lives.
pub(crate) async fn look_after(engine: Arc<Engine>) {
    let mut days = Days::default();
    loop {
        engine.clock.sleep(ROUND).await;
        if let Err(error) = days.look(&engine).await {
            tracing::debug!(%error, "the days on which users were last named cannot be written now");
        }
    }
}

/// Lets the store know whom callers named until the process ended.
pub(crate) async fn write_at_the_end(engine: &Engine) {
    let vault = &engine.vault;
    let written = tokio::time::timeout(END_WITHIN, vault.write_named()).await;
    let users = vault.named_unwritten();
    if users > 0 && !matches!(written, Ok(Ok(()))) {
        tracing::warn!(
            users,
            "the store could not be told that these users were named today: forget_unused counts from the \
             day before on which they were named, until they are named again"
        );
    }
}

/// How far this process has come with the days.
#[derive(Debug, Default)]
struct Days {
    /// The day that it is, and since when this process knows it.
    today: Option<(Day, Moment)>,
    /// The last one that is known to be counted.
    counted: Option<Day>,
    /// The last one on which this process looked for unused pairs.
    looked: Option<Day>,
}

impl Days {
    async fn look(&mut self, engine: &Engine) -> Result<(), Error> {
        let (today, now) = (engine.vault.begin_day(), engine.clock.now());
        let since = match self.today {
            Some((day, since)) if day == today => since,
            _ => now,
        };
        self.today = Some((today, since));
        self.round(engine, today, now.since(since)).await
    }

    /// The round of a moment when this process has known for `known_for` that it is `today`.
    async fn round(
        &mut self,
        engine: &Engine,
        today: Day,
        known_for: Duration,
    ) -> Result<(), Error> {
        engine.vault.write_named().await?;
        if self.counted != Some(today) || engine.vault.has_lost_names() {
            if count(engine, today).await? {
                mark_unknown(engine, today).await?;
            }
            self.counted = Some(today);
        }
        if let Some(after) = engine.current.now().settings.forget_unused
            && self.looked != Some(today)
            && known_for >= SETTLED
        {
            self.looked = Some(today);
            forget_unused(engine, today, after).await?;
        }
        Ok(())
    }
}

/// Counts `today`. Returns false if another process did.
async fn count(engine: &Engine, today: Day) -> Result<bool, Error> {
    let lost = engine.vault.has_lost_names();
    let is_new = change(engine, |counted| match counted {
        Some(counted) if !lost => counted.with(today),
        Some(_) | None => Counted::anew(today),
    });
    let is_new = is_new.await?.is_some();
    if lost {
        engine.vault.lost_names_are_counted();
    }
    Ok(is_new)
}

/// Lets users of whom no day is known count from `today`.
async fn mark_unknown(engine: &Engine, today: Day) -> Result<(), Error> {
    let mut place: Option<Principal> = None;
    loop {
        let store = &engine.vault.store;
        place = store.mark_unknown(today, place, AT_ONCE).await?;
        if place.is_none() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Forgets who was not named for as long as `after` says, unless another process does on this day.
async fn forget_unused(engine: &Engine, today: Day, after: Duration) -> Result<(), Error> {
    let mut before = None;
    let begun = change(engine, |counted| {
        let counted = counted.unwrap_or(Counted::anew(today));
        before = counted.forgets_before(today, after);
        match before {
            Some(_) => Counted {
                forgot: Some(today.0),
                ..counted
            },
            None => counted,
        }
    });
    let is_ours = begun.await?.is_some();
    let Some(before) = before.filter(|_| is_ours) else {
        return Ok(());
    };
    let mut forgotten = 0;
    let ended = forget_before(engine, before, &mut forgotten).await;
    if forgotten > 0 {
        tracing::info!(target: "audit", users = forgotten, "forget_unused");
    }
    ended
}

/// Forgets who was last named before that day, and adds up how many these are.
async fn forget_before(engine: &Engine, before: Day, forgotten: &mut usize) -> Result<(), Error> {
    let vault = &engine.vault;
    loop {
        let unused = vault.store.unused(before, AT_ONCE).await?;
        let earlier = *forgotten;
        for users in unused.chunks(FORGOTTEN_AT_ONCE) {
            vault.write_named().await?;
            let all = users
                .iter()
                .map(|user| vault.store.forget_unused(user, before));
            let mut first_error = Ok(());
            for done in join_all(all).await {
                match done {
                    Ok(done) => *forgotten += usize::from(done),
                    Err(error) => first_error = first_error.and(Err(error)),
                }
            }
            first_error?;
            tokio::time::sleep(PAUSE).await;
        }
        if unused.len() < AT_ONCE || *forgotten == earlier {
            return Ok(());
        }
    }
}

/// Changes the guard's row. Returns what it says then; `None` if that is what stood there.
async fn change(
    engine: &Engine,
    mut to: impl FnMut(Option<Counted>) -> Counted,
) -> Result<Option<Counted>, Error> {
    let store = &engine.vault.store;
    let mut row = store.guard(ROW).await?;
    loop {
        let stands = serde_json::from_slice(&row.value).ok();
        let next = to(stands);
        if stands == Some(next) {
            return Ok(None);
        }
        let value = serde_json::to_vec(&next).expect("a few numbers always serialise");
        match store.set_guard(ROW, row.version, value).await? {
            Guarded::Set(_) => return Ok(Some(next)),
            Guarded::Superseded(stands) => row = stands,
        }
    }
}

#[cfg(test)]
mod tests;

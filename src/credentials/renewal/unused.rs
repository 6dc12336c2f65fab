//! `forget_unused`: pairs of users that no caller named for so long are forgotten, which lets the store
//! shrink. The last use is kept to the day and written once a day and user, in the background; a look-up
//! only leaves a mark in memory.
//!
//! ```text
//!   a look-up marks the credentials ─ once a minute: collect the marks ─ the store: last used on this day
//!
//!   a day begins: one process of the store claims it ─ was the day before counted, too?
//!                     │ yes: users counted on no day count from today; who was named too long ago is forgotten
//!                     └ no: nobody counted meanwhile. The counting begins anew
//! ```

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::credentials::engine::Engine;
use crate::principal::Principal;
use crate::store::{Cursor, Day, Error, Guarded, Listed, Unused};

/// How often marks are collected.
const ROUND: Duration = Duration::from_secs(60);
/// Users that are written, read or forgotten at once, and the pause between that in real time: others wait
/// for the store as well.
const AT_ONCE: usize = 500;
const PAUSE: Duration = Duration::from_millis(100);

/// The name of the guard that says which days were counted.
const ROW: &str = "forget_unused";
const DAY: u64 = 86_400;

/// Which days were counted, by any process on the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    /// The first of them without a gap since.
    since: i32,
    /// The last one.
    last: i32,
}

impl Counted {
    /// What is counted once `today` is, too.
    fn with(self, today: Day) -> Counted {
        let is_gap = today.0 > self.last.saturating_add(1) || self == Counted::default();
        Counted {
            since: match is_gap {
                true => today.0,
                false => self.since,
            },
            last: self.last.max(today.0),
        }
    }

    /// Users that were last named before this day are forgotten on `today`; `None`: nobody is, because it
    /// has not been counted for as long.
    fn forgets_before(self, today: Day, after: Duration) -> Option<Day> {
        let days = u32::try_from(after.as_secs().div_ceil(DAY)).unwrap_or(u32::MAX);
        let before = today.minus(days);
        (self.since <= before.0).then_some(before)
    }
}

/// Looks after it for as long as the engine lives.
pub(crate) async fn look_after(engine: Arc<Engine>) {
    let mut uses = Uses::default();
    loop {
        engine.clock.sleep(ROUND).await;
        let Some(after) = engine.current.now().settings.forget_unused else {
            uses = Uses::default();
            continue;
        };
        let today = Day::of(engine.vault.wall());
        if let Err(error) = uses.look(&engine, today, after).await {
            tracing::debug!(%error, "the days on which users were last named cannot be written now");
        }
    }
}

/// What this process knows of the uses of today.
#[derive(Debug, Default)]
struct Uses {
    /// Users that were named, which the store does not know yet.
    named: HashSet<Principal>,
    /// The last day that this process asked for.
    asked: Option<Day>,
}

impl Uses {
    async fn look(&mut self, engine: &Engine, today: Day, after: Duration) -> Result<(), Error> {
        self.named.extend(engine.vault.cache.take_named(today));
        self.write(engine, today).await?;
        if self.asked != Some(today) {
            let counted = claim(engine, today).await?;
            self.asked = Some(today);
            if let Some(counted) = counted {
                begin_day(engine, counted, today, after).await?;
            }
        }
        Ok(())
    }

    /// Writes that these were named today. Those that are written leave the set.
    async fn write(&mut self, engine: &Engine, today: Day) -> Result<(), Error> {
        let all: Vec<_> = self.named.iter().cloned().collect();
        for some in all.chunks(AT_ONCE) {
            engine.vault.store.mark_used(some.to_vec(), today).await?;
            for user in some {
                self.named.remove(user);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

/// Claims a day for this process. Returns `None` if another process has it.
async fn claim(engine: &Engine, today: Day) -> Result<Option<Counted>, Error> {
    let store = &engine.vault.store;
    let row = store.guard(ROW).await?;
    let counted: Counted = serde_json::from_slice(&row.value).unwrap_or_default();
    if counted.last >= today.0 && counted != Counted::default() {
        return Ok(None);
    }
    let counted = counted.with(today);
    let value = serde_json::to_vec(&counted).expect("two numbers always serialise");
    Ok(match store.set_guard(ROW, row.version, value).await? {
        Guarded::Set(_) => Some(counted),
        Guarded::Superseded(_) => None,
    })
}

/// What one process does on each day.
async fn begin_day(
    engine: &Engine,
    counted: Counted,
    today: Day,
    after: Duration,
) -> Result<(), Error> {
    let store = &engine.vault.store;
    let mut place: Option<Cursor> = None;
    loop {
        let page = store.list(Listed::Known, place.as_ref(), AT_ONCE).await?;
        let users = page.entries.into_iter();
        let users = users.filter(|(user, entry)| user.is_user() && entry.record.is_some());
        let users = users.map(|(user, _)| user).collect();
        store.mark_unknown(users, today).await?;
        tokio::time::sleep(PAUSE).await;
        place = page.next;
        if place.is_none() {
            break;
        }
    }
    let Some(before) = counted.forgets_before(today, after) else {
        return Ok(());
    };
    let mut all = 0;
    loop {
        let Unused {
            looked_at,
            forgotten,
        } = store.forget_unused(before, AT_ONCE).await?;
        all += forgotten.len();
        tokio::time::sleep(PAUSE).await;
        if looked_at < AT_ONCE {
            break;
        }
    }
    if all > 0 {
        tracing::info!(
            users = all,
            "users that no caller named for as long as [renewal] forget_unused says were forgotten"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::fixture::{Api, Medium, settings, user};
    use crate::store::Store;

    #[tokio::test]
    async fn a_user_that_nobody_names_is_forgotten_and_the_others_stay() {
        let (api, medium) = (Api::start().await, Medium::new());
        let mut generous = settings();
        generous.budget.windows[0].logins = 10;
        let (process, store) = medium.start_faulty(&api, generous);
        let engine = &process.provider.engine;
        let (mut uses, after) = (Uses::default(), Duration::from_secs(2 * DAY));
        process.get(user(2)).await.unwrap();
        for day in 100..=103 {
            for _ in 0..3 {
                process.get(user(1)).await.unwrap();
                uses.look(engine, Day(day), after).await.unwrap();
            }
            let kept = store.load(&user(2)).await.unwrap().record.is_some();
            assert_eq!(kept, day < 103, "{day}");
        }
        assert_eq!(store.calls("mark_used"), 4, "once a day");
        assert!(store.load(&user(1)).await.unwrap().record.is_some());
        assert_eq!(store.load(&user(2)).await.unwrap().epoch, 1);
        assert_eq!(api.calls(), ["Login", "Login"]);
    }

    #[test]
    fn nobody_is_forgotten_who_may_have_been_named_while_nobody_counted() {
        let after = Duration::from_secs(3 * DAY);
        let mut counted = Counted::default();
        let mut forgets = |day| {
            counted = counted.with(Day(day));
            counted.forgets_before(Day(day), after)
        };
        assert_eq!([100, 101, 102].map(&mut forgets), [None, None, None]);
        assert_eq!(forgets(103), Some(Day(100)));
        assert_eq!(forgets(104), Some(Day(101)));
        // The proxy was off for a day, or `forget_unused` was.
        assert_eq!([106, 107, 108].map(&mut forgets), [None, None, None]);
        assert_eq!(forgets(109), Some(Day(106)));
    }
}

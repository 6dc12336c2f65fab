//! Processes of earlier versions leave the names of those whom they forget, and find nothing of whom this one
//! forgets. So those names are dropped once for each store, in the background, two days after this version came
//! to it: by then no earlier one is left.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::credentials::engine::Engine;
use crate::store::{Day, Error, Guarded, Listed};

/// The name of the guard that says how far it is.
const ROW: &str = "burials";
/// How long a process lives before it looks: those that follow their start have the store first.
const BEGINS_AFTER: Duration = Duration::from_secs(60);
/// How often it is looked whether it is to be done.
const ROUND: Duration = Duration::from_secs(3600);
/// Entries that are looked at in one call, and the pause after it, in real time: others wait for the store as
/// well.
const AT_ONCE: usize = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Burial {
    /// The day on which this version came to the store.
    since: Day,
    /// The day on which a process began to drop names.
    begun: Option<Day>,
    /// Whether one came to the end.
    done: bool,
}

impl Burial {
    /// What it is from `today` on; `None`: as it was.
    fn on(stands: Option<Burial>, today: Day) -> Option<Burial> {
        match stands {
            None => Some(Burial {
                since: today,
                begun: None,
                done: false,
            }),
            Some(burial) if burial.done || burial.begun == Some(today) => None,
            Some(burial) if today <= burial.since.next() => None,
            Some(burial) => Some(Burial {
                begun: Some(today),
                ..burial
            }),
        }
    }
}

/// Does it, unless another process on the store does.
pub(crate) async fn bury_the_named(engine: Arc<Engine>) {
    engine.clock.sleep(BEGINS_AFTER).await;
    loop {
        match look(&engine).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "tombstones with names cannot be dropped now"),
        }
        engine.clock.sleep(ROUND).await;
    }
}

/// Returns whether nothing is left to be done.
async fn look(engine: &Engine) -> Result<bool, Error> {
    let store = &engine.vault.store;
    let row = store.guard(ROW).await?;
    let stands: Option<Burial> = serde_json::from_slice(&row.value).ok();
    let Some(burial) = Burial::on(stands, Day::of(store.now())) else {
        return Ok(stands.is_some_and(|burial| burial.done));
    };
    let Guarded::Set(version) = store.set_guard(ROW, row.version, written(burial)).await? else {
        return Ok(false);
    };
    if burial.begun.is_none() {
        return Ok(false);
    }
    bury_all(engine).await?;
    let done = written(Burial {
        done: true,
        ..burial
    });
    store.set_guard(ROW, version, done).await?;
    Ok(true)
}

fn written(burial: Burial) -> Vec<u8> {
    serde_json::to_vec(&burial).expect("a few numbers always serialise")
}

async fn bury_all(engine: &Engine) -> Result<(), Error> {
    let store = &engine.vault.store;
    let mut after = None;
    loop {
        let page = store.list(Listed::All, after.as_ref(), AT_ONCE).await?;
        let entries = page.entries.into_iter();
        let named = entries.filter(|(_, entry)| entry.is_bare() && entry.epoch > 0);
        // Who has logged in meanwhile keeps its pair.
        store.restore(named.collect()).await?;
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dropped_two_days_later_by_one_process_a_day() {
        let first = Burial::on(None, Day(7)).unwrap();
        assert_eq!(
            (first.since, first.begun, first.done),
            (Day(7), None, false)
        );
        for today in [5, 7, 8] {
            assert_eq!(Burial::on(Some(first), Day(today)), None, "{today}");
        }
        let begun = Burial::on(Some(first), Day(9)).unwrap();
        assert_eq!((begun.since, begun.begun), (Day(7), Some(Day(9))));
        assert_eq!(Burial::on(Some(begun), Day(9)), None);
        let again = Burial::on(Some(begun), Day(10)).unwrap();
        assert_eq!(again.begun, Some(Day(10)));
        let done = Burial {
            done: true,
            ..again
        };
        assert_eq!(Burial::on(Some(done), Day(11)), None);
    }
}

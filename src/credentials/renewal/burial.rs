//! Processes of earlier versions leave the names of those whom they forget. Once for each store they are dropped
//! in the background, and once more on a later day, when no such process is left.

use std::sync::Arc;
use std::time::Duration;

use crate::credentials::engine::Engine;
use crate::store::{Day, Entry, Error, Guarded, Listed};

/// The name of the guard that says on which days it was done.
const ROW: &str = "burials";
/// How long a process lives before it looks: those that follow their start have the store first.
const BEGINS_AFTER: Duration = Duration::from_secs(60);
/// How often it is looked whether it is to be done.
const ROUND: Duration = Duration::from_secs(3600);
/// Entries that are looked at in one call, and the pause after it, in real time: others wait for the store as
/// well.
const AT_ONCE: usize = 500;
const PAUSE: Duration = Duration::from_millis(50);

/// Does it, on the first two days that this engine, or another on the store, lives.
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
    let done: Vec<Day> = serde_json::from_slice(&row.value).unwrap_or_default();
    let today = Day::of(store.now());
    match done.as_slice() {
        [_, _, ..] => return Ok(true),
        [before] if *before >= today => return Ok(false),
        [] | [_] => {}
    }
    bury_all(engine).await?;
    let done = [done, vec![today]].concat();
    let value = serde_json::to_vec(&done).expect("numbers always serialise");
    match store.set_guard(ROW, row.version, value).await? {
        Guarded::Set(_) => Ok(done.len() > 1),
        Guarded::Superseded(_) => Ok(false),
    }
}

async fn bury_all(engine: &Engine) -> Result<(), Error> {
    let store = &engine.vault.store;
    let mut after = None;
    loop {
        let page = store.list(Listed::All, after.as_ref(), AT_ONCE).await?;
        let entries = page.entries.into_iter();
        let named = entries.filter(|(_, entry)| entry.is_bare() && *entry != Entry::default());
        // Who has logged in meanwhile keeps its pair.
        store.restore(named.collect()).await?;
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

//! What the store could not be told of the budget: that Damoov blocks logins, and which slots were not
//! used. It is told until it has it. Meanwhile the block holds in this process alone.
//!
//! ```text
//!   429 ──▶ blocked here ── the store has it ──▶ what the store says holds, here as elsewhere
//!                 └──▲ it failed: again each second
//! ```

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use super::{Budget, HALVED_FOR};
use crate::clock::Moment;
use crate::credentials::vault::counted::counted;
use crate::credentials::vault::repeated::repeated;
use crate::metrics::StoreOperation;
use crate::store::{Error, SlotId};

/// How often the store is told again, in real time.
const AGAIN: Duration = Duration::from_secs(1);
/// Slots remembered at most. No budget is as large; of what is beyond, a slot that was taken stays so.
const MOST_UNUSED: usize = 1_024;

/// What the store is yet to be told.
#[derive(Default)]
pub(super) struct Unwritten {
    left: Mutex<Left>,
    /// Something is left that nobody is writing.
    failed: Notify,
}

#[derive(Default)]
struct Left {
    block: Option<Block>,
    /// By id: to give back a slot that was never taken does no harm.
    unused: HashSet<SlotId>,
}

/// A 429, by this process's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    until: Moment,
    halved_until: Moment,
}

impl Unwritten {
    /// Logins are blocked at least until then. Returns the block that stands.
    fn block(&self, new: Block) -> Block {
        let mut left = self.lock();
        let block = match left.block {
            None => new,
            Some(old) => Block {
                until: old.until.max(new.until),
                halved_until: old.halved_until.max(new.halved_until),
            },
        };
        left.block = Some(block);
        block
    }

    /// Remembers a slot that was not used, or perhaps not even taken.
    pub(super) fn add_unused(&self, slot: SlotId) {
        let mut left = self.lock();
        if left.unused.len() < MOST_UNUSED {
            left.unused.insert(slot);
            self.failed.notify_one();
        }
    }

    /// How long logins are blocked by what the store does not know; zero if they are not.
    pub(super) fn blocked_for(&self, now: Moment) -> Duration {
        let block = self.lock().block;
        block.map_or(Duration::ZERO, |block| block.until.since(now))
    }

    fn lock(&self) -> MutexGuard<'_, Left> {
        self.left.lock().expect("no code panics under this lock")
    }
}

impl Budget {
    /// The login of the slot `taken` was answered with 429: from this moment on this process logs nobody in
    /// until the block ends, and once the store has it no other one does. Returns when that is, in real time
    /// from now.
    pub(crate) async fn limited(&self, taken: SlotId, retry_after: Option<Duration>) -> Duration {
        let blocked = retry_after.unwrap_or(self.current.now().settings.blocked_for);
        let is_news = self.blocked.failed();
        let now = self.clock.now();
        let block = self.unwritten.block(Block {
            until: now.plus(blocked),
            halved_until: now.plus(HALVED_FOR),
        });
        let blocked = self.clock.to_real(blocked);
        let seconds = blocked.as_secs();
        tracing::debug!(seconds, "Damoov answered a login with 429");
        if is_news {
            tracing::error!(
                seconds,
                "Damoov answers logins with 429: no login until the block ends, and half as many \
                 for a day; does another program log in from this address?"
            );
        }
        self.end(taken).await;
        if let Err(error) = repeated(|| self.write_block(block)).await {
            tracing::warn!(
                %error,
                "that Damoov blocks logins could not be stored: it holds in this process alone until it is"
            );
            self.unwritten.failed.notify_one();
        }
        blocked
    }

    async fn write_block(&self, block: Block) -> Result<(), Error> {
        let now = self.clock.now();
        let left = |until: Moment| self.clock.to_real(until.since(now));
        let (blocked, halved) = (left(block.until), left(block.halved_until));
        let group = &self.current.now().settings.budget.group;
        let written = self.store.block_logins(group, blocked, Some(halved)).await;
        counted(&self.metrics, StoreOperation::Budget, written)?;
        let mut left = self.unwritten.lock();
        // Another 429 may have come meanwhile.
        left.block = left.block.filter(|now| *now != block);
        Ok(())
    }

    /// Tells the store what it could not be told, for as long as the process lives.
    pub(crate) async fn write_what_is_left(&self) {
        loop {
            self.unwritten.failed.notified().await;
            self.write_all().await;
        }
    }

    /// Tells the store what it could not be told, until it has all of it.
    pub(crate) async fn write_all(&self) {
        while let Err(error) = self.write_once().await {
            tracing::debug!(%error, "the store cannot be told of the login budget yet");
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Tells the store what it could not be told, up to the first thing that fails.
    pub(crate) async fn write_once(&self) -> Result<(), Error> {
        let block = self.unwritten.lock().block;
        if let Some(block) = block {
            self.write_block(block).await?;
        }
        let unused = self.unwritten.lock().unused.clone();
        for slot in unused {
            let group = &self.current.now().settings.budget.group;
            let given = self.store.give_login_back(group, slot).await;
            counted(&self.metrics, StoreOperation::Budget, given)?;
            self.unwritten.lock().unused.remove(&slot);
            self.slot_came_free();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Error as Refusal;
    use crate::credentials::Settings;
    use crate::credentials::fixture::{Api, Medium, Says, settings, until, user, windows};
    use crate::store::Budgets;

    /// Ten logins an hour.
    fn generous() -> Settings {
        let mut generous = settings();
        generous.budget.windows[0].logins = 10;
        generous
    }

    async fn eventually(is_so: impl AsyncFn() -> bool) {
        let looks = async {
            while !is_so().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let looked = tokio::time::timeout(Duration::from_secs(20), looks).await;
        looked.expect("it becomes so");
    }

    #[tokio::test]
    async fn a_429_that_the_store_does_not_take_holds_at_once_and_is_written_later() {
        let (api, medium) = (Api::start().await, Medium::new());
        let (process, store) = medium.start_faulty(&api, generous());
        let other = medium.start();
        store.misses("block_logins", 4);
        api.will_say([Says::Limited]);
        for number in 1..=3 {
            let refused = process.get(user(number)).await.map(drop);
            assert!(
                matches!(refused, Err(Refusal::LoginBlocked { .. })),
                "{refused:?}"
            );
        }
        assert_eq!(api.calls(), ["Login"]);
        assert_eq!(store.calls("take_login"), 1, "it is known here");
        until(|| store.calls("block_logins") == 5).await;
        let is_blocked = async || {
            let refused = other.get(user(4)).await;
            matches!(refused, Err(Refusal::LoginBlocked { .. }))
        };
        eventually(is_blocked).await;
        // From now on the store says whether it stands.
        assert!(store.unblock_logins("default").await.unwrap());
        eventually(async || process.get(user(5)).await.is_ok()).await;
    }

    #[tokio::test]
    async fn a_429_is_written_at_the_end_of_the_process_at_the_latest() {
        let (api, medium) = (Api::start().await, Medium::new());
        let (process, store) = medium.start_faulty(&api, generous());
        store.misses("block_logins", 3);
        api.will_say([Says::Limited]);
        let refused = process.get(user(1)).await.map(drop);
        assert!(matches!(refused, Err(Refusal::LoginBlocked { .. })));
        process.background.finish(Duration::from_secs(5)).await;
        let budget = store.login_budget(&windows()).await.unwrap();
        assert!(budget.blocked > Duration::from_secs(3_000));
    }

    #[tokio::test]
    async fn a_slot_whose_answer_was_lost_is_free_again_once_the_store_answers() {
        let api = Api::start().await;
        for call in ["take_login", "give_login_back"] {
            let (process, store) = Medium::new().start_faulty(&api, settings());
            match call {
                "take_login" => store.loses(call, 3),
                _ => store.misses(call, 3),
            }
            store.is_held_for(Some(Duration::from_secs(60)));
            let refused = process.get(user(1)).await.map(drop);
            assert!(refused.is_err(), "{call}");
            let is_free = async || {
                let budget = store.login_budget(&windows()).await.unwrap();
                budget.windows[0].used == 0
            };
            eventually(is_free).await;
        }
        assert!(api.calls().is_empty());
    }
}

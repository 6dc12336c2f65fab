//! The budget for logins that are not ours: a caller's own login, forwarded because its instance is
//! not configured, costs Damoov's patience as much as one of ours.

use std::sync::Arc;
use std::time::Duration;

use super::engine::Engine;
use super::{Error, Provider};
use crate::clock::Timestamp;
use crate::store::Class;

/// The right to forward one login. Say how it ended with [`LoginSlot::end`]; dropped without, it
/// counts as [`SlotEnd::Answered`] now.
#[must_use = "a slot is taken for a login"]
pub struct LoginSlot {
    engine: Arc<Engine>,
    /// When it was taken; none once its end is being written.
    taken: Option<Timestamp>,
}

/// How a forwarded login ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotEnd {
    /// Answered, whatever the answer, or the answer lost.
    Answered,
    /// Answered with 429.
    Limited {
        /// What [`retry_after`](crate::damoov::auth::retry_after) says about it.
        retry_after: Option<Duration>,
    },
}

impl Provider {
    /// Takes a slot of the budget for a login to forward, in the class of principals never seen.
    /// Waits at most `wait`.
    ///
    /// # Errors
    ///
    /// [`Error::BudgetExhausted`], [`Error::LoginBlocked`], [`Error::StoreUnavailable`],
    /// [`Error::Closing`].
    pub async fn take_login(&self) -> Result<LoginSlot, Error> {
        let engine = &self.engine;
        let patience = engine.clock.now().plus(engine.settings.wait);
        let slot = engine.budget.take(&*engine.store, Class::New, || patience);
        let taken = engine.unless_closing(slot).await??;
        Ok(LoginSlot {
            engine: engine.clone(),
            taken: Some(taken),
        })
    }
}

impl LoginSlot {
    /// The slot counts from now on; a 429 blocks all logins. Durable when it returns; goes on to
    /// its end when the caller hangs up.
    pub async fn end(mut self, end: SlotEnd) {
        if let Some(writing) = self.write(end) {
            // Fails only where the runtime is gone.
            let _ = writing.await;
        }
    }

    fn write(&mut self, end: SlotEnd) -> Option<tokio::task::JoinHandle<()>> {
        let (engine, taken) = (self.engine.clone(), self.taken.take()?);
        Some(self.engine.see_through(async move {
            engine.budget.end(&*engine.store, taken).await;
            if let SlotEnd::Limited { retry_after } = end
                && let Err(error) = engine.login_limited(retry_after).await
            {
                tracing::error!(%error, "Damoov's 429 to a login could not be written down");
            }
        }))
    }
}

impl Drop for LoginSlot {
    fn drop(&mut self) {
        self.write(SlotEnd::Answered);
    }
}

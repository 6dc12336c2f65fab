//! The budget for logins that the proxy only forwards: the login of a caller whose instance is not
//! configured counts against Damoov's limit as much as a login of the proxy itself.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::engine::Engine;
use super::guards::seeker::{Seeker, Who};
use super::{Error, Provider};
use crate::clock::Moment;
use crate::store::{Class, SlotId};

/// The right to forward one login. Say how it ended with [`LoginSlot::end`]; dropped without, it
/// counts as [`SlotEnd::Answered`] now.
#[must_use = "a slot is taken for a login"]
pub struct LoginSlot {
    engine: Arc<Engine>,
    /// Which one; `None` once its end is being written.
    taken: Option<SlotId>,
}

/// How a forwarded login ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotEnd {
    /// No byte of it was sent: the slot is free again.
    NotSent,
    /// Answered, whatever the answer, or the answer lost.
    Answered,
    /// Answered with 429.
    Limited {
        /// What [`retry_after`](crate::damoov::retry_after::retry_after) says about it.
        retry_after: Option<Duration>,
    },
}

/// A login that is to be forwarded, while its caller waits for a slot.
struct ForwardedLogin {
    /// What it is recognised by when its caller comes back.
    login: u64,
    /// When its caller's patience ends.
    until: Moment,
    /// Closed when its caller hangs up.
    caller: watch::Sender<()>,
}

impl Seeker for ForwardedLogin {
    fn who(&self) -> Who {
        Who::Forwarded(self.login)
    }

    fn patience(&self) -> Moment {
        self.until
    }

    fn is_deserted(&self) -> bool {
        self.caller.is_closed()
    }

    async fn deserted(&self) {
        self.caller.closed().await;
    }
}

impl Provider {
    /// Takes a slot of the budget for a login to forward, in the class of principals never seen.
    /// Waits at most `wait`, unless it is dropped. `login` is what the caller sends: it is recognised
    /// by it if it is refused and comes back.
    ///
    /// # Errors
    ///
    /// [`Error::BudgetExhausted`], [`Error::LoginBlocked`], [`Error::StoreUnavailable`],
    /// [`Error::Closing`].
    pub async fn take_login(&self, login: impl Hash) -> Result<LoginSlot, Error> {
        let engine = self.engine.clone();
        let until = engine.clock.now().plus(engine.current.now().settings.wait);
        let login = engine.guards.budget.recognisable(login);
        let (caller, stays) = watch::channel(());
        // In its own task, so that a slot that is taken after the caller hung up is given back.
        let taking = self.engine.spawn_to_completion(async move {
            let seeker = ForwardedLogin {
                login,
                until,
                caller,
            };
            let slot = engine.guards.budget.take(Class::New, &seeker);
            match slot.await? {
                Some(taken) => Ok(LoginSlot {
                    engine,
                    taken: Some(taken),
                }),
                // The caller hung up.
                None => Err(Error::Closing),
            }
        });
        let slot = taking.await;
        drop(stays);
        // Fails only if the runtime is gone.
        slot.unwrap_or(Err(Error::Closing))
    }
}

impl LoginSlot {
    /// The slot of a login that was sent counts from now on; a 429 blocks all logins. Durable when it
    /// returns; goes on to its end when the caller hangs up.
    pub async fn end(mut self, end: SlotEnd) {
        if let Some(writing) = self.write(end) {
            // Fails only if the runtime is gone.
            let _ = writing.await;
        }
    }

    fn write(&mut self, end: SlotEnd) -> Option<tokio::task::JoinHandle<()>> {
        let (engine, taken) = (self.engine.clone(), self.taken.take()?);
        Some(self.engine.spawn_to_completion(async move {
            let budget = &engine.guards.budget;
            match end {
                SlotEnd::NotSent => budget.give_back(taken).await,
                SlotEnd::Answered => budget.end(taken).await,
                SlotEnd::Limited { retry_after } => {
                    budget.limited(taken, retry_after).await;
                }
            }
        }))
    }
}

impl Drop for LoginSlot {
    fn drop(&mut self) {
        self.write(SlotEnd::Answered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::fixture::{Medium, Process, windows};

    /// When the next slot comes, by the clock of the boot.
    async fn next(process: &Process) -> i64 {
        let budget = process.store.login_budget(&windows()).await.unwrap();
        assert!(!budget.next_new.is_zero(), "the only slot is taken");
        let left = i64::try_from(budget.next_new.as_millis()).unwrap();
        process.clock.stamp().since_boot + left
    }

    async fn a_moment_later(process: &Process) {
        let now = process.clock.stamp().since_boot;
        // More than two readings, of which one says how long, can differ.
        while process.clock.stamp().since_boot < now + 5 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_forwarded_login_takes_a_slot_of_the_budget_that_counts_from_its_end() {
        let process = Medium::new().start();
        let slot = process.provider.take_login(1).await.unwrap();
        let taken = next(&process).await;
        let refused = process.provider.take_login(1).await.map(drop);
        assert!(matches!(refused, Err(Error::BudgetExhausted { .. })));
        a_moment_later(&process).await;
        slot.end(SlotEnd::Answered).await;
        assert!(next(&process).await > taken);
    }

    #[tokio::test]
    async fn the_slot_of_a_login_that_was_not_sent_is_free_again() {
        let process = Medium::new().start();
        for _ in 0..3 {
            let slot = process.provider.take_login(1).await.unwrap();
            slot.end(SlotEnd::NotSent).await;
        }
    }

    #[tokio::test]
    async fn a_slot_whose_caller_hung_up_counts_from_then() {
        let process = Medium::new().start();
        let slot = process.provider.take_login(1).await.unwrap();
        let taken = next(&process).await;
        a_moment_later(&process).await;
        drop(slot);
        process.provider.engine.renewals.all_ended().await;
        assert!(next(&process).await > taken);
    }

    #[tokio::test]
    async fn a_429_to_a_forwarded_login_blocks_all_logins() {
        let process = Medium::new().start();
        let slot = process.provider.take_login(1).await.unwrap();
        let retry_after = Some(Duration::from_secs(7200));
        slot.end(SlotEnd::Limited { retry_after }).await;
        let Err(Error::LoginBlocked { retry_after }) = process.provider.take_login(1).await else {
            panic!("logins are blocked")
        };
        let seconds = retry_after.as_secs();
        assert!((7190..=7200).contains(&seconds), "{seconds}");
    }
}

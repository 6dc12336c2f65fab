//! Renewals that an operator asks for, by a command or through the admin API: now, whatever the age of the
//! pair, and under the same lease, budget and guards as all others.
//!
//! ```text
//!   a pair? ── yes ─▶ refresh it, without a login ── a newer pair ─▶ Refreshed
//!      │                        │
//!      │ no                     └── another process renews it ─────▶ Busy
//!      ▼                        │ rejected, or no RefreshToken
//!   may it log in? ◀────────────┘
//!      └── no ─▶ NeedsLogin       yes: as a request would, waiting for a slot at most `wait` ─▶ LoggedIn
//! ```

use std::sync::Arc;
use std::time::Duration;

use super::closing::Closing;
use super::engine::{Engine, Parts};
use super::explain::Stored;
use super::renewal::renewals::{Ask, Probing, Reserve};
use super::renewal::unused;
use super::vault::hold::Leasing;
use super::{Error, Provider};
use crate::metrics::Trigger;
use crate::principal::{InstanceId, Principal};
use crate::store::{self, Entry, LeaseId, LoginBudget, Store};

/// Whether a renewal may spend a slot of the login budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayLogIn {
    /// It may only refresh, which is free.
    No,
    /// It may log in if nothing else helps.
    Yes,
}

/// What came of a renewal on demand that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDemand {
    /// A refresh brought the pair that is stored now.
    Refreshed,
    /// A login did, which took a slot of the budget.
    LoggedIn,
    /// Only a login would bring a new pair, and none is allowed.
    NeedsLogin,
    /// Another process is renewing the pair.
    Busy,
}

impl OnDemand {
    /// The word for it in answers to programs.
    pub fn as_str(self) -> &'static str {
        match self {
            OnDemand::Refreshed => "refreshed",
            OnDemand::LoggedIn => "logged_in",
            OnDemand::NeedsLogin => "needs_login",
            OnDemand::Busy => "busy",
        }
    }
}

impl Provider {
    /// Renews the pair of `principal` now, waiting at most `wait`. A caller that hangs up cancels no call
    /// that is under way.
    ///
    /// # Errors
    ///
    /// Those of a request that needs a renewal.
    pub async fn renew_on_demand(
        &self,
        principal: &Principal,
        may_log_in: MayLogIn,
    ) -> Result<OnDemand, Error> {
        self.engine.renew_on_demand(principal, may_log_in).await
    }
}

/// Pairs that are wanted are written once there are this many.
const WANTED_AT_ONCE: usize = 500;

/// Renews pairs for a command, beside the proxies on the same store or before their start. Does nothing by
/// itself.
pub struct Renewer {
    engine: Arc<Engine>,
}

impl Renewer {
    /// With an engine of its own, whose renewals run on the runtime of `parts`.
    pub fn new(parts: Parts<'_>) -> Renewer {
        let engine = Engine::new(parts);
        Renewer { engine }
    }

    /// The store.
    pub fn store(&self) -> &dyn Store {
        &*self.engine.vault.store
    }

    /// What is known of the pair in `entry`.
    pub fn stored(&self, principal: &Principal, entry: &Entry) -> Stored {
        Stored::of(&self.engine.vault.ring, principal, entry)
    }

    /// The pair of `principal` is wanted, as if a caller named it. To be followed by [`Renewer::finish`].
    pub async fn note_wanted(&self, principal: &Principal) {
        let vault = &self.engine.vault;
        vault.begin_day();
        vault.note_named(principal);
        if vault.named_unwritten() >= WANTED_AT_ONCE {
            self.write_wanted().await;
        }
    }

    /// Nothing is lost if it fails: it is tried again.
    async fn write_wanted(&self) {
        if let Err(error) = self.engine.vault.write_named().await {
            tracing::debug!(%error, "whose pairs are wanted is written later");
        }
    }

    /// As [`Provider::renew_on_demand`]. To be followed by [`Renewer::finish`].
    pub async fn renew(
        &self,
        principal: &Principal,
        may_log_in: MayLogIn,
    ) -> Result<OnDemand, Error> {
        self.engine.renew_on_demand(principal, may_log_in).await
    }

    /// Logs `principal` in, unless its pair can be used by now: in the lowest class of the budget, whether
    /// or not it was seen before. `instance`: the one that was named. To be followed by
    /// [`Renewer::finish`].
    ///
    /// # Errors
    ///
    /// Those of a request that needs a login.
    pub async fn log_in(
        &self,
        principal: &Principal,
        instance: Option<InstanceId>,
    ) -> Result<(), Error> {
        self.engine.guards.mass_rejection.follow().await?;
        let ask = Ask {
            instance,
            ..ask(None, Reserve::Closed)
        };
        self.note_wanted(principal).await;
        self.engine.wait_for(principal, ask).await?;
        // It may take days until the last user is logged in.
        self.write_wanted().await;
        Ok(())
    }

    /// The state of the login budget, in real time. Tells the store first what it missed of it: a command has
    /// no background task that does.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn login_budget(&self) -> Result<LoginBudget, store::Error> {
        let budget = &self.engine.guards.budget;
        if let Err(error) = budget.write_once().await {
            tracing::debug!(%error, "the store cannot be told of the login budget yet");
        }
        budget.real_state().await
    }

    /// Waits until no call is under way any more, whose answer would be lost, each pair that came is
    /// stored, and the store knows of the login budget what this process does. What the store does not take
    /// is tried again, pairs for `patience` and after them the rest for `patience`.
    ///
    /// # Errors
    ///
    /// The store does not know all that this process does of the login budget.
    pub async fn finish(&self, patience: Duration) -> Result<(), BudgetUntold> {
        let engine = &self.engine;
        engine.closer.advance(Closing::Begun);
        engine.endpoint.close();
        if tokio::time::timeout(patience, engine.renewals.all_ended())
            .await
            .is_err()
        {
            engine.closer.advance(Closing::LastAttempt);
            engine.renewals.all_ended().await;
        }
        let told = engine.guards.budget.write_all();
        let told = tokio::time::timeout(patience, told).await;
        unused::write_at_the_end(engine).await;
        told.map_err(|_| BudgetUntold)
    }
}

/// What this process alone knows of the login budget is lost with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the store could not be told that Damoov blocks logins, or that a slot was not used: other processes may \
     log in during the block, or wait for that slot; `budget` shows what the store knows"
)]
pub struct BudgetUntold;

impl Engine {
    async fn renew_on_demand(
        self: &Arc<Self>,
        principal: &Principal,
        may_log_in: MayLogIn,
    ) -> Result<OnDemand, Error> {
        // A success is to end a suspension that other processes saw.
        self.guards.mass_rejection.follow().await?;
        let before = self.vault.load(principal).await?;
        let refreshed = match before.record {
            Some(_) => self.refresh_on_demand(principal, &before).await?,
            None => OnDemand::NeedsLogin,
        };
        if (refreshed, may_log_in) != (OnDemand::NeedsLogin, MayLogIn::Yes) {
            return Ok(refreshed);
        }
        let than = before.record.is_some().then_some(&before);
        let asked = ask(than, Reserve::Open);
        self.wait_for(principal, asked).await?;
        Ok(OnDemand::LoggedIn)
    }

    /// Refreshes the pair in `before`, and logs nobody in.
    async fn refresh_on_demand(
        self: &Arc<Self>,
        principal: &Principal,
        before: &Entry,
    ) -> Result<OnDemand, Error> {
        let now = self.clock.now();
        let until = now.plus(self.current.now().settings.wait);
        // No caller waits for this renewal, so that it does not log in.
        let asked = ask(Some(before), Reserve::Open);
        let renewal = self.join_or_start(principal, asked, Some(until));
        let left = self.clock.to_real(until.since(now));
        let outcome = match tokio::time::timeout(left, renewal.ended()).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(renewal.last_error()),
        };
        let is_newer =
            |found: &super::Credentials| renewal.is_newer(found, Some(before.generation));
        if outcome.is_some_and(|found| is_newer(&found))
            || self.vault.load(principal).await?.generation > before.generation
        {
            return Ok(OnDemand::Refreshed);
        }
        // It gave way to the holder of the lease, or was rejected.
        let id = LeaseId::fresh();
        let leasing = self.vault.lease(principal, id, self.lease_time());
        Ok(match leasing.await? {
            Leasing::Theirs { .. } => OnDemand::Busy,
            Leasing::Ours { hold, .. } => {
                self.vault.release(principal, &hold);
                OnDemand::NeedsLogin
            }
        })
    }
}

/// `than`: only a newer pair will do than the one in this entry.
fn ask(than: Option<&Entry>, reserve: Reserve) -> Ask {
    Ask {
        instance: None,
        newer_than: than.map(|entry| entry.generation),
        trigger: Trigger::Asked,
        probing: Probing::No,
        reserve,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::fixture::{Api, Medium, Says, settings, user, windows};
    use crate::store::{Budgets, Day, StoreClock, Uses};

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_command_tells_the_store_of_a_429_that_it_missed_before_it_ends() {
        let (api, medium) = (Api::start().await, Medium::new());
        let (renewer, store) = medium.renew_faulty(&api, settings());
        store.misses("block_logins", 4);
        api.will_say([Says::Limited]);
        let refused = renewer.log_in(&user(1), None).await;
        assert!(
            matches!(refused, Err(Error::LoginBlocked { .. })),
            "{refused:?}"
        );
        let known = || async { store.login_budget(&windows()).await.unwrap().blocked };
        assert!(known().await.is_zero(), "the store missed it");
        assert_eq!(renewer.finish(PATIENCE).await, Ok(()));
        assert!(known().await > Duration::from_secs(3_000));
    }

    #[tokio::test]
    async fn a_look_at_the_budget_knows_of_a_429_and_tells_the_store() {
        let (api, medium) = (Api::start().await, Medium::new());
        let (renewer, store) = medium.renew_faulty(&api, settings());
        store.misses("block_logins", 4);
        api.will_say([Says::Limited]);
        assert!(renewer.log_in(&user(1), None).await.is_err());
        let calls = store.calls("block_logins");
        for _ in 0..2 {
            let budget = renewer.login_budget().await.unwrap();
            assert!(budget.blocked > Duration::from_secs(3_000));
        }
        assert_eq!(
            store.calls("block_logins"),
            calls + 2,
            "the first look was missed"
        );
        let known = store.login_budget(&windows()).await.unwrap();
        assert!(known.blocked > Duration::from_secs(3_000));
    }

    #[tokio::test]
    async fn a_slot_that_was_not_used_is_given_back_before_a_command_ends() {
        let (api, medium) = (Api::start().await, Medium::new());
        let (renewer, store) = medium.renew_faulty(&api, settings());
        store.loses("take_login", 3);
        store.misses("give_login_back", 1);
        assert!(renewer.log_in(&user(1), None).await.is_err());
        assert_eq!(renewer.finish(PATIENCE).await, Ok(()));
        let budget = store.login_budget(&windows()).await.unwrap();
        assert_eq!(budget.windows[0].used, 0);
        assert!(api.calls().is_empty());
    }

    #[tokio::test]
    async fn a_login_by_a_command_counts_as_a_use_of_that_day() {
        let (api, medium) = (Api::start().await, Medium::new());
        let (renewer, store) = medium.renew_faulty(&api, settings());
        let today = Day::of(store.now());
        renewer.log_in(&user(1), None).await.unwrap();
        let early = store.unused(today, 10).await.unwrap();
        let by_now = store.unused(Day(i32::MAX), 10).await.unwrap();
        assert_eq!((early, by_now), (vec![], vec![user(1)]));
    }

    #[tokio::test]
    async fn a_command_waits_a_while_for_a_store_that_it_cannot_tell() {
        let (api, medium) = (Api::start().await, Medium::new());
        let (renewer, store) = medium.renew_faulty(&api, settings());
        store.misses("block_logins", 1_000);
        api.will_say([Says::Limited]);
        assert!(renewer.log_in(&user(1), None).await.is_err());
        let patience = Duration::from_millis(200);
        assert_eq!(renewer.finish(patience).await, Err(BudgetUntold));
    }
}

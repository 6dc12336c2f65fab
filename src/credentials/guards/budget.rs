//! The budget of logins: within a class, the principal that asked first goes first, and one that is
//! refused is told honestly when to come back. The store counts the slots; [`queue`](super::queue) keeps
//! the order.
//!
//! ```text
//!   waiting ── the store has a slot ──▶ taken ── end: the login was answered ──▶ counts from now on
//!      │                                  └───── give_back: it was not sent ───▶ free again
//!      └── no slot comes in time ──▶ refused, and remembered: it keeps its place in the line
//! ```
//!
//! A slot that is taken counts at once, so that a crash wastes it rather than the API's patience.

mod unwritten;
mod waiters;

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::time::Duration;

use super::queue::{Look, Patience};
use super::seeker::Seeker;
use crate::clock::{Clock, Moment};
use crate::credentials::Error;
use crate::credentials::closing::{Closing, ClosingWatch};
use crate::credentials::settings::Current;
use crate::credentials::vault::counted::counted;
use crate::credentials::vault::repeated::repeated;
use crate::metrics::{Metrics, StoreOperation};
use crate::store::{self, Budgets, Class, LoginBudget, LoginWindows, Slot, SlotId};
use crate::telemetry::episode::Episode;
use unwritten::Unwritten;
use waiters::{InLine, Waiters};

/// A seeker in the line gives up this long before its patience ends, in real time.
const EARLY: Duration = Duration::from_millis(500);
/// The budget suffices again once no login was refused for this long.
const QUIET: Duration = Duration::from_secs(60);
/// After a 429 the windows are halved for this long.
const HALVED_FOR: Duration = Duration::from_secs(24 * 3600);
/// The most principals of a class that are remembered because they were refused: 65,536 in all. Made-up
/// users cannot push out known ones.
const KNOWN_REMEMBERED: usize = 16_384;
const NEW_REMEMBERED: usize = 49_152;
const _: () = assert!(KNOWN_REMEMBERED + NEW_REMEMBERED == 65_536);

/// Hands out login slots.
pub(crate) struct Budget {
    /// The line of principals that logged in before: those that wait for a slot and those that were
    /// refused one.
    known: Waiters,
    /// The line of principals that never did. Apart, so that made-up users hold up no known one.
    new: Waiters,
    /// Makes the hashes by which logins to forward are recognised. Keyed, because callers choose what is
    /// hashed.
    hashed: RandomState,
    /// Logins are refused because no slot comes in time; over once none was for [`QUIET`].
    exhausted: Episode,
    /// Damoov answered a login with 429.
    blocked: Episode,
    /// Where slots are taken: all processes on one store share them.
    store: Arc<dyn Budgets>,
    /// What the store could not be told. A block counts here until it is.
    unwritten: Unwritten,
    current: Current,
    closing: ClosingWatch,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Budget {
    pub(crate) fn new(
        current: Current,
        store: Arc<dyn Budgets>,
        closing: ClosingWatch,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Budget {
        let waiters = |class, remembered| Waiters::new(class, remembered, current.clone(), clock);
        Budget {
            known: waiters(Class::Known, KNOWN_REMEMBERED),
            new: waiters(Class::New, NEW_REMEMBERED),
            hashed: RandomState::new(),
            exhausted: Episode::ending_after(QUIET),
            blocked: Episode::new(),
            store,
            unwritten: Unwritten::default(),
            current,
            closing,
            clock,
            metrics,
        }
    }

    /// Takes a slot, waiting for one that comes before the patience of `seeker` ends. Returns which
    /// slot was taken; `None` if `seeker` is deserted. Must not be dropped before it returns: a slot might
    /// be taken and never given back.
    ///
    /// # Errors
    ///
    /// [`Error::Closing`], besides those of a refusal.
    pub(crate) async fn take(
        &self,
        class: Class,
        seeker: &impl Seeker,
    ) -> Result<Option<SlotId>, Error> {
        let place = self.waiters(class).enter(seeker);
        let wait = seeker.patience().since(self.clock.now());
        // A little before the callers lose patience, or they would not be told why.
        let early = EARLY.min(self.clock.to_real(wait) / 10);
        let id = SlotId(uuid::Uuid::new_v4());
        let mut has_asked = false;
        let mut closing = self.closing.clone();
        loop {
            if seeker.is_deserted() {
                return Ok(None);
            }
            if self.is_closing() {
                return Err(Error::Closing);
            }
            let until = seeker.patience();
            let (look_at, gives_up) = match place.look(Patience { until, has_asked }) {
                Look::Ask => {
                    has_asked = true;
                    match self.ask_store(id, class).await? {
                        Slot::Taken if seeker.is_deserted() || self.is_closing() => {
                            self.give_back(id).await;
                        }
                        Slot::Taken => {
                            self.slots_come();
                            place.served();
                            return Ok(Some(id));
                        }
                        Slot::Wait { left, blocked } => place.learn(left, blocked),
                    }
                    continue;
                }
                Look::Refuse => return Err(self.refuse(place, wait)),
                // The slot comes before its patience ends, if only just.
                Look::AskAt(slot) => (slot, None),
                Look::Wait(look_at) => {
                    let left = self.clock.to_real(until.since(self.clock.now()));
                    let Some(left) = left.checked_sub(early).filter(|left| !left.is_zero()) else {
                        return Err(self.refuse(place, wait));
                    };
                    (look_at.unwrap_or(Moment::MAX), Some(left))
                }
            };
            tokio::select! {
                () = place.rung() => {}
                () = seeker.deserted() => {}
                () = closing.reaches(Closing::Begun) => {}
                () = self.clock.sleep_until(look_at) => {}
                () = tokio::time::sleep(gives_up.unwrap_or(Duration::MAX)) => {}
            }
        }
    }

    async fn ask_store(&self, id: SlotId, class: Class) -> Result<Slot, Error> {
        let left = self.blocked_here();
        if !left.is_zero() {
            let blocked = true;
            return Ok(Slot::Wait { left, blocked });
        }
        let windows = self.windows();
        let slot = repeated(|| self.store.take_login(id, class, &windows)).await;
        if let Err(store::Error::Away(_)) = slot {
            // It may have been taken.
            self.unwritten.add_unused(id);
        }
        Ok(
            match counted(&self.metrics, StoreOperation::Budget, slot)? {
                Slot::Taken => Slot::Taken,
                Slot::Wait { left, blocked } => Slot::Wait {
                    left: self.clock.from_real(left),
                    blocked,
                },
            },
        )
    }

    /// As the store counts them.
    fn windows(&self) -> LoginWindows {
        let current = self.current.now();
        current.settings.budget.in_real_time(self.clock)
    }

    fn is_closing(&self) -> bool {
        self.closing.has_reached(Closing::Begun)
    }

    fn waiters(&self, class: Class) -> &Waiters {
        match class {
            Class::Known => &self.known,
            Class::New => &self.new,
        }
    }

    /// A hash by which a login to forward is recognised when its caller comes back.
    pub(crate) fn recognisable(&self, login: impl Hash) -> u64 {
        self.hashed.hash_one(login)
    }

    /// The login of the slot `taken` was not sent: the first in the line may have the slot at once, or as
    /// soon as this can be written.
    pub(crate) async fn give_back(&self, taken: SlotId) {
        let group = &self.current.now().settings.budget.group;
        let given = repeated(|| self.store.give_login_back(group, taken)).await;
        if let Err(error) = counted(&self.metrics, StoreOperation::Budget, given) {
            tracing::debug!(%error, "a login slot that was not used cannot be given back yet");
            self.unwritten.add_unused(taken);
            return;
        }
        self.slot_came_free();
    }

    fn slot_came_free(&self) {
        self.known.slot_came_free();
        self.new.slot_came_free();
    }

    fn refuse(&self, place: InLine<'_>, wait: Duration) -> Error {
        let refusal = place.refused(wait);
        let retry_after = refusal.retry_after;
        let seconds = retry_after.as_secs();
        if refusal.blocked {
            if self.blocked.failed() {
                tracing::warn!(
                    seconds,
                    "logins are blocked: requests that need one are refused"
                );
            }
            return Error::LoginBlocked { retry_after };
        }
        if self.exhausted.failed() {
            tracing::warn!(
                seconds,
                "the login budget is used up: requests that cannot wait for the next slot are refused"
            );
        }
        Error::BudgetExhausted { retry_after }
    }

    /// The login of the slot `taken` was answered, or its answer was lost. If this cannot be written the
    /// slot counts from when it was taken.
    pub(crate) async fn end(&self, taken: SlotId) {
        let group = &self.current.now().settings.budget.group;
        let ended = repeated(|| self.store.end_login(group, taken)).await;
        if let Err(error) = counted(&self.metrics, StoreOperation::Budget, ended) {
            tracing::warn!(%error, "the end of a login could not be written");
        }
    }

    /// Whether a login was refused because no slot came in time, and the slots have not sufficed since.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.exhausted.is_failing()
    }

    /// A slot was taken.
    fn slots_come(&self) {
        if let Some(over) = self.blocked.worked() {
            let (seconds, hurt) = (over.seconds(), over.hurt);
            tracing::warn!(seconds, hurt, "logins are no longer blocked");
        }
        if let Some(over) = self.exhausted.worked() {
            let (seconds, hurt) = (over.seconds(), over.hurt);
            tracing::warn!(seconds, hurt, "the login budget suffices again");
        }
    }

    /// How long logins are blocked by a 429 that the store does not know of; zero if they are not.
    pub(crate) fn blocked_here(&self) -> Duration {
        self.unwritten.blocked_for(self.clock.now())
    }

    /// What the store says of it now, and a block that the store does not know of.
    pub(crate) async fn state(&self) -> Result<LoginBudget, Error> {
        let state = self.real_state().await?;
        Ok(state.meant_by(self.clock))
    }

    /// The same in real time.
    pub(crate) async fn real_state(&self) -> Result<LoginBudget, store::Error> {
        let mut state = self.store.login_budget(&self.windows()).await?;
        let here = self.clock.to_real(self.blocked_here());
        for left in [
            &mut state.blocked,
            &mut state.next_known,
            &mut state.next_new,
        ] {
            *left = here.max(*left);
        }
        Ok(state)
    }

    /// Brings the metrics up to date.
    pub(crate) async fn report(&self) -> Result<(), Error> {
        let state = self.state().await?;
        self.metrics
            .login_budget_remaining
            .set(state.remaining.into());
        let limits = state.windows.iter().map(|window| window.limit);
        self.metrics
            .login_budget_limit
            .set(limits.min().unwrap_or(0).into());
        let seconds = |left: Duration| self.clock.to_real(left).as_secs_f64();
        self.metrics
            .login_budget_next
            .set(seconds(state.next_known));
        self.metrics
            .login_blocked_seconds
            .set(seconds(state.blocked));
        let waiting = self.known.count() + self.new.count();
        self.metrics
            .logins_waiting
            .set(waiting.try_into().unwrap_or(i64::MAX));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::credentials::closing::Closer;
    use crate::credentials::fixture::{directory, settings};
    use crate::credentials::guards::seeker::Who;
    use crate::credentials::settings::Settings;
    use crate::store::Store;
    use crate::store::contract::{open_in, pseudonyms, run};
    use crate::store::{LoginWindow, LoginWindows};

    const HOUR: Duration = Duration::from_secs(3600);

    /// A budget of one login in `per`, and a clock on which a minute passes in a second.
    fn budget(per: Duration) -> (Budget, Arc<dyn Store>, Clock, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::scaled(60);
        let store = open_in(directory.path(), pseudonyms(), run(), clock);
        let current = Current::new(one_in(per), Arc::new(self::directory()));
        let (closing, metrics) = (Closer::new().watch(), Arc::new(Metrics::new()));
        let budget = Budget::new(current, store.clone(), closing, clock, metrics);
        (budget, store, clock, directory)
    }

    /// One login in `per`.
    fn one_in(per: Duration) -> Settings {
        Settings {
            budget: LoginWindows {
                group: "default".into(),
                windows: vec![LoginWindow { logins: 1, per }],
                reserve: 0,
            },
            blocked_for: HOUR,
            ..settings()
        }
    }

    /// A caller that stays.
    struct Caller {
        login: u64,
        until: Moment,
    }

    impl Seeker for Caller {
        fn who(&self) -> Who {
            Who::Forwarded(self.login)
        }

        fn patience(&self) -> Moment {
            self.until
        }

        fn is_deserted(&self) -> bool {
            false
        }

        async fn deserted(&self) {
            std::future::pending().await
        }
    }

    async fn take(
        budget: &Budget,
        class: Class,
        login: u64,
        until: Moment,
    ) -> Result<Option<SlotId>, Error> {
        budget.take(class, &Caller { login, until }).await
    }

    #[tokio::test]
    async fn a_slot_that_comes_too_late_is_refused_at_once_and_says_when_it_comes() {
        let (budget, _store, clock, _directory) = budget(HOUR);
        let take = |patience| take(&budget, Class::Known, 1, clock.now().plus(patience));
        assert!(take(Duration::ZERO).await.is_ok());
        let Err(Error::BudgetExhausted { retry_after }) = take(HOUR / 2).await else {
            panic!("no slot is free")
        };
        assert!(
            (50..=60).contains(&retry_after.as_secs()),
            "{retry_after:?}"
        );
    }

    #[tokio::test]
    async fn those_who_wait_get_their_slots_one_after_the_other() {
        let (budget, _store, clock, _directory) = budget(Duration::from_secs(12));
        let started = clock.wall();
        let until = clock.now().plus(HOUR);
        let budget = &budget;
        let takes = (0..4).map(|login| async move {
            let taken = take(budget, Class::New, login, until).await;
            (taken, clock.wall())
        });
        for (place, (taken, at)) in (0..).zip(join_all(takes).await) {
            assert!(taken.is_ok());
            assert!(at >= started.plus(Duration::from_secs(12) * place));
        }
    }

    #[tokio::test]
    async fn a_slot_that_is_given_back_goes_to_one_that_waits() {
        let (budget, store, clock, _directory) = budget(HOUR);
        let patience = clock.now().plus(HOUR * 2);
        let first = take(&budget, Class::Known, 1, patience).await;
        let first = first.unwrap().unwrap();
        for by_another_process in [false, true] {
            let waits = take(&budget, Class::New, 2, patience);
            let gives_back = async {
                tokio::task::yield_now().await;
                match by_another_process {
                    false => budget.give_back(first).await,
                    true => store.give_login_back("default", first).await.unwrap(),
                }
            };
            let before = clock.now();
            let (taken, ()) = tokio::join!(waits, gives_back);
            assert!(clock.now().since(before) < HOUR / 2);
            store
                .give_login_back("default", taken.unwrap().unwrap())
                .await
                .unwrap();
            let again = budget.ask_store(first, Class::Known);
            assert_eq!(again.await, Ok(Slot::Taken));
        }
    }

    #[tokio::test]
    async fn a_budget_that_is_published_holds_from_the_next_look_on() {
        let (budget, _store, clock, _directory) = budget(HOUR);
        let until = clock.now().plus(HOUR / 2);
        assert!(take(&budget, Class::New, 1, until).await.is_ok());
        let refused = take(&budget, Class::New, 2, until).await;
        assert!(matches!(refused, Err(Error::BudgetExhausted { .. })));
        let mut wider = one_in(HOUR);
        wider.budget.windows[0].logins = 2;
        wider.budget.group = "another".into();
        budget.current.publish(wider, Arc::new(directory()));
        // What the store said is believed for half a second.
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert!(take(&budget, Class::New, 2, until).await.is_ok());
        let state = budget.state().await.unwrap();
        assert_eq!(state.remaining, 0, "the group is the one of the start");
    }

    #[tokio::test]
    async fn a_block_is_called_one_to_everybody_who_stands_in_line() {
        let (budget, _store, clock, _directory) = budget(HOUR);
        budget.limited(SlotId(uuid::Uuid::nil()), None).await;
        for _ in 0..2 {
            let until = clock.now().plus(Duration::from_secs(10));
            let takes = (0..4).map(|login| take(&budget, Class::Known, login, until));
            for taken in join_all(takes).await {
                assert!(
                    matches!(taken, Err(Error::LoginBlocked { .. })),
                    "{taken:?}"
                );
            }
        }
    }
}

//! Waiting for a login slot: who asked first goes first within a class, and a user that is refused is
//! told honestly when to come back. The slots themselves are the store's, the order is [`queue`](super::queue)'s.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::line::Place;
use super::queue::{Look, Next, Patience, Queue, Refusal};
use crate::clock::{Clock, Moment};
use crate::credentials::Error;
use crate::credentials::engine::Closing;
use crate::credentials::renewal::renewals::Renewal;
use crate::credentials::vault::counted::counted;
use crate::metrics::{Metrics, StoreOperation};
use crate::principal::Principal;
use crate::store::{Class, LoginBudget, LoginWindows, Slot, SlotId, Store};
use crate::telemetry::episode::Episode;

/// Who stands in line gives up this long before its patience ends, in real time.
const EARLY: Duration = Duration::from_millis(500);
/// The budget suffices again once nobody was refused for this long.
const QUIET: Duration = Duration::from_secs(60);
/// After a 429 the windows are halved for this long.
const HALVED_FOR: Duration = Duration::from_secs(24 * 3600);
/// The most principals of a class that are remembered because they were refused: 65,536 in all. Users
/// that nobody knows cannot push out those that are known.
const KNOWN_REMEMBERED: usize = 16_384;
const NEW_REMEMBERED: usize = 49_152;
const _: () = assert!(KNOWN_REMEMBERED + NEW_REMEMBERED == 65_536);

/// Hands out login slots.
#[derive(Debug)]
pub(crate) struct Budget {
    windows: LoginWindows,
    /// The block after a 429 that does not say how long.
    blocked_for: Duration,
    known: Mutex<Waiters>,
    new: Mutex<Waiters>,
    /// Makes what logins to forward are recognised by.
    hashed: RandomState,
    /// No slot comes in time.
    exhausted: Episode,
    /// Damoov answered a login with 429.
    blocked: Episode,
    closing: watch::Receiver<Closing>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// Those of one class that need a slot.
#[derive(Debug)]
struct Waiters {
    queue: Queue<Who>,
    /// Rung when the one at a place has reason to look again.
    bells: BTreeMap<Place, Arc<Notify>>,
}

/// Who a slot is for: what is remembered of those who are refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    /// A login of ours.
    Principal(Principal),
    /// A login to forward, by a hash of what it says.
    Forwarded(u64),
}

/// What wants a slot.
#[derive(Clone, Debug)]
pub(crate) enum Seeker<'a> {
    /// A renewal; the callers that wait for it come and go.
    Renewal(&'a Renewal),
    /// A caller whose login is to be forwarded.
    Caller {
        /// What it is recognised by when it comes back.
        login: u64,
        /// When its patience ends.
        until: Moment,
        /// Closed when it hangs up.
        caller: &'a watch::Sender<()>,
    },
}

impl Seeker<'_> {
    fn who(&self) -> Who {
        match self {
            Seeker::Renewal(renewal) => Who::Principal(renewal.principal.clone()),
            Seeker::Caller { login, .. } => Who::Forwarded(*login),
        }
    }

    /// When it asked for the first time, if it had a slot and gave it back.
    fn asked(&self) -> Option<Moment> {
        match self {
            Seeker::Renewal(renewal) => renewal.asked.get().copied(),
            Seeker::Caller { .. } => None,
        }
    }

    fn stands_at(&self, place: Place) {
        if let Seeker::Renewal(renewal) = self {
            let _ = renewal.asked.set(place.first());
        }
    }

    /// When its patience ends; grows when others join.
    fn patience(&self) -> Moment {
        match self {
            Seeker::Renewal(renewal) => renewal.patience(),
            Seeker::Caller { until, .. } => *until,
        }
    }

    fn is_deserted(&self) -> bool {
        match self {
            Seeker::Renewal(renewal) => renewal.is_deserted(),
            Seeker::Caller { caller, .. } => caller.is_closed(),
        }
    }

    /// Returns once nobody waits for it.
    async fn deserted(&self) {
        match self {
            Seeker::Renewal(renewal) => renewal.deserted().await,
            Seeker::Caller { caller, .. } => caller.closed().await,
        }
    }
}

impl Waiters {
    fn ring(&self, place: Option<Place>) {
        if let Some(bell) = place.and_then(|place| self.bells.get(&place)) {
            bell.notify_one();
        }
    }

    fn ring_all(&self) {
        self.bells.values().for_each(|bell| bell.notify_one());
    }
}

impl Budget {
    pub(crate) fn new(
        windows: LoginWindows,
        blocked_for: Duration,
        closing: watch::Receiver<Closing>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Budget {
        let waiters = |reserve, remembered| {
            Mutex::new(Waiters {
                queue: Queue::new(&windows.windows, reserve, remembered, clock.second()),
                bells: BTreeMap::new(),
            })
        };
        Budget {
            known: waiters(0, KNOWN_REMEMBERED),
            new: waiters(windows.reserve, NEW_REMEMBERED),
            windows,
            blocked_for,
            hashed: RandomState::new(),
            exhausted: Episode::ending_after(QUIET),
            blocked: Episode::new(),
            closing,
            clock,
            metrics,
        }
    }

    /// Takes a slot, waiting for one that comes before the patience of `seeker` ends. Returns which
    /// slot was taken; `None` if nobody waits for it any more. Not to be dropped before it returns: a
    /// slot might be taken that nobody gives back.
    ///
    /// # Errors
    ///
    /// [`Error::Closing`], besides those of a refusal.
    pub(crate) async fn take(
        &self,
        store: &dyn Store,
        class: Class,
        seeker: Seeker<'_>,
    ) -> Result<Option<SlotId>, Error> {
        let place = self.enter(class, &seeker);
        let wait = seeker.patience().since(self.clock.now());
        // A little before those who wait lose patience, or they would not be told why.
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
                    let slot = store.take_login(id, class, &self.windows).await;
                    match counted(&self.metrics, StoreOperation::Budget, slot)? {
                        Slot::Taken if seeker.is_deserted() || self.is_closing() => {
                            self.give_back(store, id).await;
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
                () = place.bell.notified() => {}
                () = seeker.deserted() => {}
                Ok(_) = closing.wait_for(|closing| *closing > Closing::NotYet) => {}
                () = self.clock.sleep_until(look_at) => {}
                () = tokio::time::sleep(gives_up.unwrap_or(Duration::MAX)) => {}
            }
        }
    }

    fn is_closing(&self) -> bool {
        *self.closing.borrow() > Closing::NotYet
    }

    /// What a login to forward is recognised by when its caller comes back; not what it says.
    pub(crate) fn recognisable(&self, login: impl Hash) -> u64 {
        self.hashed.hash_one(login)
    }

    /// The login of the slot `taken` was not sent: the first that waits may have it at once. If this
    /// cannot be written the slot stays taken.
    pub(crate) async fn give_back(&self, store: &dyn Store, taken: SlotId) {
        let given = store.give_login_back(&self.windows.group, taken).await;
        if let Err(error) = counted(&self.metrics, StoreOperation::Budget, given) {
            tracing::warn!(%error, "a login slot that was not used could not be given back");
            return;
        }
        for waiters in [&self.known, &self.new] {
            let mut waiters = lock(waiters);
            let first = waiters.queue.slot_came_free();
            waiters.ring(first);
        }
    }

    fn enter(&self, class: Class, seeker: &Seeker<'_>) -> InLine<'_> {
        let waiters = match class {
            Class::Known => &self.known,
            Class::New => &self.new,
        };
        let mut locked = lock(waiters);
        let now = self.clock.now();
        let asked = seeker.asked().unwrap_or(now);
        let (place, first) = locked.queue.enter(seeker.who(), asked, now);
        seeker.stands_at(place);
        let bell = Arc::new(Notify::new());
        locked.bells.insert(place, bell.clone());
        locked.ring(first);
        drop(locked);
        InLine {
            waiters,
            place,
            bell,
            clock: self.clock,
        }
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

    /// The login of the slot `taken` was answered, or its answer lost. Where this cannot
    /// be written the slot counts from when it was taken.
    pub(crate) async fn end(&self, store: &dyn Store, taken: SlotId) {
        let ended = store.end_login(&self.windows.group, taken).await;
        if let Err(error) = counted(&self.metrics, StoreOperation::Budget, ended) {
            tracing::warn!(%error, "the end of a login could not be written");
        }
    }

    /// Whether somebody was refused for want of a slot, and the slots have not sufficed since.
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

    /// Damoov answered a login with 429: nobody logs in for as long as is returned, in real time.
    /// True if that is to be told.
    pub(crate) async fn block(
        &self,
        store: &dyn Store,
        retry_after: Option<Duration>,
    ) -> Result<(Duration, bool), Error> {
        let blocked = retry_after.unwrap_or(self.blocked_for);
        let is_news = self.blocked.failed();
        store
            .block_logins(&self.windows.group, blocked, Some(HALVED_FOR))
            .await?;
        Ok((self.clock.to_real(blocked), is_news))
    }

    /// What the store says of it now.
    pub(crate) async fn state(&self, store: &dyn Store) -> Result<LoginBudget, Error> {
        Ok(store.login_budget(&self.windows).await?)
    }

    /// Brings the metrics up to date.
    pub(crate) async fn report(&self, store: &dyn Store) -> Result<(), Error> {
        let state = self.state(store).await?;
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
        let waiting = |waiters| lock(waiters).queue.waiting();
        let waiting = waiting(&self.known) + waiting(&self.new);
        self.metrics
            .logins_waiting
            .set(waiting.try_into().unwrap_or(i64::MAX));
        Ok(())
    }
}

/// A place among those who wait. It is left when this is dropped.
struct InLine<'a> {
    waiters: &'a Mutex<Waiters>,
    place: Place,
    bell: Arc<Notify>,
    clock: Clock,
}

impl InLine<'_> {
    fn look(&self, patience: Patience) -> Look {
        let now = self.clock.now();
        lock(self.waiters).queue.look(self.place, patience, now)
    }

    /// The store said when the next slot comes: those behind may learn that it is too late for them.
    fn learn(&self, left: Duration, blocked: bool) {
        let learned = self.clock.now();
        let mut waiters = lock(self.waiters);
        waiters.queue.learn(Next {
            slot: learned.plus(left),
            blocked,
            learned,
        });
        // A block may end at any time; each asks for itself when it is the first.
        if !blocked {
            waiters.ring_all();
        }
    }

    fn served(self) {
        let mut waiters = lock(self.waiters);
        let first = waiters.queue.served(self.place, self.clock.now());
        waiters.ring(first);
    }

    fn refused(self, wait: Duration) -> Refusal {
        let mut waiters = lock(self.waiters);
        let (refusal, first) = waiters.queue.refuse(self.place, wait, self.clock.now());
        waiters.ring(first);
        refusal
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut waiters = lock(self.waiters);
        waiters.bells.remove(&self.place);
        let first = waiters.queue.hung_up(self.place, self.clock.now());
        waiters.ring(first);
    }
}

fn lock(waiters: &Mutex<Waiters>) -> MutexGuard<'_, Waiters> {
    waiters.lock().expect("no code panics under this lock")
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::store::LoginWindow;
    use crate::store::Store;
    use crate::store::contract::{open_in, run};

    const HOUR: Duration = Duration::from_secs(3600);

    /// A budget of one login in `per`, and a clock on which a minute passes in a second.
    fn budget(per: Duration) -> (Budget, Arc<dyn Store>, Clock, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::scaled(60);
        let store = open_in(directory.path(), run(), clock);
        let windows = LoginWindows {
            group: "default".into(),
            windows: vec![LoginWindow { logins: 1, per }],
            reserve: 0,
        };
        let budget = Budget::new(
            windows,
            HOUR,
            watch::Sender::new(Closing::NotYet).subscribe(),
            clock,
            Arc::new(Metrics::new()),
        );
        (budget, store, clock, directory)
    }

    /// A caller that stays.
    fn caller(login: u64, until: Moment) -> Seeker<'static> {
        let caller = watch::Sender::new(());
        std::mem::forget(caller.subscribe());
        let caller = Box::leak(Box::new(caller));
        Seeker::Caller {
            login,
            until,
            caller,
        }
    }

    #[tokio::test]
    async fn a_slot_that_comes_too_late_is_refused_at_once_and_says_when_it_comes() {
        let (budget, store, clock, _directory) = budget(HOUR);
        let take = |patience| {
            let until = clock.now().plus(patience);
            budget.take(&*store, Class::Known, caller(1, until))
        };
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
        let (budget, store, clock, _directory) = budget(Duration::from_secs(12));
        let started = clock.wall();
        let until = clock.now().plus(HOUR);
        let (budget, store) = (&budget, &*store);
        let takes = (0..4).map(|login| async move {
            let taken = budget.take(store, Class::New, caller(login, until)).await;
            (taken, clock.wall())
        });
        for (place, (taken, at)) in (0..).zip(join_all(takes).await) {
            assert!(taken.is_ok());
            assert!(at >= started.plus(Duration::from_secs(12) * place));
        }
    }

    #[tokio::test]
    async fn a_slot_that_is_given_back_goes_to_whoever_waits_for_one() {
        let (budget, store, clock, _directory) = budget(HOUR);
        let patience = clock.now().plus(HOUR * 2);
        let first = budget
            .take(&*store, Class::Known, caller(1, patience))
            .await
            .unwrap()
            .unwrap();
        for by_another_process in [false, true] {
            let waits = budget.take(&*store, Class::New, caller(2, patience));
            let gives_back = async {
                tokio::task::yield_now().await;
                match by_another_process {
                    false => budget.give_back(&*store, first).await,
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
            let again = store.take_login(first, Class::Known, &budget.windows);
            assert_eq!(again.await, Ok(Slot::Taken));
        }
    }

    #[tokio::test]
    async fn a_block_is_called_one_to_everybody_who_stands_in_line() {
        let (budget, store, clock, _directory) = budget(HOUR);
        budget.block(&*store, None).await.unwrap();
        for _ in 0..2 {
            let until = clock.now().plus(Duration::from_secs(10));
            let takes =
                (0..4).map(|login| budget.take(&*store, Class::Known, caller(login, until)));
            for taken in join_all(takes).await {
                assert!(
                    matches!(taken, Err(Error::LoginBlocked { .. })),
                    "{taken:?}"
                );
            }
        }
    }
}

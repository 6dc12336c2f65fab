//! What a seeker of a login slot does next: ask the store for one, wait, or come back later, and when.
//! Pure: it is given the time, and what the store said of the next slot.

use std::hash::Hash;
use std::time::Duration;

use super::line::{Appointment, Leave, Line, Place, Turn};
use crate::clock::Moment;
use crate::store::LoginWindow;

/// For this long, what the store said of the next slot is believed; after that an operator may have
/// ended a block, or another process may have given a slot back.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// However fast the clock of a test is, the store is asked no more often than this in a real second.
const AT_MOST_EVERY: u32 = 50;
/// A seeker comes back this long before its slot: if it came later, another might have taken it.
const AHEAD: Duration = Duration::from_secs(2);

/// The seekers of one class.
#[derive(Debug)]
pub(crate) struct Queue<K> {
    line: Line<K>,
    /// What the store last said of the next slot.
    next: Next,
    /// What passes on the clock in a real second.
    second: Duration,
}

/// How many logins a class may use: those of each window, less the reserve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usable<'a> {
    pub(crate) windows: &'a [LoginWindow],
    /// Logins of each window that are not for this class.
    pub(crate) reserve: u32,
}

impl Usable<'_> {
    fn iter(&self) -> impl Iterator<Item = LoginWindow> {
        self.windows.iter().map(|window| LoginWindow {
            logins: window.logins.saturating_sub(self.reserve).max(1),
            per: window.per,
        })
    }
}

/// When the next slot comes. The default: at once, as far as is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) slot: Moment,
    /// Whether a block stands in the way, rather than the windows.
    pub(crate) blocked: bool,
    /// When the store said so.
    pub(crate) learned: Moment,
}

/// How long a seeker is patient, and whether it has asked the store itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) until: Moment,
    pub(crate) has_asked: bool,
}

/// What a seeker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It asks the store for a slot.
    Ask,
    /// It is the first, and asks the store then.
    AskAt(Moment),
    /// It waits for its turn, and looks again at that time, if one is given.
    Wait(Option<Moment>),
    /// It is refused: no slot comes in time.
    Refuse,
}

/// What a seeker that is refused is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// When to come back: whole seconds of real time, at least one.
    pub(crate) retry_after: Duration,
    /// Whether a block stands in the way.
    pub(crate) blocked: bool,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// `capacity`: how many seekers that were refused are remembered. `second`: what passes on the clock
    /// in a real second.
    pub(crate) fn new(capacity: usize, second: Duration) -> Queue<K> {
        Queue {
            line: Line::new(capacity),
            next: Next::default(),
            second,
        }
    }

    /// A seeker needs a slot, since `first`. Returns its place, and which other one has reason to look
    /// again.
    pub(crate) fn enter(&mut self, key: K, first: Moment, now: Moment) -> (Place, Option<Place>) {
        let place = self.line.enter(key, first, now);
        (place, self.line.first().filter(|first| *first != place))
    }

    /// What the seeker at `place` does next.
    pub(crate) fn look(
        &mut self,
        place: Place,
        patience: Patience,
        usable: Usable<'_>,
        now: Moment,
    ) -> Look {
        let Next {
            slot,
            blocked,
            learned,
        } = self.next;
        let is_known = slot > now;
        let old = learned.plus(LOOK_AGAIN.max(self.second / AT_MOST_EVERY));
        match self.line.turn(place, now) {
            Turn::Now => {
                // A block may have ended: no seeker is refused for one without having asked.
                let doubts = now >= old || (blocked && !patience.has_asked);
                if !is_known || doubts {
                    Look::Ask
                } else if slot > patience.until {
                    Look::Refuse
                } else {
                    Look::AskAt(slot.min(old))
                }
            }
            Turn::Behind if is_known && !blocked => {
                let come = self.slots_until(patience.until, usable);
                match self.line.ahead(place, patience.until, come) < come {
                    true => Look::Wait(None),
                    false => Look::Refuse,
                }
            }
            Turn::Behind => Look::Wait(None),
            Turn::KeptUntil(end) => Look::Wait(Some(end)),
        }
    }

    /// The store said when a slot comes.
    pub(crate) fn learn(&mut self, next: Next) {
        self.next = next;
    }

    /// The seeker at `place`, which was patient for `wait`, is refused. Returns what it is told, and which
    /// is the first now.
    pub(crate) fn refuse(
        &mut self,
        place: Place,
        wait: Duration,
        usable: Usable<'_>,
        now: Moment,
    ) -> (Refusal, Option<Place>) {
        let mut slot = self.next.slot.max(now);
        if let Turn::KeptUntil(end) = self.line.turn(place, now) {
            slot = slot.max(end);
        }
        let rank = self.line.rank(place, now);
        let slot = slot.plus(later(rank, usable));
        let blocked = self.next.blocked && self.next.slot > now;
        let seconds = match blocked {
            true => self.whole_seconds(slot.since(now)),
            false => self.seconds_until(slot.since(now), wait),
        };
        let appointment = Appointment {
            from: slot,
            at: now.plus(self.second.saturating_mul(seconds)),
        };
        let first = self.line.leave(place, Leave::Refused(appointment), now);
        let refusal = Refusal {
            retry_after: Duration::from_secs(seconds.into()),
            blocked,
        };
        (refusal, first)
    }

    /// The seeker at `place` has a slot. Returns which is the first now.
    pub(crate) fn served(&mut self, place: Place, now: Moment) -> Option<Place> {
        // Whether there is another one, the store knows.
        self.next = Next::default();
        self.line.leave(place, Leave::Served, now)
    }

    /// The seeker at `place` is deserted. Returns which is the first now.
    pub(crate) fn hung_up(&mut self, place: Place, now: Moment) -> Option<Place> {
        self.line.leave(place, Leave::HungUp, now)
    }

    /// A slot that was taken was given back, or a block was ended. Returns which is the first: it may ask.
    pub(crate) fn slot_came_free(&mut self) -> Option<Place> {
        self.next = Next::default();
        self.line.first()
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.line.waiting()
    }

    /// How many slots come until then at most.
    fn slots_until(&self, until: Moment, usable: Usable<'_>) -> usize {
        let Some(left) = (until >= self.next.slot).then(|| until.since(self.next.slot)) else {
            return 0;
        };
        let of = |window: LoginWindow| {
            let windows = 1 + left.as_nanos() / window.per.as_nanos().max(1);
            let slots = windows.saturating_mul(window.logins.into());
            usize::try_from(slots).unwrap_or(usize::MAX)
        };
        usable.iter().map(of).min().unwrap_or(usize::MAX)
    }

    /// After how many real seconds to come back for a slot that comes in `left`: a little before it, if
    /// `wait` outlasts the difference.
    fn seconds_until(&self, left: Duration, wait: Duration) -> u32 {
        let aim = left.saturating_sub(AHEAD.min(wait / 4));
        let after = self.whole_seconds(aim);
        let Some(before) = after.checked_sub(1).filter(|before| *before > 0) else {
            return after;
        };
        let early = left.saturating_sub(self.second.saturating_mul(before));
        match early <= wait / 4 * 3 {
            true => before,
            false => after,
        }
    }

    /// Rounded up to real seconds, at least one.
    fn whole_seconds(&self, left: Duration) -> u32 {
        let seconds = left.as_nanos().div_ceil(self.second.as_nanos().max(1));
        u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
    }
}

/// How much later than the next slot comes the slot that is left once `rank` others have had theirs.
fn later(rank: usize, usable: Usable<'_>) -> Duration {
    let rank = u32::try_from(rank).unwrap_or(u32::MAX);
    let of = |window: LoginWindow| window.per.saturating_mul(rank / window.logins);
    usable.iter().map(of).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use uuid::Uuid;

    use super::*;
    use crate::clock::{Boot, Stamp, Timestamp};
    use crate::store::windows::History;
    use crate::store::{Class, LoginWindows, Slot, SlotId};

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);
    /// How often the model moves on, in milliseconds.
    const STEP: u64 = 50;
    /// From here on users are made up: they ask once and never come back.
    const MADE_UP: u32 = 1_000_000;

    /// Users, the queue and the store's windows; time passes in steps.
    struct Model {
        queue: Queue<u32>,
        history: History,
        windows: LoginWindows,
        wait: Duration,
        second: Duration,
        now: u64,
        /// Who waits, since when.
        waiting: BTreeMap<Place, (u32, Moment, bool)>,
        /// Who asks when.
        asks: BTreeMap<(u64, u32), ()>,
        /// Who got a slot, when.
        served: Vec<(u32, Duration)>,
        /// Logins that end then.
        logins: BTreeMap<(u64, u32), SlotId>,
        /// A generator of lateness.
        noise: u64,
    }

    impl Model {
        /// Four logins a minute, one of them reserved. What passes in a real second: `second`.
        fn new(second: Duration, wait: Duration, noise: u64) -> Model {
            let windows = LoginWindows {
                group: "default".into(),
                windows: vec![LoginWindow {
                    logins: 4,
                    per: MINUTE,
                }],
                reserve: 1,
            };
            Model {
                queue: Queue::new(49_152, second),
                history: History::default(),
                windows,
                wait,
                second,
                now: STEP,
                waiting: BTreeMap::new(),
                asks: BTreeMap::new(),
                served: Vec::new(),
                logins: BTreeMap::new(),
                noise: noise | 1,
            }
        }

        fn moment(&self) -> Moment {
            Moment::from_millis(self.now)
        }

        fn stamp(&self) -> Stamp {
            let since_boot = i64::try_from(self.now).unwrap();
            Stamp {
                boot: Boot(1),
                since_boot,
                wall: Timestamp::from_millis(since_boot),
            }
        }

        /// Milliseconds below `most`.
        fn up_to(&mut self, most: Duration) -> u64 {
            self.noise ^= self.noise << 13;
            self.noise ^= self.noise >> 7;
            self.noise ^= self.noise << 17;
            self.noise % u64::try_from(most.as_millis()).unwrap().max(1)
        }

        fn asks_at(&mut self, user: u32, at: Duration) {
            let at = u64::try_from(at.as_millis()).unwrap();
            self.asks.insert((at, user), ());
        }

        /// Lets time pass until then.
        fn run_until(&mut self, end: Duration) {
            while u128::from(self.now) < end.as_millis() {
                self.now += STEP;
                let now = self.moment();
                while let Some(login) = self.logins.first_entry()
                    && login.key().0 <= self.now
                {
                    let ended = login.remove();
                    self.history.end(ended, self.stamp());
                }
                while let Some((&(at, user), ())) = self.asks.first_key_value()
                    && at <= self.now
                {
                    self.asks.remove(&(at, user));
                    let (place, _) = self.queue.enter(user, now, now);
                    self.waiting.insert(place, (user, now, false));
                }
                let waiting: Vec<_> = self.waiting.keys().copied().collect();
                waiting.into_iter().for_each(|place| self.goes_on(place));
            }
        }

        fn goes_on(&mut self, place: Place) {
            let now = self.moment();
            loop {
                let (user, since, has_asked) = self.waiting[&place];
                let until = since.plus(self.wait);
                let usable = usable(&self.windows);
                match self
                    .queue
                    .look(place, Patience { until, has_asked }, usable, now)
                {
                    Look::Ask => {
                        self.waiting.insert(place, (user, since, true));
                        let id = SlotId(Uuid::from_u128(self.served.len() as u128));
                        let stamp = self.stamp();
                        match self.history.take(id, Class::New, &self.windows, stamp) {
                            Slot::Taken => {
                                self.queue.served(place, now);
                                self.waiting.remove(&place);
                                self.served.push((user, Duration::from_millis(self.now)));
                                let ends = self.now + 100 + self.up_to(SECOND);
                                self.logins.insert((ends, user), id);
                                return;
                            }
                            Slot::Wait { left, blocked } => self.queue.learn(Next {
                                slot: now.plus(left),
                                blocked,
                                learned: now,
                            }),
                        }
                    }
                    Look::AskAt(_) => return,
                    Look::Wait(_) if now.plus(SECOND / 2) < until => return,
                    Look::Wait(_) | Look::Refuse => {
                        self.waiting.remove(&place);
                        let (refusal, _) = self.queue.refuse(place, self.wait, usable, now);
                        if user < MADE_UP {
                            let told = refusal.retry_after.as_secs();
                            let told = self.second * u32::try_from(told).unwrap();
                            let late = self.up_to(self.second / 5);
                            let at = self.now + late + u64::try_from(told.as_millis()).unwrap();
                            self.asks.insert((at, user), ());
                        }
                        return;
                    }
                }
            }
        }

        /// When each of the first `count` users got its slot.
        fn served_of(&self, count: u32) -> Vec<Duration> {
            let served = self.served.iter().filter(|(user, _)| *user < count);
            served.map(|(_, at)| *at).collect()
        }
    }

    /// What users never seen may use.
    fn usable(windows: &LoginWindows) -> Usable<'_> {
        Usable {
            windows: &windows.windows,
            reserve: windows.reserve,
        }
    }

    /// `per_second` made-up users who ask once, until `end`.
    fn made_up(model: &mut Model, per_second: u32, end: Duration) {
        let count = u32::try_from(end.as_secs()).unwrap() * per_second;
        for number in 0..count {
            model.asks_at(MADE_UP + number, SECOND * number / per_second);
        }
    }

    #[test]
    fn honest_new_users_get_in_beside_made_up_ones_that_ask_once() {
        for second in [SECOND, SECOND * 30] {
            for seed in 0..4 {
                let mut model = Model::new(second, SECOND * 20, 77 + seed * 1_001);
                made_up(&mut model, 10, MINUTE * 20);
                for user in 0..20 {
                    let at = SECOND * 60 + Duration::from_millis(model.up_to(SECOND * 30));
                    model.asks_at(user, at);
                }
                model.run_until(MINUTE * 20);
                let served = model.served_of(20);
                assert_eq!(served.len(), 20, "{second:?}, {seed}");
                // One window to be told, one to come back, seven for all.
                assert!(served.iter().all(|at| *at < MINUTE * 10), "{served:?}");
            }
        }
    }
}

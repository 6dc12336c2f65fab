//! The order in which seekers get a login slot: the one that asked first goes first, even if it was
//! refused meanwhile and told to come back. Remembers a bounded number of those that were refused. Pure:
//! it is given the time, and knows no slot.
//!
//! ```text
//!            enter                leave: served
//!   ────────────────▶ waiting ───────────────────▶ gone
//!                      │   ▲
//!       leave: refused │   │ enter again: the same place as before
//!                      ▼   │
//!                      absent ── its appointment is missed ──▶ counts as a stranger, keeps its place
//! ```
//!
//! A *stranger* has not come back when it was told to, or was never told. A *returner* has: a slot is kept
//! for it from its appointment on. So a crowd of seekers that ask once and never come back, as made-up
//! users do, takes nothing from those that obey Retry-After.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use crate::clock::Moment;

/// A seeker that comes back this much later than it was told is still in time.
pub(crate) const LATE: Duration = Duration::from_secs(30);

/// The seekers that wait for a slot, and those that were refused one.
#[derive(Debug)]
pub(crate) struct Line<K> {
    /// The seekers that wait now.
    waiting: BTreeMap<Place, Waiting<K>>,
    /// The places of the returners among them.
    waiting_returners: BTreeSet<Place>,
    /// The seekers that wait no longer and were given no slot.
    absent: HashMap<K, Absent>,
    /// The most of `absent`.
    capacity: usize,
    /// All of `absent`, by when their appointments are missed.
    by_end: BTreeMap<(Moment, Place), K>,
    /// The strangers among `absent`.
    strangers: BTreeMap<Place, K>,
    /// The returners among `absent`.
    returners: BTreeSet<Place>,
    /// The same, by when a slot is kept for them, with when that ends.
    due: BTreeMap<(Moment, Place), (Moment, K)>,
    /// The next place's.
    ticket: u64,
}

/// A place in the line: the earlier of two stands before the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// When its holder asked for the first time.
    first: Moment,
    ticket: u64,
}

/// When a seeker that is refused may come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appointment {
    /// From when a slot is kept for it.
    pub(crate) from: Moment,
    /// The time that it was told to come back.
    pub(crate) at: Moment,
}

/// Whether the holder of a place may take the next slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It may.
    Now,
    /// Another seeker that waits asked before it.
    Behind,
    /// The next slot is kept until then for a seeker that asked before it and is to come back.
    KeptUntil(Moment),
}

#[derive(Debug)]
struct Waiting<K> {
    key: K,
    standing: Standing,
    /// The time that it was told to come back, if it came back earlier.
    told: Option<Moment>,
}

#[derive(Debug)]
struct Absent {
    place: Place,
    standing: Standing,
    appointment: Appointment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It has not come back when it was told to, or was never told.
    Stranger,
    /// It has come back when it was told to.
    Returner,
}

impl Appointment {
    /// After this it is missed.
    fn end(self) -> Moment {
        self.at.plus(LATE)
    }

    /// From when a slot is kept: at the latest from the time that was told.
    fn start(self) -> Moment {
        self.from.min(self.at)
    }
}

impl<K: Clone + Eq + Hash> Line<K> {
    /// A line that remembers up to `capacity` seekers that were refused.
    pub(crate) fn new(capacity: usize) -> Line<K> {
        Line {
            waiting: BTreeMap::new(),
            waiting_returners: BTreeSet::new(),
            absent: HashMap::new(),
            capacity,
            by_end: BTreeMap::new(),
            strangers: BTreeMap::new(),
            returners: BTreeSet::new(),
            due: BTreeMap::new(),
            ticket: 0,
        }
    }

    /// Takes a place for `key`: the one that it had if it was refused before, or else the place of a
    /// seeker that asked at `first`.
    pub(crate) fn enter(&mut self, key: K, first: Moment, now: Moment) -> Place {
        self.expire(now);
        let (place, standing, told) = match self.forget(&key) {
            Some(absent) => {
                let Appointment { at, .. } = absent.appointment;
                let end = absent.appointment.end();
                if now > end {
                    (absent.place, Standing::Stranger, None)
                } else if now >= at {
                    (absent.place, Standing::Returner, None)
                } else {
                    // Too early: it may be here still when its time comes.
                    (absent.place, absent.standing, Some(at))
                }
            }
            None => {
                self.ticket += 1;
                let ticket = self.ticket;
                let place = Place { first, ticket };
                (place, Standing::Stranger, None)
            }
        };
        if standing == Standing::Returner {
            self.waiting_returners.insert(place);
        }
        let waiting = Waiting {
            key,
            standing,
            told,
        };
        self.waiting.insert(place, waiting);
        place
    }

    /// Whether the seeker that waits at `place` may take the next slot.
    pub(crate) fn turn(&mut self, place: Place, now: Moment) -> Turn {
        self.expire(now);
        match self.waiting.first_key_value() {
            Some((first, _)) if *first == place => {}
            _ => return Turn::Behind,
        }
        // No slot is kept from a returner that waits, nor from a seeker that stands before one.
        if !self.waiting_returners.is_empty() {
            return Turn::Now;
        }
        let due = self.due.range(..=(now, Place::LAST));
        let before = due.filter(|((_, theirs), _)| *theirs < place);
        match before.map(|(_, (end, _))| *end).min() {
            Some(end) => Turn::KeptUntil(end),
            None => Turn::Now,
        }
    }

    /// How many go before the seeker that waits at `place`, of slots that come until `until`; counts no
    /// further than `most`.
    pub(crate) fn ahead(&self, place: Place, until: Moment, most: usize) -> usize {
        let waiting = self.waiting.range(..place).take(most).count();
        let due = self.due.range(..=(until, Place::LAST));
        let due = due.filter(|((_, theirs), _)| *theirs < place);
        waiting + due.take(most.saturating_sub(waiting)).count()
    }

    /// How many returners asked before the seeker that waits at `place`, if it is a returner as well. A
    /// stranger has rank 0: it must come back first.
    pub(crate) fn rank(&mut self, place: Place, now: Moment) -> usize {
        self.expire(now);
        match self.standing(place, now) {
            Standing::Stranger => 0,
            Standing::Returner => {
                let waiting = self.waiting_returners.range(..place).count();
                waiting + self.returners.range(..place).count()
            }
        }
    }

    /// The seeker at `place` waits no longer. If it was given no slot it keeps its place for when it comes
    /// back. Returns the first that waits now, if that is another one than before.
    pub(crate) fn leave(&mut self, place: Place, why: Leave, now: Moment) -> Option<Place> {
        self.expire(now);
        let standing = self.standing(place, now);
        let was_first = self.first() == Some(place);
        let waiting = self.waiting.remove(&place)?;
        self.waiting_returners.remove(&place);
        let absent = match why {
            Leave::Served => None,
            Leave::Refused(appointment) => Some((standing, appointment)),
            // No slot is kept for a seeker that was told nothing.
            Leave::HungUp => Some((Standing::Stranger, Appointment { from: now, at: now })),
        };
        if let Some((standing, appointment)) = absent {
            let absent = Absent {
                place,
                standing,
                appointment,
            };
            self.remember(waiting.key, absent, now);
        }
        self.first().filter(|_| was_first)
    }

    /// The first that waits.
    pub(crate) fn first(&self) -> Option<Place> {
        self.waiting.first_key_value().map(|(first, _)| *first)
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many absent seekers are remembered.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> usize {
        self.absent.len()
    }

    /// A seeker that came back early and has waited until the time that it was told is a returner.
    fn standing(&self, place: Place, now: Moment) -> Standing {
        match self.waiting.get(&place) {
            Some(waiting) if waiting.told.is_some_and(|told| told <= now) => Standing::Returner,
            Some(waiting) => waiting.standing,
            None => Standing::Stranger,
        }
    }

    /// Returners that missed their appointments count as strangers again. They keep their places.
    fn expire(&mut self, now: Moment) {
        let due = self.due.range(..=(now, Place::LAST));
        let missed = due.filter(|(_, (end, _))| *end < now);
        let missed: Vec<_> = missed
            .map(|(slot, (_, key))| (*slot, key.clone()))
            .collect();
        for (slot, key) in missed {
            let (_, place) = slot;
            self.due.remove(&slot);
            self.returners.remove(&place);
            if let Some(absent) = self.absent.get_mut(&key) {
                absent.standing = Standing::Stranger;
                self.strangers.insert(place, key);
            }
        }
    }

    /// Makes room first. It forgets the one that missed its appointment the longest ago; if there is none,
    /// the newest stranger, which may be this one.
    fn remember(&mut self, key: K, absent: Absent, now: Moment) {
        if self.absent.contains_key(&key) {
            // It asked twice at the same time; one entry is enough for both.
            return;
        }
        if self.absent.len() >= self.capacity {
            let missed = self.by_end.first_key_value();
            let missed = missed.filter(|((end, _), _)| *end < now);
            let newest = self.strangers.last_key_value();
            let newest = newest.filter(|(place, _)| match absent.standing {
                Standing::Stranger => **place > absent.place,
                Standing::Returner => true,
            });
            let goes = missed.map(|(_, key)| key.clone());
            let Some(goes) = goes.or_else(|| newest.map(|(_, key)| key.clone())) else {
                return;
            };
            self.forget(&goes);
        }
        let Absent {
            place, appointment, ..
        } = absent;
        self.by_end.insert((appointment.end(), place), key.clone());
        match absent.standing {
            Standing::Stranger => {
                self.strangers.insert(place, key.clone());
            }
            Standing::Returner => {
                self.returners.insert(place);
                let due = (appointment.start(), place);
                self.due.insert(due, (appointment.end(), key.clone()));
            }
        }
        self.absent.insert(key, absent);
    }

    fn forget(&mut self, key: &K) -> Option<Absent> {
        let absent = self.absent.remove(key)?;
        let Absent {
            place, appointment, ..
        } = absent;
        self.by_end.remove(&(appointment.end(), place));
        self.strangers.remove(&place);
        self.returners.remove(&place);
        self.due.remove(&(appointment.start(), place));
        Some(absent)
    }
}

/// Why a seeker waits no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It was given a slot.
    Served,
    /// It is told to come back.
    Refused(Appointment),
    /// No caller waits for its login any more.
    HungUp,
}

impl Place {
    /// When its holder asked for the first time.
    pub(crate) fn first(self) -> Moment {
        self.first
    }

    /// Behind all others.
    const LAST: Place = Place {
        first: Moment::MAX,
        ticket: u64::MAX,
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1_000)
    }

    /// To be back in the second `back`, for a slot that comes then.
    fn refused(back: u64) -> Leave {
        Leave::Refused(Appointment {
            from: at(back),
            at: at(back),
        })
    }

    /// A line that refused these at second 0, 1, …, all to be back at second 100.
    fn refused_all(line: &mut Line<u32>, keys: impl IntoIterator<Item = u32>) {
        for (second, key) in (0..).zip(keys) {
            let place = line.enter(key, at(second), at(second));
            line.leave(place, refused(100), at(second));
        }
    }

    #[test]
    fn the_seeker_that_asked_first_goes_first_even_if_it_comes_back_last() {
        let mut line = Line::new(10);
        refused_all(&mut line, [1, 2]);
        let third = line.enter(3, at(90), at(90));
        let second = line.enter(2, at(100), at(100));
        let first = line.enter(1, at(129), at(129));
        assert_eq!(line.turn(second, at(129)), Turn::Behind);
        for place in [first, second, third] {
            assert_eq!(line.turn(place, at(129)), Turn::Now);
            line.leave(place, Leave::Served, at(129));
        }
        assert_eq!((line.waiting(), line.remembered()), (0, 0));
    }

    #[test]
    fn only_who_came_back_when_told_counts_in_a_rank_and_has_one() {
        let mut line = Line::new(10);
        refused_all(&mut line, [1, 2, 3, 4]);
        let mut back = |key, second| {
            let place = line.enter(key, at(second), at(second));
            let rank = line.rank(place, at(second));
            line.leave(place, refused(second + 100), at(second));
            rank
        };
        // The third is too early, the fourth missed its time, the first was never back.
        assert_eq!(back(3, 99), 0);
        assert_eq!(back(2, 100), 0);
        assert_eq!(back(4, 131), 0);
        assert_eq!(back(3, 199), 1);
        // The second has missed its time.
        assert_eq!(back(4, 231), 1);
        // The third has, too.
        assert_eq!(back(4, 331), 0);
    }

    #[test]
    fn a_seeker_that_comes_too_early_keeps_its_place_and_may_stay() {
        let mut line = Line::new(10);
        refused_all(&mut line, [1, 2]);
        let second = line.enter(2, at(95), at(95));
        let first = line.enter(1, at(96), at(96));
        assert_eq!(line.turn(first, at(96)), Turn::Now);
        line.leave(first, refused(200), at(97));
        line.leave(second, refused(200), at(101));
        let (first, second) = (
            line.enter(1, at(200), at(200)),
            line.enter(2, at(200), at(200)),
        );
        assert!(first < second);
        assert_eq!(line.rank(second, at(200)), 1);
    }

    #[test]
    fn a_slot_is_kept_30_seconds_for_a_caller_that_came_before() {
        let mut line = Line::new(10);
        let early = line.enter(0, at(0), at(0));
        refused_all(&mut line, [1]);
        let place = line.enter(1, at(100), at(100));
        line.leave(place, refused(160), at(100));
        let made_up = line.enter(9, at(150), at(150));
        assert_eq!(line.turn(early, at(161)), Turn::Now);
        line.leave(early, Leave::Served, at(161));
        assert_eq!(line.turn(made_up, at(159)), Turn::Now);
        assert_eq!(line.ahead(made_up, at(159), 9), 0);
        assert_eq!(line.turn(made_up, at(161)), Turn::KeptUntil(at(190)));
        assert_eq!(line.ahead(made_up, at(161), 9), 1);
        assert_eq!(line.turn(made_up, at(191)), Turn::Now);
        // It has its place all the same.
        let late = line.enter(1, at(192), at(192));
        assert_eq!(line.turn(late, at(192)), Turn::Now);
        assert_eq!(line.turn(made_up, at(192)), Turn::Behind);
    }

    #[test]
    fn nothing_is_kept_for_who_hung_up_but_its_place() {
        let mut line = Line::new(10);
        refused_all(&mut line, [1]);
        let place = line.enter(1, at(100), at(100));
        line.leave(place, Leave::HungUp, at(101));
        let other = line.enter(2, at(102), at(102));
        assert_eq!(line.turn(other, at(102)), Turn::Now);
        let back = line.enter(1, at(103), at(103));
        assert_eq!(line.turn(other, at(103)), Turn::Behind);
        assert_eq!(line.leave(back, Leave::Served, at(103)), Some(other));
    }

    #[test]
    fn room_is_made_by_those_who_missed_their_time_then_by_the_newest() {
        let mut line = Line::new(3);
        refused_all(&mut line, [1, 2, 3]);
        let is_remembered = |line: &Line<u32>, keys: [u32; 3]| {
            line.remembered() == 3 && keys.iter().all(|key| line.absent.contains_key(key))
        };
        // Nobody missed anything: the newest is the one that would be remembered.
        let newest = line.enter(4, at(50), at(50));
        line.leave(newest, refused(100), at(50));
        assert!(is_remembered(&line, [1, 2, 3]));
        // The second comes back in time; what would have been its room is taken.
        let second = line.enter(2, at(100), at(100));
        let fifth = line.enter(5, at(100), at(100));
        line.leave(fifth, refused(200), at(100));
        line.leave(second, refused(200), at(101));
        assert!(is_remembered(&line, [1, 2, 3]));
        // The others have missed their time, the first by more.
        let sixth = line.enter(6, at(131), at(131));
        line.leave(sixth, refused(200), at(131));
        assert!(is_remembered(&line, [2, 3, 6]));
    }

    #[test]
    fn a_seeker_that_gave_its_slot_back_stands_where_it_stood() {
        let mut line = Line::new(10);
        let first = line.enter(1, at(0), at(0));
        let second = line.enter(2, at(5), at(5));
        line.leave(first, Leave::Served, at(10));
        let again = line.enter(1, first.first(), at(11));
        assert_eq!(line.turn(again, at(11)), Turn::Now);
        assert_eq!(line.turn(second, at(11)), Turn::Behind);
    }

    #[test]
    fn endless_made_up_users_take_no_more_room_and_push_out_nobody() {
        let mut line = Line::new(1_000);
        refused_all(&mut line, 0..10);
        for key in 0..10 {
            let place = line.enter(key, at(100), at(100));
            line.leave(place, refused(500), at(100));
        }
        for key in 10..50_000 {
            let now = at(100 + u64::from(key) / 200);
            let place = line.enter(key, now, now);
            line.leave(place, refused(100 + u64::from(key) / 200 + 60), now);
            assert!(line.remembered() <= 1_000);
        }
        for key in 0..10 {
            let place = line.enter(key, at(500), at(500));
            assert_eq!(line.rank(place, at(500)), key as usize);
            assert_eq!(line.turn(place, at(500)) == Turn::Now, key == 0);
        }
        let sizes = [
            line.by_end.len(),
            line.strangers.len() + line.returners.len(),
        ];
        assert!(sizes.iter().all(|size| *size <= 1_000), "{sizes:?}");
    }

    proptest! {
        /// Whatever users do: those who wait go in the order in which they asked first, unless a slot
        /// is kept; no more are remembered than there is room for; no user waits for a slot that is
        /// kept for longer than 30 s after the time that was told; all indices agree.
        #[test]
        fn the_order_and_the_bound_hold_whatever_users_do(
            steps in prop::collection::vec((0u32..12, 0u8..4, 0u64..40), 1..200),
        ) {
            let mut line = Line::new(4);
            let mut second = 0;
            let mut waiting: Vec<(Place, u32)> = Vec::new();
            for (key, what, passes) in steps {
                second += passes;
                let now = at(second);
                let found = waiting.iter().position(|(_, waits)| *waits == key);
                match (found, what) {
                    (None, _) => waiting.push((line.enter(key, now, now), key)),
                    (Some(found), 0) => {
                        let (place, _) = waiting.remove(found);
                        line.leave(place, refused(second + 20), now);
                    }
                    (Some(found), 1) => {
                        let (place, _) = waiting.remove(found);
                        line.leave(place, Leave::HungUp, now);
                    }
                    (Some(_), _) => {
                        let (place, _) = *waiting.iter().min().unwrap();
                        if line.turn(place, now) == Turn::Now {
                            waiting.retain(|(waits, _)| *waits != place);
                            line.leave(place, Leave::Served, now);
                        }
                    }
                }
                waiting.sort();
                for (index, (place, _)) in waiting.iter().enumerate() {
                    match line.turn(*place, now) {
                        Turn::Behind => prop_assert!(index > 0),
                        Turn::Now => prop_assert_eq!(index, 0),
                        Turn::KeptUntil(end) => {
                            prop_assert_eq!(index, 0);
                            prop_assert!(now <= end && end <= at(second + 20).plus(LATE));
                        }
                    }
                }
                prop_assert!(line.remembered() <= 4);
                prop_assert_eq!(line.waiting(), waiting.len());
                prop_assert_eq!(line.by_end.len(), line.absent.len());
                prop_assert_eq!(line.strangers.len() + line.returners.len(), line.absent.len());
                prop_assert_eq!(line.due.len(), line.returners.len());
                prop_assert!(line.waiting_returners.len() <= line.waiting());
            }
        }
    }
}

//! The arithmetic of the login budget: sliding windows, reserve, block and halving. Pure: an engine
//! loads a group's [`History`], asks it, and makes what changed durable.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Stamp;
use crate::store::{Class, LoginBudget, LoginWindow, LoginWindows, Slot, SlotId, WindowState};

/// What a store remembers of one group's logins. The default: none yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Slots, the oldest first; none older than the largest window at the last take.
    slots: Vec<Taken>,
    /// Those of the last day that are older, the oldest first: a window may grow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    past: Vec<Past>,
    /// No login at all while this lasts.
    blocked: Option<Span>,
    /// All windows are halved while this lasts.
    halved: Option<Span>,
}

/// A slot that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Taken {
    id: SlotId,
    /// When it counts from.
    at: Stamp,
}

/// Slots that are older than every window and were taken within [`COALESCED`]: few of these are a whole day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Past {
    /// When the newest of them counts from.
    at: Stamp,
    /// How many there are.
    slots: u32,
}

/// A window that grows counts the slots of this time.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Slots that were taken within this time leave a window that has grown together, with the newest of them.
const COALESCED: Duration = Duration::from_secs(300);

/// A time that began and ends by itself. As an age below a length it ends neither early nor late,
/// whatever the wall clock does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    from: Stamp,
    millis: u64,
}

impl Span {
    fn left(self, now: Stamp) -> Duration {
        Duration::from_millis(self.millis).saturating_sub(self.from.age(now))
    }
}

impl History {
    /// What an earlier format remembered by the wall clock alone. Of `blocked` and `halved`, which
    /// are what is left of both, none may be longer than such a time ever is.
    pub fn of_earlier(
        taken: impl IntoIterator<Item = (SlotId, Stamp)>,
        blocked: Duration,
        halved: Duration,
        now: Stamp,
    ) -> History {
        let slots = taken.into_iter().map(|(id, at)| Taken {
            id,
            at: at.seen_from(now),
        });
        let mut history = History {
            slots: slots.collect(),
            ..History::default()
        };
        history.block(blocked, Some(halved), now);
        history
    }

    /// Takes the slot `id` if every window has one for `class`; it is not taken twice. Changes the
    /// history even if it has none, so that it must be stored either way.
    pub fn take(&mut self, id: SlotId, class: Class, windows: &LoginWindows, now: Stamp) -> Slot {
        self.catch_up(windows, now);
        if self.slots.iter().any(|slot| slot.id == id) {
            return Slot::Taken;
        }
        let slot = self.slot(class, windows, now);
        if slot == Slot::Taken {
            self.slots.push(Taken { id, at: now });
        }
        slot
    }

    /// Counts the slot `id` from `now` on, when its login was answered.
    pub fn end(&mut self, id: SlotId, now: Stamp) {
        if let Some(found) = self.slots.iter().position(|slot| slot.id == id) {
            let mut slot = self.slots.remove(found);
            slot.at = now;
            self.slots.push(slot);
        }
    }

    /// Gives the slot `id` back, as if it had not been taken.
    pub fn give_back(&mut self, id: SlotId) {
        self.slots.retain(|slot| slot.id != id);
    }

    /// Blocks and halves. Neither is ever shortened.
    pub fn block(&mut self, blocked: Duration, halved: Option<Duration>, now: Stamp) {
        let longer = |span: &mut Option<Span>, lasts: Duration| {
            if lasts > left(*span, now) {
                let millis = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
                *span = Some(Span { from: now, millis });
            }
        };
        longer(&mut self.blocked, blocked);
        longer(&mut self.halved, halved.unwrap_or_default());
    }

    /// Ends the block; false if there is none.
    pub fn unblock(&mut self, now: Stamp) -> bool {
        let stood = !left(self.blocked.take(), now).is_zero();
        self.blocked = None;
        stood
    }

    /// The state at `now`.
    pub fn budget(&self, windows: &LoginWindows, now: Stamp) -> LoginBudget {
        let mut history = self.clone();
        history.catch_up(windows, now);
        let blocked = left(self.blocked, now);
        let halved = left(self.halved, now);
        let state = |window: &LoginWindow| {
            let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            WindowState {
                window: *window,
                limit: number(limit(window, !halved.is_zero())),
                used: number(history.inside(window, now).map(|(_, slots)| slots).sum()),
            }
        };
        let states: Vec<_> = windows.windows.iter().map(state).collect();
        let free = states
            .iter()
            .map(|state| state.limit.saturating_sub(state.used));
        let next = |class| match history.slot(class, windows, now) {
            Slot::Taken => Duration::ZERO,
            Slot::Wait { left, .. } => left,
        };
        LoginBudget {
            remaining: match blocked.is_zero() {
                true => free.min().unwrap_or(0),
                false => 0,
            },
            reserve: windows.reserve,
            next_known: next(Class::Known),
            next_new: next(Class::New),
            windows: states,
            blocked,
            halved,
        }
    }

    /// After another boot everything moves to this one's clock, as the wall clock says once: no
    /// later step of it counts. What it says lies later than now was before now all the same.
    fn catch_up(&mut self, windows: &LoginWindows, now: Stamp) {
        for slot in &mut self.slots {
            slot.at = slot.at.seen_from(now);
        }
        self.slots.sort_by_key(|slot| slot.at.since_boot);
        for past in &mut self.past {
            past.at = past.at.seen_from(now);
        }
        for span in self.blocked.iter_mut().chain(&mut self.halved) {
            span.from = span.from.seen_from(now);
        }
        for span in [&mut self.blocked, &mut self.halved] {
            if left(*span, now).is_zero() {
                *span = None;
            }
        }
        let largest = windows.windows.iter().map(|window| window.per).max();
        let largest = largest.unwrap_or(Duration::ZERO);
        for slot in self
            .slots
            .extract_if(.., |slot| slot.at.age(now) >= largest)
        {
            remember(&mut self.past, slot.at);
        }
        self.past.retain(|past| past.at.age(now) < REMEMBERED);
    }

    /// Whether there is a slot; the history must have caught up with `now`.
    fn slot(&self, class: Class, windows: &LoginWindows, now: Stamp) -> Slot {
        let blocked = left(self.blocked, now);
        if !blocked.is_zero() {
            return Slot::Wait {
                left: blocked,
                blocked: true,
            };
        }
        let halved = left(self.halved, now);
        let Some(mut until_free) = self.full_for(class, windows, !halved.is_zero(), now) else {
            return Slot::Taken;
        };
        if !halved.is_zero() {
            // The end of the halving may free a slot before a halved window does.
            let whole = self.full_for(class, windows, false, now);
            until_free = until_free.min(halved.max(whole.unwrap_or_default()));
        }
        Slot::Wait {
            left: until_free,
            blocked: false,
        }
    }

    /// How long it takes until every window has a slot for `class`; `None` if all have one now.
    fn full_for(
        &self,
        class: Class,
        windows: &LoginWindows,
        halved: bool,
        now: Stamp,
    ) -> Option<Duration> {
        let full_for = |window: &LoginWindow| {
            let limit = limit(window, halved);
            // One slot is always left to newcomers, who would otherwise wait for ever.
            let usable = match class {
                Class::Known => limit,
                Class::New => limit - (windows.reserve as usize).min(limit - 1),
            };
            let count: usize = self.inside(window, now).map(|(_, slots)| slots).sum();
            // There is room once so many of the oldest are outside, and one more.
            let mut excess = count.checked_sub(usable)?;
            let last = self.inside(window, now).find(|(_, slots)| {
                let leaves_room = *slots > excess;
                excess = excess.saturating_sub(*slots);
                leaves_room
            });
            let (at, _) = last.expect("a window without room has more slots than it may exceed by");
            Some(window.per.saturating_sub(at.age(now)))
        };
        windows.windows.iter().filter_map(full_for).max()
    }

    /// The slots taken within `window` before `now`, the oldest first: when some of them count from, and how
    /// many these are.
    fn inside(&self, window: &LoginWindow, now: Stamp) -> impl Iterator<Item = (Stamp, usize)> {
        let past = self.past.iter().map(|past| (past.at, past.slots as usize));
        let all = past.chain(self.slots.iter().map(|slot| (slot.at, 1)));
        let per = window.per;
        all.skip_while(move |(at, _)| at.age(now) >= per)
    }
}

/// Adds a slot that is older than every window.
fn remember(past: &mut Vec<Past>, at: Stamp) {
    let span = |at: Stamp| at.since_boot.div_euclid(COALESCED.as_millis() as i64);
    match past.last_mut() {
        Some(last) if span(last.at) == span(at) => {
            last.slots += 1;
            if last.at.since_boot < at.since_boot {
                last.at = at;
            }
        }
        Some(_) | None => past.push(Past { at, slots: 1 }),
    }
}

fn left(span: Option<Span>, now: Stamp) -> Duration {
    span.map_or(Duration::ZERO, |span| span.left(now))
}

/// How many logins `window` allows: at least 1.
fn limit(window: &LoginWindow, halved: bool) -> usize {
    let logins = if halved {
        window.logins / 2
    } else {
        window.logins
    };
    logins.max(1) as usize
}

#[cfg(test)]
mod tests;

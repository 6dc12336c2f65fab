//! The seekers of one class that wait for a login slot, each in its own task: the pure queue under a
//! lock, and a bell for each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::credentials::guards::line::Place;
use crate::credentials::guards::queue::{Look, Next, Patience, Queue, Refusal, Usable};
use crate::credentials::guards::seeker::{Seeker, Who};
use crate::credentials::settings::Current;
use crate::store::Class;

/// The seekers of one class that wait.
#[derive(Debug)]
pub(super) struct Waiters {
    /// Changed when a seeker enters, looks or leaves; never held while one waits.
    line: Mutex<WithBells>,
    class: Class,
    current: Current,
    clock: Clock,
}

#[derive(Debug)]
struct WithBells {
    queue: Queue<Who>,
    /// Rung when the one at a place has reason to look again.
    bells: BTreeMap<Place, Arc<Notify>>,
}

/// A place in the line. It is left when this is dropped.
pub(super) struct InLine<'a> {
    waiters: &'a Waiters,
    place: Place,
    bell: Arc<Notify>,
}

impl Waiters {
    /// Remembers up to `remembered` seekers that were refused.
    pub(super) fn new(class: Class, remembered: usize, current: Current, clock: Clock) -> Waiters {
        let line = WithBells {
            queue: Queue::new(remembered, clock.second()),
            bells: BTreeMap::new(),
        };
        Waiters {
            line: Mutex::new(line),
            class,
            current,
            clock,
        }
    }

    /// Takes a place for `seeker`: the one that it had, if it was refused before.
    pub(super) fn enter(&self, seeker: &impl Seeker) -> InLine<'_> {
        let mut line = self.lock();
        let now = self.clock.now();
        let asked = seeker.asked().unwrap_or(now);
        let (place, first) = line.queue.enter(seeker.who(), asked, now);
        seeker.note_asked(place.first());
        let bell = Arc::new(Notify::new());
        line.bells.insert(place, bell.clone());
        line.ring(first);
        InLine {
            waiters: self,
            place,
            bell,
        }
    }

    /// A slot was given back: the first that waits may have it.
    pub(super) fn slot_came_free(&self) {
        let mut line = self.lock();
        let first = line.queue.slot_came_free();
        line.ring(first);
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.lock().queue.waiting()
    }

    /// Calls `with` on the queue, with the windows that are in force and this class may use.
    fn with_windows<R>(&self, with: impl FnOnce(&mut WithBells, Usable<'_>) -> R) -> R {
        let current = self.current.now();
        let windows = &current.settings.budget;
        let reserve = match self.class {
            Class::Known => 0,
            Class::New => windows.reserve,
        };
        let usable = Usable {
            windows: &windows.windows,
            reserve,
        };
        with(&mut self.lock(), usable)
    }

    fn lock(&self) -> MutexGuard<'_, WithBells> {
        self.line.lock().expect("no code panics under this lock")
    }
}

impl WithBells {
    fn ring(&self, place: Option<Place>) {
        if let Some(bell) = place.and_then(|place| self.bells.get(&place)) {
            bell.notify_one();
        }
    }

    fn ring_all(&self) {
        self.bells.values().for_each(|bell| bell.notify_one());
    }
}

impl InLine<'_> {
    /// Returns when there is reason to look again.
    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }

    /// What to do next.
    pub(super) fn look(&self, patience: Patience) -> Look {
        let now = self.waiters.clock.now();
        self.waiters
            .with_windows(|line, usable| line.queue.look(self.place, patience, usable, now))
    }

    /// The store said when the next slot comes: those behind may learn that it is too late for them.
    pub(super) fn learn(&self, left: Duration, blocked: bool) {
        let learned = self.waiters.clock.now();
        let mut line = self.waiters.lock();
        line.queue.learn(Next {
            slot: learned.plus(left),
            blocked,
            learned,
        });
        // A block may end at any time; each asks for itself when it is the first.
        if !blocked {
            line.ring_all();
        }
    }

    /// It has a slot.
    pub(super) fn served(self) {
        let mut line = self.waiters.lock();
        let first = line.queue.served(self.place, self.waiters.clock.now());
        line.ring(first);
    }

    /// It is refused, after it was patient for `wait`.
    pub(super) fn refused(self, wait: Duration) -> Refusal {
        let now = self.waiters.clock.now();
        self.waiters.with_windows(|line, usable| {
            let (refusal, first) = line.queue.refuse(self.place, wait, usable, now);
            line.ring(first);
            refusal
        })
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut line = self.waiters.lock();
        line.bells.remove(&self.place);
        let first = line.queue.hung_up(self.place, self.waiters.clock.now());
        line.ring(first);
    }
}

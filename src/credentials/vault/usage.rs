//! Whether requests use a token, and when its principal was last named. A look-up reads one byte, and seldom
//! writes it; what lies in there is taken away in the background.

use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};

use crate::store::Day;

/// Of one token; what is about its principal [follows](Usage::follow) to the next one.
#[derive(Debug)]
pub(in crate::credentials) struct Usage {
    /// [`USED`], [`NAMED`], or both.
    marks: AtomicU8,
    /// The last day that was [taken](Usage::take_named).
    day: AtomicI32,
}

/// A request used it: the keeper renews it ahead of time. Never cleared; the next token starts unused.
const USED: u8 = 1;
/// A caller named its principal since this was last taken.
const NAMED: u8 = 2;

impl Default for Usage {
    fn default() -> Usage {
        Usage {
            marks: AtomicU8::new(0),
            day: AtomicI32::new(i32::MIN),
        }
    }
}

impl Clone for Usage {
    fn clone(&self) -> Usage {
        Usage {
            marks: AtomicU8::new(self.marks.load(Ordering::Relaxed)),
            day: AtomicI32::new(self.day.load(Ordering::Relaxed)),
        }
    }
}

impl Usage {
    /// A request uses it.
    pub(in crate::credentials) fn note_used(&self) {
        if self.marks.load(Ordering::Relaxed) != USED | NAMED {
            self.marks.store(USED | NAMED, Ordering::Relaxed);
        }
    }

    /// A caller names its principal, and had to wait for it.
    pub(in crate::credentials) fn note_named(&self) {
        self.marks.fetch_or(NAMED, Ordering::Relaxed);
    }

    /// Whether a request used it.
    pub(in crate::credentials) fn is_used(&self) -> bool {
        self.marks.load(Ordering::Relaxed) & USED != 0
    }

    /// Whether its principal was named since this was asked last, and `day` was not yet taken.
    pub(in crate::credentials) fn take_named(&self, Day(day): Day) -> bool {
        let marks = self.marks.fetch_and(!NAMED, Ordering::Relaxed);
        marks & NAMED != 0 && self.day.swap(day, Ordering::Relaxed) != day
    }

    /// This is the next token of the principal that `before` is about.
    pub(in crate::credentials) fn follow(&self, before: &Usage) {
        let named = before.marks.load(Ordering::Relaxed) & NAMED;
        self.marks.fetch_or(named, Ordering::Relaxed);
        let day = before.day.load(Ordering::Relaxed);
        self.day.store(day, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_taken_once_and_follows_to_the_next_token() {
        let first = Usage::default();
        assert!(!first.is_used() && !first.take_named(Day(7)));
        first.note_used();
        assert!(first.is_used() && first.take_named(Day(7)));
        first.note_used();
        assert!(!first.take_named(Day(7)), "it is known");
        first.note_named();
        let next = Usage::default();
        next.follow(&first);
        assert!(!next.is_used());
        assert!(next.take_named(Day(8)) && !next.take_named(Day(8)));
    }
}

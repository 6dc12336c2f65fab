//! Events that happen often and have neither a beginning nor an end: a line now and then says how
//! often.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// A line follows the one before it after this, at the earliest.
const PAUSE: Duration = Duration::from_secs(10);

/// One kind of event. Its owner writes the lines: this type only says when.
#[derive(Debug)]
pub struct Seldom(Mutex<State>);

#[derive(Debug)]
struct State {
    last_told: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// It has not happened yet.
    pub const fn new() -> Seldom {
        Seldom(Mutex::new(State {
            last_told: None,
            untold: 0,
        }))
    }

    /// It happened. Returns how often since it was last logged, if it is to be logged now.
    #[must_use = "it is told"]
    pub fn happened(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.0.lock().expect("no code panics under this lock");
        state.untold += 1;
        if state.last_told.is_some_and(|last| now - last < PAUSE) {
            return None;
        }
        state.last_told = Some(now);
        Some(std::mem::take(&mut state.untold))
    }
}

impl Default for Seldom {
    fn default() -> Seldom {
        Seldom::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_told_at_once_and_the_others_are_counted() {
        let seldom = Seldom::new();
        assert_eq!(seldom.happened(), Some(1));
        for _ in 0..99 {
            assert_eq!(seldom.happened(), None);
        }
        tokio::time::advance(PAUSE).await;
        assert_eq!(seldom.happened(), Some(100));
        assert_eq!(seldom.happened(), None);
    }
}

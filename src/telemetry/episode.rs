//! A failure that lasts is logged twice: when it begins, and when it is over. The requests that it
//! affects in between, perhaps thousands, are counted and not logged.

use std::error::Error;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// A failure that begins again sooner than this is not logged again, because it flaps.
const PAUSE: Duration = Duration::from_secs(10);

/// One thing that may fail, work again, and fail again. Its owner writes the lines: this type only
/// says when.
#[derive(Debug)]
pub struct Episode {
    /// Kept beside the rest, so that a success costs one atomic read.
    failing: AtomicBool,
    /// A success ends the episode only this long after the last failure.
    quiet: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When it began, and when it was last seen.
    seen: Option<(Instant, Instant)>,
    since: Option<SystemTime>,
    hurt: u64,
    told: bool,
    /// When a beginning was last logged.
    last_told: Option<Instant>,
}

/// An episode that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// From its first failure to its end.
    pub lasted: Duration,
    /// How many requests, renewals or calls failed meanwhile.
    pub hurt: u64,
}

impl Over {
    /// How long it lasted, for a line.
    pub fn seconds(&self) -> f64 {
        // A tenth is enough for people.
        (self.lasted.as_secs_f64() * 10.0).round() / 10.0
    }
}

impl Episode {
    /// For what either works or does not: its first success is its end.
    pub const fn new() -> Episode {
        Episode::ending_after(Duration::ZERO)
    }

    /// For what fails here and there: it is over with the first success that comes at least `quiet`
    /// after the last failure.
    pub const fn ending_after(quiet: Duration) -> Episode {
        Episode {
            failing: AtomicBool::new(false),
            quiet,
            state: Mutex::new(State {
                seen: None,
                since: None,
                hurt: 0,
                told: false,
                last_told: None,
            }),
        }
    }

    /// It failed, and a request, renewal or call failed with it. Returns whether that is to be logged:
    /// the episode begins.
    #[must_use = "a beginning is told"]
    pub fn failed(&self) -> bool {
        self.note(1)
    }

    /// It was found failing, but nothing else failed with it. Returns whether that is to be logged.
    #[must_use = "a beginning is told"]
    pub fn found_failing(&self) -> bool {
        self.note(0)
    }

    fn note(&self, hurt: u64) -> bool {
        let now = Instant::now();
        let mut state = self.state.lock().expect("no code panics under this lock");
        self.failing.store(true, Ordering::Release);
        let began = state.seen.map_or(now, |(began, _)| began);
        state.seen = Some((began, now));
        state.since.get_or_insert_with(SystemTime::now);
        state.hurt += hurt;
        let is_due = !state.told && state.last_told.is_none_or(|last| now - last >= PAUSE);
        if is_due {
            state.told = true;
            state.last_told = Some(now);
        }
        is_due
    }

    /// Whether it fails, as far as is known.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Since when it fails; `None` if it does not, as far as is known.
    pub fn since(&self) -> Option<SystemTime> {
        let state = self.state.lock().expect("no code panics under this lock");
        state.since
    }

    /// It worked. Returns the episode that ends with that, if its end is to be logged.
    #[must_use = "an end is told"]
    pub fn worked(&self) -> Option<Over> {
        if !self.is_failing() {
            return None;
        }
        self.end()
    }

    #[cold]
    fn end(&self) -> Option<Over> {
        let mut state = self.state.lock().expect("no code panics under this lock");
        let (began, last) = state.seen?;
        if last.elapsed() < self.quiet {
            return None;
        }
        let over = Over {
            lasted: began.elapsed(),
            hurt: state.hurt,
        };
        let told = state.told;
        *state = State {
            last_told: state.last_told,
            ..State::default()
        };
        self.failing.store(false, Ordering::Release);
        told.then_some(over)
    }
}

impl Default for Episode {
    fn default() -> Episode {
        Episode::new()
    }
}

/// An error with all its causes, in one line.
pub struct Chain<'e>(pub &'e (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut error = self.0;
        while let Some(cause) = error.source() {
            let says = cause.to_string();
            // Some errors say what their cause says.
            if !said.ends_with(&says) {
                write!(f, ": {says}")?;
            }
            (said, error) = (says, cause);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_beginning_and_one_end_however_many_are_hurt() {
        let episode = Episode::new();
        assert_eq!(episode.worked(), None);
        assert!(episode.failed());
        for _ in 0..99 {
            tokio::time::advance(Duration::from_millis(10)).await;
            assert!(!episode.failed());
        }
        assert!(!episode.found_failing());
        let over = episode.worked().unwrap();
        assert_eq!((over.hurt, over.seconds()), (100, 1.0));
        assert_eq!(episode.worked(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_flaps_is_not_told_each_time_and_what_stays_is() {
        let episode = Episode::new();
        let mut told = 0;
        for _ in 0..100 {
            told += usize::from(episode.failed());
            tokio::time::advance(Duration::from_millis(100)).await;
            told += usize::from(episode.worked().is_some());
        }
        assert_eq!(told, 2);
        assert!(episode.failed(), "10 s later it is told again");
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_here_and_there_is_over_once_it_is_quiet() {
        let episode = Episode::ending_after(Duration::from_secs(5));
        assert!(episode.failed());
        for _ in 0..10 {
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(episode.worked(), None);
            assert!(!episode.failed());
        }
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(episode.worked().unwrap().hurt, 11);
    }

    #[test]
    fn a_chain_says_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("it failed")]
        struct Outer(#[source] std::io::Error);
        let inner = std::io::Error::other("no route");
        assert_eq!(Chain(&Outer(inner)).to_string(), "it failed: no route");
        let alone = std::io::Error::other(std::fmt::Error);
        assert_eq!(Chain(&alone).to_string(), std::fmt::Error.to_string());
    }
}

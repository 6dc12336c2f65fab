//! How many credentials in memory are fresh, stale, and neither, for whoever looks.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// The pause after a count, in times that it took: a large cache is walked over seldom.
const PAUSE: u32 = 2_000;

/// The credentials in memory by their freshness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Used as they are.
    pub fresh: usize,
    /// Used, and renewed in the background.
    pub stale: usize,
    /// Neither: expired or rejected.
    pub expired: usize,
}

/// Counts them. However often it is asked, that takes at most a two-thousandth of a core.
#[derive(Debug, Default)]
pub(crate) struct Counting(Mutex<Option<Counted>>);

#[derive(Clone, Copy, Debug)]
struct Counted {
    census: Census,
    /// When they may be counted again.
    again: Instant,
}

impl Counting {
    /// How many there are now, as `count` finds, or were when they were last counted.
    pub(crate) fn look(&self, count: impl FnOnce() -> Census) -> Census {
        let mut counted = self.0.lock().expect("no code panics under this lock");
        let began = Instant::now();
        match *counted {
            Some(counted) if began < counted.again => counted.census,
            _ => {
                let census = count();
                let took = began.elapsed();
                let again =
                    Instant::now() + took.saturating_mul(PAUSE).max(Duration::from_millis(500));
                *counted = Some(Counted { census, again });
                census
            }
        }
    }
}

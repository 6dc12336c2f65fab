//! How a store is, as its engine saw it last: what readiness, metrics and operators ask without waiting
//! for the medium.

use std::time::{Duration, SystemTime};

/// How a store is. The default: well, and this process's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// Since when the store is not reached, and why; `None` while it is. Meanwhile no refresh and no
    /// login is started.
    pub away: Option<Away>,
    /// After the store came back other processes may yet restore what it lost: for this long, in real time,
    /// no rejection of a RefreshToken is believed.
    pub doubted_for: Option<Duration>,
    /// How many living processes share the store, this one included: at least 1.
    pub processes: u32,
    /// Whether processes on other machines may share it.
    pub shared: bool,
    /// Pairs that wait on this machine's disk until the store has them.
    pub outbox: u64,
    /// Entries that the store had lost, as after a fail-over to a standby that lagged behind, and that this
    /// process has restored.
    pub reasserted: u64,
    /// Seconds by which the store's clock is ahead of this machine's.
    pub clock_offset: f64,
    /// Whether a synchronous standby stands behind the store, so that a fail-over loses nothing; `None` if
    /// that cannot be told, or means nothing.
    pub standby: Option<bool>,
}

impl Default for Condition {
    fn default() -> Condition {
        Condition {
            away: None,
            doubted_for: None,
            processes: 1,
            shared: false,
            outbox: 0,
            reasserted: 0,
            clock_offset: 0.0,
            standby: None,
        }
    }
}

/// A store that is not reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Away {
    /// When it was first not reached.
    pub since: SystemTime,
    /// Why, as the last try says.
    pub why: String,
}

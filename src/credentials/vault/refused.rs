//! Tokens that callers showed and that name nobody, or nobody any more: for a second they are not looked
//! up again, so that a caller that shows one all the time does not read the store each time.

use std::time::Duration;

use moka::sync::Cache;

use super::pair::JwtHash;
use crate::principal::Principal;

/// How long a token is not looked up again, in real time.
const FOR: Duration = Duration::from_secs(1);
/// Tokens remembered at most; beyond it some are looked up again.
const MOST: u64 = 10_000;

/// Remembers them.
#[derive(Debug)]
pub(crate) struct Refused(Cache<Shown, ()>);

/// A token that a caller showed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Shown {
    /// One of the proxy's own, of this principal's epoch, which is over: it does not come again.
    Ours(Principal, u64),
    /// A JWT that is neither this principal's nor was.
    Real(Principal, JwtHash),
}

impl Refused {
    pub(crate) fn new() -> Refused {
        Refused(
            Cache::builder()
                .max_capacity(MOST)
                .time_to_live(FOR)
                .build(),
        )
    }

    /// It was looked up and found to name nobody.
    pub(crate) fn note(&self, shown: Shown) {
        self.0.insert(shown, ());
    }

    /// Whether it was a moment ago.
    pub(crate) fn holds(&self, shown: &Shown) -> bool {
        self.0.contains_key(shown)
    }
}

//! Judges a whole history: the journal of the simulated Damoov, what callers were answered, and what the
//! test did to the sidecars and to their store. Pure: knows no process, no socket, no time but the
//! journal's.
//!
//! What each rule demands stands at [`Rule`]. A history that breaks one only because of what the test did
//! needs an [`Excuse`], which says how far that goes.

// What a user's history is made of, and which excuses reach how far.
mod history;
// One refresh at a time; each pair is redeemed once; nothing goes back.
mod refreshes;
// The budget; nobody known logs in.
mod logins;
// Nobody else's token; who holds a good one is served.
mod answers;

// Forged journals.
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use damoov_proxy::principal::Principal;
use damoov_proxy::simulator::{Journal, Tick};

use history::History;

/// What a history must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Among all sidecars one refresh of a user is under way at a time. A caller that gave its call up is
    /// no longer at it, even if Damoov has not noticed yet.
    OneRefreshAtATime,
    /// A RefreshToken is redeemed once. It is presented again only if the answer before was lost, or was
    /// no answer to the question (a fault's): not after a new pair arrived, nor after a rejection.
    RedeemedOnce,
    /// A refresh presents no pair that is older than one that any sidecar presented or received before.
    OnlyForward,
    /// In no span of the API's clock are there more calls of Login than the budget allows, whatever came
    /// of them, and none is answered 429.
    LoginsWithinTheBudget,
    /// A user whose pair arrived is logged in again only after a refresh was refused. Once everything has
    /// healed, not at all.
    NothingAcknowledgedIsLost,
    /// A user's token goes out for that user alone, and what a refresh presents are both tokens of one
    /// user.
    NobodyElsesToken,
    /// A sidecar that holds a JWT that Damoov accepts serves that user.
    WhoHoldsAGoodTokenIsServed,
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    /// By what, in a sentence.
    pub by: String,
}

/// What a test did, and what it asks of the history. The default excuses nothing.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// The most logins in any span of this length; `None`: logins are not counted.
    pub budget: Vec<(usize, Duration)>,
    /// What the test did.
    pub excuses: Vec<Excuse>,
    /// What callers were answered.
    pub heard: Vec<Heard>,
    /// From here on nothing is wrong any more.
    pub healed: Option<Tick>,
}

/// What a test did to a sidecar or to the store.
#[derive(Clone, Debug)]
pub enum Excuse {
    /// The sidecar at this door was killed, or lost its machine. It loses its memory, and the pairs that
    /// arrived less than [`DURABLE_WITHIN`] before.
    Killed { door: &'static str, at: Tick },
    /// The sidecar at this door stood still. It may find its lease taken, and pairs that arrived
    /// meanwhile or just before may come too late.
    Stopped {
        door: &'static str,
        from: Tick,
        to: Tick,
    },
    /// The store had lost commits, or was about to be told of some: a refresh may present an older pair.
    /// Its rejection is not believed.
    Doubted { from: Tick, to: Tick },
    /// The store was set back to what it was long before. A refresh may present an older pair, and its
    /// rejection is true.
    SetBack { from: Tick, to: Tick },
    /// RefreshTokens that worked were refused on a large scale: refused ones are tried again.
    Suspended { from: Tick, to: Tick },
    /// An operator ended a user's credentials.
    Forgotten { principal: Principal, at: Tick },
}

/// How long after its arrival a pair may still be lost with its sidecar: 250 ms are promised, and a busy
/// machine takes as long again between the API's socket and the disk.
pub const DURABLE_WITHIN: Duration = Duration::from_millis(500);

/// What a caller was answered.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The door of the sidecar that was asked.
    pub door: &'static str,
    pub principal: Principal,
    pub asked: Tick,
    pub answered: Tick,
    pub answer: Served,
}

/// How an answer looks to a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// With the token of this principal.
    As(Principal),
    /// The status, and the proxy's code word.
    Refused(u16, String),
    /// The connection failed.
    Nothing,
}

/// All that is wrong with a history.
pub fn violations(journal: &Journal, trial: &Trial) -> Vec<Violation> {
    assert_eq!(journal.forgotten, 0, "the beginning of the history is lost");
    let history = History::new(journal, trial);
    let mut found = Vec::new();
    refreshes::judge(&history, &mut found);
    logins::judge(&history, &mut found);
    answers::judge(&history, &mut found);
    found
}

/// Asserts that nothing is wrong with a history.
#[track_caller]
pub fn assert_clean(journal: &Journal, trial: &Trial) {
    let found = violations(journal, trial);
    let first: Vec<_> = found.iter().take(10).map(Violation::to_string).collect();
    assert!(
        found.is_empty(),
        "{} rules broken, first:\n{}",
        found.len(),
        first.join("\n")
    );
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.by)
    }
}

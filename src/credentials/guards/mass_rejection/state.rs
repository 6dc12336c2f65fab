//! What all processes on one store agree on about a mass rejection, and how it changes: pure, so that
//! every order of events can be tested. It is kept as JSON in one row of the store; it names principals
//! and times, never a token, and its size is bounded.
//!
//! ```text
//!                    5 principals in a row are rejected
//!   counting ──────────────────────────────────────────────▶ suspended: logins wait, probes are made
//!     ▲    ▲                                                    │      │
//!     │    └─────────── a pair refreshes: the API works ────────┘      │ a pair that is newer than all
//!     │                                                                ▼ rejected ones refreshes
//!     └── no confirmation comes, or a new pair is rejected ─────── proven: the others are too old
//! ```
//!
//! - *Suspended*: logins of principals that hold a pair wait, since the API is at fault.
//! - A *witness* is a principal that was given a new pair since the rejections began. If its refresh is
//!   rejected as well, the age of the pairs is not the cause.
//! - *Proven*: pairs at least as new as the *proof* refresh although older ones are rejected. A rejection of
//!   an older pair is then *unsure*: it waits until a newer pair is seen to refresh once more, which is a
//!   *confirmation*, and is asked again; if it is rejected again, the pair is dead.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::credentials::guards::shared::SharedMoment;
use crate::principal::Principal;

/// Rejections of this many distinct principals in a row make a mass rejection.
pub(super) const MANY: usize = 5;
/// While logins are suspended, or a rejection waits to be confirmed, one refresh is tried in this time.
pub(crate) const REFRESH_EVERY: Duration = Duration::from_secs(5);
/// While logins are suspended and there is no witness, one principal is logged in in this time.
pub(crate) const LOGIN_EVERY: Duration = Duration::from_secs(60);
/// The first of those logins comes this long after the suspension.
const FIRST_LOGIN: Duration = Duration::from_secs(15);
/// If there are witnesses, one principal is still logged in in this time: another program may have
/// logged the witnesses in since.
const DOUBT: Duration = Duration::from_secs(3600);
/// A proof that was not confirmed for this long is dropped.
const PROOF_LASTS: Duration = Duration::from_secs(3600);
/// Witnesses remembered; beyond it the oldest is forgotten.
const MOST_WITNESSES: usize = 8;

/// Counts rejections and remembers what they mean. The default: nothing is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    phase: Phase,
    /// The distinct principals whose refresh was rejected since one last succeeded: fewer than
    /// [`MANY`] while counting, exactly those that made the suspension while suspended.
    rejected: Vec<Rejection>,
    /// Pairs that were received at this moment or later refresh although many older ones were rejected,
    /// in milliseconds of the wall clock. `None`: nothing is proven.
    proof: Option<i64>,
    /// When such a pair was last seen to refresh.
    proved: SharedMoment,
    /// How often such a pair has refreshed; rejections that are unsure wait until it grows.
    confirmed: u64,
    /// The witnesses, in the order in which they are probed.
    witnesses: VecDeque<Who>,
    /// When the next refresh may be tried.
    next_refresh: Timer,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// Logins are allowed.
    #[default]
    Counting,
    /// Logins of principals that hold a pair wait.
    Suspended {
        since: SharedMoment,
        /// Whether the notes that the rejected pairs are dead are withdrawn. Kept here, so that another
        /// process withdraws them if this one crashes.
        withdrawn: bool,
        /// When the next principal may be logged in as a probe.
        next_login: Timer,
        /// Refreshes tried so far.
        probes: u32,
        /// The newest witness is yet to be probed: it knows best.
        #[serde(default)]
        untried: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Rejection {
    who: Who,
    /// When the pair was received, in milliseconds of the wall clock.
    received: i64,
}

/// A principal, as it displays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Who(Principal);

impl TryFrom<String> for Who {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Who, &'static str> {
        Principal::parse(&text).map(Who).ok_or("no principal")
    }
}

impl From<Who> for String {
    fn from(who: Who) -> String {
        who.0.to_string()
    }
}

/// Runs out some time after a moment; the default has run out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Timer {
    from: SharedMoment,
    millis: u64,
}

impl Timer {
    fn new(from: &SharedMoment, lasts: Duration) -> Timer {
        Timer {
            from: *from,
            millis: lasts.as_millis().try_into().unwrap_or(u64::MAX),
        }
    }

    fn is_over(&self, now: &SharedMoment) -> bool {
        now.since(&self.from) >= Duration::from_millis(self.millis)
    }
}

/// How a refresh was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// After a lost answer or a crash, which may have rotated the pair: says nothing about the API.
    Explained,
    /// Definitely.
    Plainly,
    /// Definitely, and a second time after a newer pair was seen to refresh.
    Again,
    /// Definitely, as the probe of a witness.
    AsWitness,
}

/// What a rejection means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This RefreshToken is dead.
    Dead,
    /// It is dead because it is older than others that refresh: as after a backup was restored.
    Outlived,
    /// Newer pairs were seen to refresh, this many times: wait for the next time, and ask again.
    Unsure(u64),
    /// The API is broken, as of now. The notes on these principals are to be withdrawn.
    Broken(Vec<Principal>),
    /// The API was broken already.
    StillBroken,
}

/// What to try next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// Refresh the pair of this principal, which is new; do not log it in.
    Witness(Principal),
    /// Refresh the pair of a principal that waits, this one if none is known to; do not log it in.
    Waiting(Principal),
    /// The same, and log it in if that is rejected.
    LogIn(Principal),
}

impl State {
    /// Whether logins of principals that hold a pair are suspended.
    pub(super) fn is_suspended(&self) -> bool {
        matches!(self.phase, Phase::Suspended { .. })
    }

    /// Whether a success would change anything.
    pub(super) fn is_calm(&self) -> bool {
        self.rejected.is_empty() && !self.is_suspended()
    }

    /// How often pairs as new as the proof were seen to refresh; `None` if nothing is proven.
    pub(super) fn confirmed(&self) -> Option<u64> {
        self.proof.filter(|_| !self.is_suspended())?;
        Some(self.confirmed)
    }

    /// Whether it is proven that pairs as old as one received at `received` are rejected for their age.
    pub(super) fn outlives(&self, received: Timestamp) -> bool {
        self.proof.is_some_and(|proof| received.as_millis() < proof)
    }

    /// How many distinct principals were rejected since a refresh last succeeded.
    pub(super) fn count(&self) -> usize {
        self.rejected.len()
    }

    /// A refresh was rejected of a pair that `who` received at `received`.
    pub(super) fn rejected(
        &mut self,
        who: &Principal,
        received: Timestamp,
        how: How,
        now: &SharedMoment,
    ) -> Verdict {
        if self.is_suspended() {
            return Verdict::StillBroken;
        }
        if how == How::AsWitness && self.is_witness(who) {
            // Its pair is new, so that nothing is proved any more.
            self.proof = None;
            self.forgotten(who);
        }
        if how == How::Explained {
            return Verdict::Dead;
        }
        if now.since(&self.proved) >= PROOF_LASTS {
            self.proof = None;
        }
        if self.outlives(received) {
            return match how {
                How::Again => Verdict::Outlived,
                _ => Verdict::Unsure(self.confirmed),
            };
        }
        self.count_in(who, received);
        if self.rejected.len() < MANY {
            return Verdict::Dead;
        }
        self.suspend(now);
        let all = self
            .rejected
            .iter()
            .map(|rejection| rejection.who.0.clone());
        Verdict::Broken(all.collect())
    }

    fn count_in(&mut self, who: &Principal, received: Timestamp) {
        let received = received.as_millis();
        match self.rejected.iter_mut().find(|known| known.who.0 == *who) {
            Some(known) => known.received = known.received.max(received),
            None => self.rejected.push(Rejection {
                who: Who(who.clone()),
                received,
            }),
        }
    }

    fn suspend(&mut self, now: &SharedMoment) {
        self.proof = None;
        self.next_refresh = Timer::new(now, REFRESH_EVERY);
        let first = match self.witnesses.is_empty() {
            true => FIRST_LOGIN,
            false => DOUBT,
        };
        self.phase = Phase::Suspended {
            since: *now,
            withdrawn: false,
            next_login: Timer::new(now, first),
            probes: 0,
            untried: false,
        };
    }

    /// A refresh succeeded of a pair that `who` had received at `received`.
    pub(super) fn refreshed(&mut self, who: &Principal, received: Timestamp, now: &SharedMoment) {
        let received = received.as_millis();
        let newest = self.rejected.iter().map(|r| r.received).max();
        if self.is_suspended() && newest.is_some_and(|newest| received > newest) {
            self.proof = Some(received);
            self.bear_witness(who);
        }
        if let Some(proof) = self.proof
            && (received >= proof || self.is_witness(who))
        {
            // A witness may hold a pair that is older than the proof: then that one is the proof.
            self.proof = Some(proof.min(received));
            self.proved = *now;
            self.confirmed += 1;
        }
        self.rejected.clear();
        self.phase = Phase::Counting;
    }

    /// `who` was given a new pair, not by a refresh.
    pub(super) fn logged_in(&mut self, who: &Principal, now: &SharedMoment) {
        if self.is_calm() {
            return;
        }
        self.bear_witness(who);
        if let Phase::Suspended {
            next_login,
            untried,
            ..
        } = &mut self.phase
        {
            *next_login = Timer::new(now, DOUBT);
            *untried = true;
        }
    }

    fn is_witness(&self, who: &Principal) -> bool {
        self.witnesses.iter().any(|witness| witness.0 == *who)
    }

    fn bear_witness(&mut self, who: &Principal) {
        self.forgotten(who);
        if self.witnesses.len() >= MOST_WITNESSES {
            self.witnesses.pop_front();
        }
        self.witnesses.push_back(Who(who.clone()));
    }

    /// No confirmation came, or none can come: nothing is proven any more.
    pub(super) fn unproven(&mut self) {
        self.proof = None;
    }

    /// `who` was forgotten: it is no witness any more.
    pub(super) fn forgotten(&mut self, who: &Principal) {
        self.witnesses.retain(|witness| witness.0 != *who);
    }

    /// Takes the next probe, if one is due. `wanted`: a rejection waits to be confirmed.
    pub(super) fn claim_probe(&mut self, wanted: bool, now: &SharedMoment) -> Option<Probe> {
        let Phase::Suspended {
            next_login,
            probes,
            untried,
            ..
        } = &mut self.phase
        else {
            if !wanted || self.proof.is_none() || !self.next_refresh.is_over(now) {
                return None;
            }
            self.next_refresh = Timer::new(now, REFRESH_EVERY);
            let witness = self.next_witness();
            if witness.is_none() {
                self.proof = None;
            }
            return witness.map(Probe::Witness);
        };
        let turn = usize::try_from(*probes).unwrap_or_default();
        let somebody = self.rejected.get(turn % self.rejected.len().max(1));
        let somebody = somebody.map(|rejection| rejection.who.0.clone());
        if next_login.is_over(now) {
            *next_login = Timer::new(now, LOGIN_EVERY);
            *probes = probes.wrapping_add(1);
            self.next_refresh = Timer::new(now, REFRESH_EVERY);
            return somebody.map(Probe::LogIn);
        }
        if !self.next_refresh.is_over(now) {
            return None;
        }
        self.next_refresh = Timer::new(now, REFRESH_EVERY);
        *probes = probes.wrapping_add(1);
        if std::mem::take(untried)
            && let Some(newest) = self.witnesses.back()
        {
            return Some(Probe::Witness(newest.0.clone()));
        }
        if turn % 2 == 1 {
            return somebody.map(Probe::Waiting);
        }
        let witness = self.next_witness().map(Probe::Witness);
        witness.or(somebody.map(Probe::Waiting))
    }

    fn next_witness(&mut self) -> Option<Principal> {
        let witness = self.witnesses.pop_front()?;
        self.witnesses.push_back(witness.clone());
        Some(witness.0)
    }

    /// The principals whose notes are still to be withdrawn `patience` after the suspension began.
    pub(super) fn to_withdraw(&self, patience: Duration, now: &SharedMoment) -> Vec<Principal> {
        match &self.phase {
            Phase::Suspended {
                since,
                withdrawn: false,
                ..
            } if now.since(since) >= patience => {
                let all = self.rejected.iter();
                all.map(|rejection| rejection.who.0.clone()).collect()
            }
            Phase::Suspended { .. } | Phase::Counting => Vec::new(),
        }
    }

    /// The notes on the rejected principals are withdrawn.
    pub(super) fn withdrew(&mut self) {
        if let Phase::Suspended { withdrawn, .. } = &mut self.phase {
            *withdrawn = true;
        }
    }
}

#[cfg(test)]
mod tests;

//! What was asked and how it was answered, in total and by principal, for tests to assert on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use serde::{Serialize, Serializer};

use crate::clock::Timestamp;
use crate::principal::Principal;

/// All counts since the start or the last reset.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counts {
    /// Over all calls, those without a principal too.
    pub total: Count,
    /// By `user:<DeviceToken>` or `account:<email>`.
    pub principals: BTreeMap<String, Count>,
    /// Every Login call, in order of arrival, whatever came of it.
    pub login_calls: Vec<LoginCall>,
    /// How often the login limit started a block.
    pub blocks_tripped: u64,
}

/// The counts of one principal, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Login calls.
    pub logins: Grants,
    /// RefreshToken calls.
    pub refreshes: Grants,
    /// Registrations.
    pub registrations: Grants,
    /// The most RefreshToken calls that were ever under way at once.
    pub refreshes_at_once: u64,
    /// Calls of other endpoints, however answered.
    pub data_calls: u64,
    /// Of them, those answered 401, in-band ones too.
    pub unauthorized: u64,
    /// Of them, those whose `DeviceToken` header named another user than the token's.
    pub wrong_tokens: u64,
    /// `authenticate` messages over WebSocket that were answered `authenticated`.
    pub authenticated: u64,
    /// And those that were answered `error`.
    pub not_authenticated: u64,
}

/// Calls of one Auth endpoint, by [`Outcome`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each field is the outcome of its name")]
pub struct Grants {
    pub ok: u64,
    pub rejected: u64,
    pub limited: u64,
    pub lost: u64,
    pub failed: u64,
}

impl Grants {
    /// Calls that issued tokens, whether or not the answer arrived.
    pub fn issued(&self) -> u64 {
        self.ok + self.lost
    }

    /// All calls.
    pub fn all(&self) -> u64 {
        self.ok + self.rejected + self.limited + self.lost + self.failed
    }

    fn add(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Ok => &mut self.ok,
            Outcome::Rejected => &mut self.rejected,
            Outcome::Limited => &mut self.limited,
            Outcome::Lost => &mut self.lost,
            Outcome::Failed => &mut self.failed,
        } += 1;
    }
}

/// What came of a call of an Auth endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Tokens were issued and answered.
    Ok,
    /// Not accepted: a wrong key, a dead RefreshToken, a body that cannot be read.
    Rejected,
    /// Over the login limit.
    Limited,
    /// Tokens were issued, but a fault lost or garbled the answer.
    Lost,
    /// A fault answered; nothing was issued.
    Failed,
}

/// One Login call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoginCall {
    /// When it arrived, on the simulator's clock; in JSON, milliseconds since the Unix epoch.
    #[serde(serialize_with = "in_millis")]
    pub at: Timestamp,
    /// Who logged in; `None` if the body could not be read.
    #[serde(serialize_with = "displayed")]
    pub principal: Option<Principal>,
    /// What came of it.
    pub outcome: Outcome,
}

/// Which Auth endpoint was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    Login,
    Refresh,
    Registration,
}

/// Keeps the counts.
#[derive(Debug, Default)]
pub(super) struct Counter(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    total: PrincipalCount,
    principals: HashMap<Principal, PrincipalCount>,
    login_calls: Vec<LoginCall>,
    blocks_tripped: u64,
}

#[derive(Debug, Default)]
struct PrincipalCount {
    count: Count,
    refreshes_under_way: u64,
}

impl Counter {
    /// One ended call of an Auth endpoint.
    pub(super) fn granted(&self, grant: Grant, principal: Option<&Principal>, outcome: Outcome) {
        self.count(principal, |count| {
            match grant {
                Grant::Login => &mut count.logins,
                Grant::Refresh => &mut count.refreshes,
                Grant::Registration => &mut count.registrations,
            }
            .add(outcome);
        });
    }

    /// One Login call in the list of them.
    pub(super) fn login_call(&self, call: LoginCall) {
        let mut kept = self.0.lock().expect("no holder panics");
        let place = kept
            .login_calls
            .partition_point(|earlier| earlier.at <= call.at);
        kept.login_calls.insert(place, call);
    }

    /// Applies `change` to the total and to `principal`'s count.
    pub(super) fn count(&self, principal: Option<&Principal>, change: impl Fn(&mut Count)) {
        self.tally(principal, |tally| change(&mut tally.count));
    }

    /// A block of the login limit began.
    pub(super) fn block_tripped(&self) {
        self.0.lock().expect("no holder panics").blocks_tripped += 1;
    }

    /// A RefreshToken call is under way until the guard is dropped.
    pub(super) fn refreshing<'a>(&'a self, principal: Option<&'a Principal>) -> Refreshing<'a> {
        self.tally(principal, |tally| {
            tally.refreshes_under_way += 1;
            let most = &mut tally.count.refreshes_at_once;
            *most = tally.refreshes_under_way.max(*most);
        });
        Refreshing(self, principal)
    }

    fn tally(&self, principal: Option<&Principal>, change: impl Fn(&mut PrincipalCount)) {
        let mut kept = self.0.lock().expect("no holder panics");
        change(&mut kept.total);
        if let Some(principal) = principal {
            change(kept.tally(principal));
        }
    }

    /// The counts as they stand.
    pub(super) fn counts(&self) -> Counts {
        let kept = self.0.lock().expect("no holder panics");
        Counts {
            total: kept.total.count,
            principals: kept
                .principals
                .iter()
                .map(|(principal, tally)| (principal.to_string(), tally.count))
                .collect(),
            login_calls: kept.login_calls.clone(),
            blocks_tripped: kept.blocks_tripped,
        }
    }

    /// The counts of one principal; zeros if it never called.
    pub(super) fn of(&self, principal: &Principal) -> Count {
        let kept = self.0.lock().expect("no holder panics");
        kept.principals
            .get(principal)
            .map_or_else(Count::default, |tally| tally.count)
    }

    /// Starts over; calls under way stay under way.
    pub(super) fn reset(&self) {
        let mut kept = self.0.lock().expect("no holder panics");
        kept.total.count = Count::default();
        kept.principals.retain(|_, tally| {
            tally.count = Count::default();
            tally.refreshes_under_way > 0
        });
        kept.login_calls.clear();
        kept.blocks_tripped = 0;
    }
}

impl Kept {
    fn tally(&mut self, principal: &Principal) -> &mut PrincipalCount {
        if !self.principals.contains_key(principal) {
            self.principals
                .insert(principal.clone(), PrincipalCount::default());
        }
        self.principals.get_mut(principal).expect("just inserted")
    }
}

/// Marks a RefreshToken call as under way.
pub(super) struct Refreshing<'a>(&'a Counter, Option<&'a Principal>);

impl Drop for Refreshing<'_> {
    fn drop(&mut self) {
        self.0.tally(self.1, |tally| tally.refreshes_under_way -= 1);
    }
}

fn in_millis<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(at.as_millis())
}

fn displayed<S: Serializer>(
    principal: &Option<Principal>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match principal {
        Some(principal) => serializer.collect_str(principal),
        None => serializer.serialize_none(),
    }
}

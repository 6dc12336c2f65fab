//! A journal, sorted by users, and what the excuses of a trial reach.

use std::collections::{BTreeMap, HashMap};

use damoov_proxy::principal::Principal;
use damoov_proxy::simulator::{Called, Entry, Fate, Journal, Serial, Tick, Verdict};

use super::{DURABLE_WITHIN, Excuse, Rule, Trial, Violation};

/// What is judged.
pub(super) struct History<'a> {
    pub(super) journal: &'a Journal,
    pub(super) trial: &'a Trial,
    /// What concerns each user, commands that concern everybody among it, in order of arrival.
    pub(super) users: BTreeMap<&'a Principal, Vec<&'a Entry>>,
    /// Whom each pair was issued to.
    pub(super) owners: HashMap<Serial, &'a Principal>,
}

impl<'a> History<'a> {
    pub(super) fn new(journal: &'a Journal, trial: &'a Trial) -> History<'a> {
        let mut users = BTreeMap::<_, Vec<_>>::new();
        let mut owners = HashMap::new();
        for entry in &journal.entries {
            if let Some(principal) = &entry.principal {
                users.entry(principal).or_default().push(entry);
                if let Some(issued) = entry.issued {
                    owners.insert(issued.serial, principal);
                }
            }
        }
        let everybody: Vec<_> = journal
            .entries
            .iter()
            .filter(|entry| entry.principal.is_none() && entry.door.is_none())
            .filter(|entry| matches!(entry.called, Called::Expire | Called::Revoke))
            .collect();
        for entries in users.values_mut() {
            entries.extend(&everybody);
            entries.sort_by_key(|entry| entry.arrived);
        }
        History {
            journal,
            trial,
            users,
            owners,
        }
    }

    /// Whether what `call` brought may be lost because its sidecar was killed or stood still.
    pub(super) fn may_be_lost(&self, call: &Entry) -> bool {
        let Some(end) = call.end else { return true };
        let end = end.at;
        self.trial.excuses.iter().any(|excuse| match excuse {
            Excuse::Killed { door, at } => {
                is_through(call, door) && end <= *at && at.at <= end.at.plus(DURABLE_WITHIN)
            }
            Excuse::Stopped { door, from, to } => {
                is_through(call, door) && end <= *to && from.at <= end.at.plus(DURABLE_WITHIN)
            }
            Excuse::Doubted { .. }
            | Excuse::SetBack { .. }
            | Excuse::Suspended { .. }
            | Excuse::Forgotten { .. } => false,
        })
    }

    /// Whether the store may have been behind what its sidecars know, so that they believe no rejection.
    pub(super) fn is_doubted(&self, at: Tick) -> bool {
        self.is_within(at, |excuse| match excuse {
            Excuse::Doubted { from, to } => Some((*from, *to)),
            _ => None,
        })
    }

    /// Whether the store had older pairs than it once had.
    pub(super) fn is_behind(&self, at: Tick) -> bool {
        let set_back = self.is_within(at, |excuse| match excuse {
            Excuse::SetBack { from, to } => Some((*from, *to)),
            _ => None,
        });
        set_back || self.is_doubted(at)
    }

    /// Whether refusals of RefreshTokens were taken for a fault of the API.
    pub(super) fn is_suspended(&self, at: Tick) -> bool {
        self.is_within(at, |excuse| match excuse {
            Excuse::Suspended { from, to } => Some((*from, *to)),
            _ => None,
        })
    }

    fn is_within(&self, at: Tick, span: impl Fn(&Excuse) -> Option<(Tick, Tick)>) -> bool {
        let mut spans = self.trial.excuses.iter().filter_map(span);
        spans.any(|(from, to)| (from..=to).contains(&at))
    }

    /// Whether the sidecar at `door` was killed between two points.
    pub(super) fn is_killed(&self, door: &str, after: Tick, before: Tick) -> bool {
        self.trial.excuses.iter().any(|excuse| {
            matches!(excuse, Excuse::Killed { door: killed, at }
                if *killed == door && after <= *at && *at <= before)
        })
    }

    /// Whether a user was forgotten between two points.
    pub(super) fn is_forgotten(&self, principal: &Principal, after: Tick, before: Tick) -> bool {
        self.trial.excuses.iter().any(|excuse| {
            matches!(excuse, Excuse::Forgotten { principal: forgotten, at }
                if forgotten == principal && after <= *at && *at <= before)
        })
    }
}

/// Whether this call came through the door of this name.
pub(super) fn is_through(call: &Entry, door: &str) -> bool {
    call.door.as_deref() == Some(door)
}

/// The door of a call, for a sentence.
pub(super) fn door(call: &Entry) -> &str {
    call.door.as_deref().unwrap_or("the front")
}

/// Whether its whole answer was handed to its connection.
pub(super) fn is_answered(call: &Entry) -> bool {
    call.end.is_some_and(|end| end.fate == Fate::Delivered)
}

/// Whether a data call was served: then its sidecar holds that token.
pub(super) fn is_use(call: &Entry) -> bool {
    call.called == Called::Data && is_answered(call) && call.verdict == Some(Verdict::Granted)
}

/// Whether a pair was issued by this call and reached its caller.
pub(super) fn arrived_pair(call: &Entry) -> Option<Serial> {
    let by_call = matches!(
        call.called,
        Called::Login | Called::Refresh | Called::Registration
    );
    match (call.verdict, call.issued) {
        (Some(Verdict::Granted), Some(issued)) if is_answered(call) && by_call => {
            Some(issued.serial)
        }
        _ => None,
    }
}

/// Notes a broken rule.
pub(super) fn broken(found: &mut Vec<Violation>, rule: Rule, by: String) {
    found.push(Violation { rule, by });
}

//! Logins: no more than the budget allows, and none of a user whose pair arrived and was not refused.

use std::time::Duration;

use damoov_proxy::principal::Principal;
use damoov_proxy::simulator::{Called, Entry, Verdict};

use super::history::{History, arrived_pair, broken, door, is_answered, is_use};
use super::{Rule, Violation};

pub(super) fn judge(history: &History<'_>, found: &mut Vec<Violation>) {
    for (logins, per) in &history.trial.budget {
        within_the_budget(history, *logins, *per, found);
    }
    for (user, entries) in &history.users {
        known_users_stay(history, user, entries, found);
    }
}

fn within_the_budget(
    history: &History<'_>,
    most: usize,
    per: Duration,
    found: &mut Vec<Violation>,
) {
    let logins: Vec<_> = history
        .journal
        .entries
        .iter()
        .filter(|entry| entry.called == Called::Login)
        .collect();
    for (first, login) in logins.iter().enumerate() {
        let end = login.arrived.at.plus(per);
        let within = logins[first..].partition_point(|other| other.arrived.at < end);
        if within > most {
            let by = format!("{within} logins in {per:?} from {}", login.arrived.number);
            broken(found, Rule::LoginsWithinTheBudget, by);
            return;
        }
    }
    if let Some(limited) = logins.iter().find(|l| l.verdict == Some(Verdict::Limited)) {
        let by = format!("{} was answered 429", door(limited));
        broken(found, Rule::LoginsWithinTheBudget, by);
    }
}

/// What a login would cost a user.
enum Standing<'a> {
    /// No pair of this user is known to have arrived.
    Unknown,
    /// A pair arrived, or was imported and used, and was not refused since.
    Holds(&'a Entry),
    /// A refresh was refused: by Damoov, or by a fault that looks like it.
    Refused,
}

fn known_users_stay(
    history: &History<'_>,
    user: &Principal,
    entries: &[&Entry],
    found: &mut Vec<Violation>,
) {
    let mut standing = Standing::Unknown;
    let mut ever_held = false;
    for call in entries {
        if call.called == Called::Login {
            let healed = history.trial.healed.is_some_and(|at| at < call.arrived);
            let wrong = match standing {
                Standing::Holds(since) => !history.is_forgotten(user, since.arrived, call.arrived),
                Standing::Unknown | Standing::Refused => healed && ever_held,
            };
            if wrong {
                let by = format!("{} logs {user} in at {}", door(call), call.arrived.number);
                broken(found, Rule::NothingAcknowledgedIsLost, by);
            }
        }
        if arrived_pair(call).is_some() && !history.may_be_lost(call) {
            standing = Standing::Holds(call);
            ever_held = true;
        } else if is_refusal(call) && !history.is_doubted(call.arrived) {
            standing = Standing::Refused;
        } else if call.called == Called::Login && arrived_pair(call).is_some() {
            standing = Standing::Unknown;
        } else if is_use(call) && matches!(standing, Standing::Unknown) {
            standing = Standing::Holds(call);
            ever_held = true;
        }
    }
}

/// Whether a refresh was answered, and the answer said that the pair is dead.
fn is_refusal(call: &Entry) -> bool {
    call.called == Called::Refresh
        && is_answered(call)
        && match call.verdict {
            Some(Verdict::Rejected) => true,
            Some(Verdict::Faulted) => call.status.is_some_and(|status| status < 429),
            Some(Verdict::Granted | Verdict::Limited) | None => false,
        }
}

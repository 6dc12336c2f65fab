//! Whose token went out for whom, and who must be served.

use damoov_proxy::principal::Principal;
use damoov_proxy::simulator::{Called, Entry, Tick, Verdict};

use super::history::{History, arrived_pair, broken, door, is_through, is_use};
use super::{Heard, Rule, Served, Violation};

pub(super) fn judge(history: &History<'_>, found: &mut Vec<Violation>) {
    for call in &history.journal.entries {
        nobody_elses_token(history, call, found);
    }
    for heard in &history.trial.heard {
        answered_as_due(history, heard, found);
    }
}

fn nobody_elses_token(history: &History<'_>, call: &Entry, found: &mut Vec<Violation>) {
    let Some(owner) = &call.principal else { return };
    if let (Called::Data, Some(named), true) = (call.called, call.named, owner.is_user())
        && *owner != Principal::User(named)
    {
        let by = format!("{} sends a token of {owner} for {named}", door(call));
        broken(found, Rule::NobodyElsesToken, by);
    }
    if let (Called::Refresh, Some(presented)) = (call.called, call.presented)
        && history
            .owners
            .get(&presented)
            .is_some_and(|whose| *whose != owner)
    {
        let by = format!("{} presents pair {} for {owner}", door(call), presented.0);
        broken(found, Rule::NobodyElsesToken, by);
    }
}

fn answered_as_due(history: &History<'_>, heard: &Heard, found: &mut Vec<Violation>) {
    let user = &heard.principal;
    match &heard.answer {
        Served::As(whose) if whose != user => {
            let by = format!("{} serves {user} as {whose}", heard.door);
            broken(found, Rule::NobodyElsesToken, by);
        }
        Served::As(_) => {}
        Served::Refused(..) | Served::Nothing => {
            if holds_a_good_token(history, heard) {
                let by = format!(
                    "{} answers {user}, who asked at {}: {:?}",
                    heard.door, heard.asked.number, heard.answer
                );
                broken(found, Rule::WhoHoldsAGoodTokenIsServed, by);
            }
        }
    }
}

/// Whether the sidecar had received or used a JWT of this user, and Damoov accepted it until the answer.
fn holds_a_good_token(history: &History<'_>, heard: &Heard) -> bool {
    let entries = history.users.get(&heard.principal);
    let mut held_since: Option<Tick> = None;
    for call in entries.into_iter().flatten() {
        if call.arrived > heard.answered {
            break;
        }
        if ends_access_tokens(call) {
            held_since = None;
        }
        if is_through(call, heard.door)
            && let Some(end) = call.end
            && end.at < heard.asked
            && (arrived_pair(call).is_some() || is_use(call))
        {
            held_since = Some(end.at);
        }
    }
    held_since.is_some_and(|since| !history.is_killed(heard.door, since, heard.answered))
}

/// Whether the user's JWTs from before are 401 from here on.
fn ends_access_tokens(call: &Entry) -> bool {
    match call.called {
        Called::Expire | Called::Issue => true,
        Called::Login | Called::Registration => call.verdict == Some(Verdict::Granted),
        Called::Refresh | Called::Revoke | Called::Data => false,
    }
}

//! An explanation in words, as rows of a name and a sentence.

use super::keeping;
use crate::cli::output::rough;
use crate::credentials::{
    After401, Ages, Explanation, LastRenewal, NextRequest, Obstacle, RenewalOutcome, Stored,
};
use crate::principal::{InstanceId, Principal};

/// All of it, for a person.
pub(in crate::cli) fn as_text(explanation: &Explanation) -> String {
    let Explanation {
        principal,
        log_name,
        generation,
        epoch,
        stored,
        next_request,
        ..
    } = explanation;
    let mut text = format!(
        "principal      {principal}\nin logs        {log_name}\ngeneration     {generation}\nepoch          {epoch}",
    );
    let mut row = |name: &str, value: &str| {
        text.push_str(&format!("\n{name:<14} {value}"));
    };
    match explanation.ages {
        None => {
            row("pair", "none");
            if let Some(instance) = explanation.instance {
                row("registered in", &instance.to_string());
            }
        }
        Some(ages) => {
            for (name, value) in of_pair(explanation.instance, ages) {
                row(name, &value);
            }
            row("RefreshToken", &refresh_token(*stored));
        }
    }
    if explanation.answer_lost {
        row(
            "note",
            "answer lost: of its last refresh; the pair is tried once more before a login",
        );
    }
    row("last renewal", &last_renewal(explanation.last_renewal));
    for (name, value) in keeping::rows(explanation) {
        row(name, &value);
    }
    row("needs login", needs_login(*stored));
    row("next request", next(*next_request));
    row("a 401 then", &after_401(explanation.after_401));
    let obstacles = sentences(explanation);
    for obstacle in &obstacles {
        row("obstacle", obstacle);
    }
    if obstacles.is_empty() {
        row("obstacle", "none: a login could happen now");
    }
    text
}

fn of_pair(instance: Option<InstanceId>, ages: Ages) -> [(&'static str, String); 3] {
    let instance = instance.map_or("none".to_owned(), |instance| instance.to_string());
    let Ages {
        age, left, overdue, ..
    } = ages;
    [
        ("instance", instance),
        ("received", format!("{} ago", rough(age))),
        (
            "token left",
            match left.is_zero() {
                true => format!("none: it expired {} ago", rough(overdue)),
                false => rough(left),
            },
        ),
    ]
}

fn refresh_token(stored: Stored) -> String {
    match stored {
        Stored::KeyMissing(key) => {
            return format!("sealed with the key {key}, which is not configured");
        }
        Stored::Damaged => "the record is damaged",
        Stored::Absent | Stored::WithoutRefreshToken => "none",
        Stored::Refreshable => "present",
        Stored::Dead => "dead: Damoov rejected it",
    }
    .to_owned()
}

fn needs_login(stored: Stored) -> &'static str {
    match stored {
        Stored::Refreshable => "no: its RefreshToken renews it",
        Stored::KeyMissing(_) => {
            "no: its requests are answered 503 store_unavailable until that key is in \
             [store] old_keys"
        }
        Stored::Absent => "yes: it has no pair",
        Stored::Damaged => "yes: its record is damaged",
        Stored::WithoutRefreshToken => {
            "yes: it has no RefreshToken, once its token expires or is rejected"
        }
        Stored::Dead => "yes: its RefreshToken is dead, once its token expires or is rejected",
    }
}

/// What its next request does and costs, unless Damoov rejects its token.
fn next(request: NextRequest) -> &'static str {
    match request {
        NextRequest::Served => "goes out with the stored token, which costs nothing",
        NextRequest::Refreshes => "waits for a refresh, which is free",
        NextRequest::LogsIn => {
            "waits for a login, which takes a slot of the budget and ends the tokens before it"
        }
        NextRequest::Refused => "is refused: see the obstacles",
    }
}

/// The last one that left a trace in the store.
fn last_renewal(last: Option<LastRenewal>) -> String {
    let Some(LastRenewal { outcome, age, .. }) = last else {
        return "none is known".to_owned();
    };
    let ago = age.map_or(String::new(), |age| format!(" {} ago", rough(age)));
    match outcome {
        RenewalOutcome::Renewed => format!("brought this pair{ago}"),
        RenewalOutcome::AnswerLost => "a refresh whose answer was lost".to_owned(),
        RenewalOutcome::RefreshRejected => "a refresh that Damoov rejected".to_owned(),
        RenewalOutcome::LoginRejected => format!("a login that Damoov rejected{ago}"),
    }
}

/// What a 401 to the next request does.
fn after_401(then: After401) -> String {
    match then {
        After401::NotSent => "cannot come: the request is not sent",
        After401::PassedOn { left } => {
            return format!(
                "is passed on: a token that had just been renewed got one as well, so that no 401 \
                 renews it for another {}",
                rough(left)
            );
        }
        After401::Refreshes => "costs a refresh, which is free; the request is sent once more",
        After401::LogsIn => {
            "costs a login, which takes a slot of the budget; the request is sent once more"
        }
        After401::Refused => "is answered with an error: only a login helps; see the obstacles",
    }
    .to_owned()
}

/// Whatever stands in the way, in sentences.
pub(in crate::cli) fn sentences(explanation: &Explanation) -> Vec<String> {
    let key_missing = match explanation.stored {
        Stored::KeyMissing(key) => Some(format!(
            "key missing: its record is sealed with the key {key}, which is not configured \
             (store_unavailable); put it into [store] old_keys"
        )),
        _ => None,
    };
    let obstacles = explanation.obstacles.iter();
    let obstacles = obstacles.map(|one| sentence(&explanation.principal, one));
    key_missing.into_iter().chain(obstacles).collect()
}

/// What it is, when it ends, and the code that callers see.
fn sentence(principal: &Principal, obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::InstanceGone => {
            "its instance is configured no longer: its pair is kept, and used again once the \
             instance is back in the configuration (instance_unknown)"
                .to_owned()
        }
        Obstacle::InstanceUnknown => {
            "no configured instance is the default one: requests must name \
             an InstanceId (instance_unknown)"
                .to_owned()
        }
        Obstacle::AccountUnknown => {
            "no account of this name is configured (account_unknown)".to_owned()
        }
        Obstacle::Rejected { left } => {
            let check = match principal {
                Principal::User(_) => "DeviceToken and InstanceKey",
                Principal::Account(_) => "email and password",
            };
            format!(
                "rejected: Damoov does not accept its login; it is tried again in {} \
                 (login_rejected); check \
                 {check}",
                rough(*left)
            )
        }
        Obstacle::KeyRejected { left } => format!(
            "breaker: Damoov rejects one login after the other with this key; the next one is \
             tried in {} \
             (login_rejected); check the key",
            rough(*left)
        ),
        Obstacle::Contested { left } => format!(
            "contested: another program logs it in as well; the next login is allowed in {} \
             (login_contested); does another proxy with another store serve it?",
            rough(*left)
        ),
        Obstacle::Suspended => format!(
            "suspended: Damoov rejects the RefreshTokens of many users, and users that hold a \
             pair wait until one is accepted (login_suspended); `tokens forget` lets {principal} \
             log in now"
        ),
        Obstacle::Blocked { left } => format!(
            "blocked: Damoov answered a login with 429; the block ends in {} (login_blocked); see \
             `damoov-proxy budget`",
            rough(*left)
        ),
        Obstacle::OutOfBudget { left } => format!(
            "out of budget: the login budget is used up; the next slot is free in {} \
             (login_budget_exhausted); see `damoov-proxy budget`",
            rough((*left).max(std::time::Duration::from_secs(1)))
        ),
    }
}

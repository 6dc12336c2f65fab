//! The sentence: what is wrong, since when and until when, who is hurt, what to do; or that nothing is to do.
//! A pure function of what is known, so that each case can be read and tested. If several things are wrong
//! the worst one is told; [`Code::weight`] says which that is.

use std::time::Duration;

use serde::Serialize;

use super::code::Code;
use super::engine::Logins;
use super::readiness::Condition;
use super::time::at;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// Nothing is wrong.
    Calm,
    /// Something needs attention, or passes by itself.
    Warn,
    /// Requests fail, or will soon.
    Bad,
}

/// What somebody who was just woken up must know.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Sentence {
    /// How bad it is.
    pub(super) level: Level,
    /// What is wrong.
    pub(super) what: String,
    /// Since when (RFC 3339).
    pub(super) since: Option<String>,
    /// Until when, if that is known.
    pub(super) until: Option<String>,
    /// Who is hurt by it, and who is not.
    pub(super) who: String,
    /// What to do.
    #[serde(rename = "do")]
    pub(super) to_do: String,
}

/// What the sentence follows from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'f> {
    /// Everything that is wrong: why the process is not ready, and what it suffers from.
    pub(super) conditions: &'f [Condition],
    /// What stands in the way of logins.
    pub(super) logins: &'f Logins,
    /// Requests that were answered 5xx in the last minute.
    pub(super) failed_lately: u64,
    /// Now, in seconds since the epoch.
    pub(super) now: u64,
}

/// What is told of a condition, beside when it began.
struct Told {
    level: Level,
    what: String,
    until: Option<Duration>,
    who: &'static str,
    to_do: &'static str,
}

/// The sentence for these facts.
pub(super) fn sentence(facts: &Facts<'_>) -> Sentence {
    let worst = facts
        .conditions
        .iter()
        .max_by_key(|condition| condition.code.weight());
    let (told, since) = match worst {
        Some(condition) => (told(condition, facts), Some(condition.since.clone())),
        None if facts.logins.contested > 0 => (contested(facts.logins.contested), None),
        None => (calm(), None),
    };
    Sentence {
        level: told.level,
        what: told.what,
        since,
        until: told.until.map(|left| at(facts.now + left.as_secs() + 1)),
        who: with_failures(told.who, told.level, facts.failed_lately),
        to_do: told.to_do.to_owned(),
    }
}

fn told(condition: &Condition, facts: &Facts<'_>) -> Told {
    let logins = facts.logins;
    match condition.code {
        Code::StoreUnwritable => Told {
            level: Level::Bad,
            what: format!("New tokens cannot be stored: {}.", condition.message),
            until: None,
            who: "Users whose token expires or is rejected get 503. Users with a fresh token are served. \
                  This process is not ready.",
            to_do: "Make room on the disk of the store, or make it writable; `df` and [store] path show \
                    which. The process goes on by itself. Do not restart it: tokens that wait to be \
                    stored would be lost.",
        },
        Code::Draining => Told {
            level: Level::Warn,
            what: "This process is about to end.".to_owned(),
            until: None,
            who: "Requests in progress are finished; new ones must go to another process, or wait for the \
                  next one.",
            to_do: "Nothing, if somebody restarts or stops it. If not, the log says which signal came.",
        },
        Code::Starting => Told {
            level: Level::Warn,
            what: "The store is being opened.".to_owned(),
            until: None,
            who: "Callers are connected, and wait.",
            to_do: "Wait. If it takes longer than a minute, see the log: the disk or the database is slow.",
        },
        Code::StoreAway => Told {
            level: Level::Bad,
            what: "The store is not reached.".to_owned(),
            until: None,
            who: "Users whose token expires or is rejected get 503. Users with a token in memory are served.",
            to_do: "Bring the database back, or the network to it; the log says what fails. The proxy \
                    reconnects by itself. Do not restart it: the tokens in memory would be lost to it.",
        },
        Code::UpstreamUnreachable => Told {
            level: Level::Bad,
            what: format!("{}.", headline(&condition.message)),
            until: None,
            who: "Requests to that host get 502 or 504. If it is the host that logs in, no token is renewed.",
            to_do: "Run `damoov-proxy doctor` here: it says whether name, network or certificate is at \
                    fault. The proxy tries again with each request.",
        },
        Code::LoginsSuspended => Told {
            level: Level::Bad,
            what: "Damoov rejects the RefreshTokens of many users.".to_owned(),
            until: None,
            who: "Users whose token has expired get 503. Users with a valid token, and new users, are served.",
            to_do: "Ask Damoov whether its Auth service is disturbed. The proxy probes it every 5 s and \
                    goes on by itself. Do not delete the store: that would cost each user a login.",
        },
        Code::LoginBlocked => Told {
            level: Level::Bad,
            what: "Damoov blocks logins from this address.".to_owned(),
            until: Some(logins.blocked),
            who: "Users without stored tokens get 503. Users that hold a pair are served and refreshed.",
            to_do: "Nothing: the block ends by itself, and the users that wait log in then. Do not restart. Find \
                    out what else logs in from this address.",
        },
        Code::LoginBudgetExhausted => match logins.next.is_zero() {
            true => Told {
                level: Level::Warn,
                what: "Every login but the reserve is spent.".to_owned(),
                until: Some(logins.next_new),
                who: "Users never seen before get 503. All others are served.",
                to_do: "Nothing: slots become free by themselves. If it lasts, find the caller that names so many \
                        new users; `damoov-proxy warm` logs many in without hurting others.",
            },
            false => Told {
                level: Level::Warn,
                what: "Every login of the budget is spent.".to_owned(),
                until: Some(logins.next),
                who: "Users without stored tokens wait, or get 503. Users that hold a pair are served and \
                      refreshed.",
                to_do: "Nothing: slots become free by themselves. Raise [login_budget] only if Damoov has \
                        raised its limit.",
            },
        },
        Code::ReloadFailed => Told {
            level: Level::Warn,
            what: "The configuration is refused.".to_owned(),
            until: None,
            who: "Nobody is hurt: what was in force before stays in force. At a restart the process would not \
                  start.",
            to_do: "Run `damoov-proxy check` on the file and mend what it says; it is read again by itself. Do \
                    not restart before that.",
        },
        Code::RestartNeeded => Told {
            level: Level::Warn,
            what: "A part of the configuration takes effect only at a restart.".to_owned(),
            until: None,
            who: "Nobody is hurt: what those keys said before stays in force.",
            to_do: "Restart at a time of your choice, or put the keys back.",
        },
        Code::LogUnwritable => Told {
            level: Level::Warn,
            what: "Lines of the log are lost.".to_owned(),
            until: None,
            who: "Nobody is hurt, but the log has gaps.",
            to_do: "See what reads standard error: it has stopped, or its disk is full.",
        },
    }
}

fn contested(users: u64) -> Told {
    Told {
        level: Level::Warn,
        what: match users {
            1 => "Another program logs a user of this proxy in as well.".to_owned(),
            _ => format!("Another program logs {users} users of this proxy in as well."),
        },
        until: None,
        who: "Those users lose their token again and again, and get 503 until they may log in.",
        to_do: "Find the other program, such as a second proxy with a store of its own, or an app that logs \
                in itself, and let it go through this proxy.",
    }
}

fn calm() -> Told {
    Told {
        level: Level::Calm,
        what: "Nothing is wrong.".to_owned(),
        until: None,
        who: "Nobody is hurt.",
        to_do: "Nothing is to do.",
    }
}

/// A condition's message up to what explains it.
fn headline(message: &str) -> &str {
    message.split(';').next().unwrap_or(message)
}

/// How many requests failed meanwhile, as far as that has anything to do with what is wrong.
fn with_failures(who: &str, level: Level, failed_lately: u64) -> String {
    match (level, failed_lately) {
        (Level::Calm, 0) | (Level::Warn | Level::Bad, 0) => who.to_owned(),
        (Level::Calm, 1) => "One request of the last minute failed; the log says why.".to_owned(),
        (Level::Calm, failed) => {
            format!("{failed} requests of the last minute failed; the log says why.")
        }
        (Level::Warn | Level::Bad, 1) => format!("{who} One request failed in the last minute."),
        (Level::Warn | Level::Bad, failed) => {
            format!("{who} {failed} requests failed in the last minute.")
        }
    }
}

#[cfg(test)]
mod tests;

//! `tokens show`: all that is known of one principal, and what stands in the way of its login.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{NOT_FOUND, One};
use crate::cli::opening::LookedAt;
use crate::cli::output::rough;
use crate::cli::{Failure, print, say};
use crate::clock::{Clock, Timestamp};
use crate::config::Settings;
use crate::credentials::seal::Unopened;
use crate::credentials::{self, Inquiry, Obstacle, Pair};
use crate::principal::Principal;
use crate::store::{Entry, Record};

/// Whom to show, and how.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Whom.
    #[command(flatten)]
    one: One,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// How a principal comes to its next token.
enum Renewal {
    /// With its RefreshToken.
    Refresh,
    /// Its record cannot be opened by this configuration: it is left alone.
    KeyMissing,
    /// By a login, because…
    Login(&'static str),
}

/// Prints what the store knows of the principal.
pub(super) async fn show(
    open: &LookedAt,
    settings: &Settings,
    arguments: &Arguments,
) -> Result<ExitCode, Failure> {
    let principal = &arguments.one.principal;
    let entry = open.store.load(principal).await?;
    let clock = Clock::from_environment();
    let budget = open
        .store
        .login_budget(&settings.credentials.budget)
        .await?;
    let inquiry = Inquiry {
        settings: &settings.credentials,
        directory: &settings.directory,
        ring: &open.ring,
        principal,
        entry: &entry,
        budget: &budget,
        clock,
    };
    let guard = async |name: String| open.store.guard(&name).await;
    let obstacles = credentials::obstacles(&inquiry, guard).await?;
    let obstacles = obstacles.iter().map(|one| sentence(principal, one));
    let pair = entry
        .record
        .as_ref()
        .map(|record| Pair::of_record(&open.ring, principal, record));
    let renewal = renewal(&entry, pair.as_ref());
    let key = entry.record.as_ref().map(|record| record.key);
    let missing = key.filter(|_| matches!(renewal, Renewal::KeyMissing));
    let key_missing = missing.map(|key| {
        format!(
            "key missing: its record is sealed with the key {key}, which is not configured \
             (store_unavailable); put it into [store] old_keys"
        )
    });
    let obstacles: Vec<_> = key_missing.into_iter().chain(obstacles).collect();
    let log_name = open.ring.log_name(principal);
    let text = match arguments.json {
        true => {
            let record = entry.record.as_ref();
            json!({
                "principal": principal.to_string(),
                "log_name": log_name.as_str(),
                "generation": entry.generation.0,
                "epoch": entry.epoch,
                "instance": record
                    .and_then(|r| r.instance)
                    .or(entry.notes.registered_in)
                    .map(|instance| instance.to_string()),
                "received_millis": record.map(|r| r.received.as_millis()),
                "expires_millis": record.map(|r| r.expires.as_millis()),
                "needs_login": matches!(renewal, Renewal::Login(_)),
                "key_missing": matches!(renewal, Renewal::KeyMissing),
                "answer_lost": entry.notes.answer_lost == Some(entry.generation),
                "obstacles": obstacles,
            })
            .to_string()
        }
        false => {
            let mut text = format!(
                "principal      {principal}\nin logs        {log_name}\ngeneration     {}\nepoch          {}",
                entry.generation.0, entry.epoch,
            );
            let mut row = |name: &str, value: &str| {
                text.push_str(&format!("\n{name:<14} {value}"));
            };
            match &entry.record {
                None => {
                    row("pair", "none");
                    if let Some(instance) = entry.notes.registered_in {
                        row("registered in", &instance.to_string());
                    }
                }
                Some(record) => {
                    for (name, value) in of_record(record, clock.wall()) {
                        row(name, &value);
                    }
                    let key = record.key;
                    row(
                        "RefreshToken",
                        &match (&pair, &renewal) {
                            (Some(Err(Unopened::UnknownKey)), _) => {
                                format!("sealed with the key {key}, which is not configured")
                            }
                            (Some(Err(_)), _) => "the record is damaged".to_owned(),
                            (Some(Ok(pair)), _) if pair.refresh_token.is_none() => {
                                "none".to_owned()
                            }
                            (_, Renewal::Refresh) => "present".to_owned(),
                            _ => "dead: Damoov rejected it".to_owned(),
                        },
                    );
                }
            }
            if entry.notes.answer_lost == Some(entry.generation) {
                row(
                    "note",
                    "answer lost: of its last refresh; the pair is tried once more before a login",
                );
            }
            row(
                "needs login",
                &match renewal {
                    Renewal::Refresh => "no: its RefreshToken renews it".to_owned(),
                    Renewal::KeyMissing => {
                        "no: its requests are answered 503 store_unavailable until that key is in \
                     [store] old_keys"
                            .to_owned()
                    }
                    Renewal::Login(why) => format!("yes: {why}"),
                },
            );
            for obstacle in &obstacles {
                row("obstacle", obstacle);
            }
            if obstacles.is_empty() {
                row("obstacle", "none: a login could happen now");
            }
            text
        }
    };
    print(&text)?;
    if entry == Entry::default() {
        say(&format!("nothing is known of {principal}"));
        return Ok(ExitCode::from(NOT_FOUND));
    }
    Ok(ExitCode::SUCCESS)
}

fn renewal(entry: &Entry, pair: Option<&Result<Pair, Unopened>>) -> Renewal {
    match pair {
        None => Renewal::Login("it has no pair"),
        Some(Err(Unopened::UnknownKey)) => Renewal::KeyMissing,
        Some(Err(_)) => Renewal::Login("its record is damaged"),
        Some(Ok(pair)) if pair.refresh_token.is_none() => {
            Renewal::Login("it has no RefreshToken, once its token expires or is rejected")
        }
        Some(Ok(_)) if entry.notes.refresh_dead == Some(entry.generation) => {
            Renewal::Login("its RefreshToken is dead, once its token expires or is rejected")
        }
        Some(Ok(_)) => Renewal::Refresh,
    }
}

fn of_record(record: &Record, now: Timestamp) -> [(&'static str, String); 3] {
    let instance = record
        .instance
        .map_or("none".to_owned(), |instance| instance.to_string());
    let left = record.expires.since(now);
    [
        ("instance", instance),
        (
            "received",
            format!("{} ago", rough(now.since(record.received))),
        ),
        (
            "token left",
            match left.is_zero() {
                true => format!("none: it expired {} ago", rough(now.since(record.expires))),
                false => rough(left),
            },
        ),
    ]
}

/// What it is, when it ends, and the code that callers see.
fn sentence(principal: &Principal, obstacle: &Obstacle) -> String {
    match obstacle {
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

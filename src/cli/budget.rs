//! `budget`: what the login budget allows now, and the end of a block. Looking changes nothing.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::opening::{open_store, view};
use super::output::{Format, rough, user_id};
use super::{ConfigFile, Failure, exit, print, say};
use crate::clock::Clock;
use crate::config::{self, Secrets, Settings};
use crate::store::windows::History;
use crate::store::{LoginBudget, WindowState};
use crate::telemetry;

/// What to do with the budget.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Without a command it is shown.
    #[command(subcommand)]
    command: Option<Command>,
    /// How.
    #[command(flatten)]
    format: Format,
}

/// What to do besides showing it.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// End the block that a 429 of Damoov began; every proxy on the store follows within a second
    Unblock {
        /// Really do it: Damoov may block this address for longer if it still counts logins
        #[arg(long)]
        yes: bool,
    },
}

/// Runs the command.
pub fn run(config: ConfigFile, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (_, loaded) = config.load(Secrets::Resolve)?;
    let settings = &loaded.settings;
    let _audit = telemetry::audit_command(settings.log).map_err(Failure::other)?;
    super::background_runtime()?.block_on(async {
        match arguments.command {
            None => {
                let state = state(settings).await?;
                print(&match arguments.format.is_json() {
                    true => as_json(settings, &state),
                    false => as_text(settings, &state),
                })?;
                Ok(ExitCode::SUCCESS)
            }
            Some(Command::Unblock { yes: false }) => {
                let blocked = state(settings).await?.blocked;
                say(&match blocked.is_zero() {
                    true => "logins are not blocked: there is nothing to lift".to_owned(),
                    false => format!(
                        "this would end the block of logins, which lasts for {} more. Damoov may \
                         still count: a login that it answers with 429 blocks anew. To do it, add \
                         --yes",
                        rough(blocked)
                    ),
                });
                Ok(ExitCode::from(exit::USAGE))
            }
            Some(Command::Unblock { yes: true }) => unblock(settings).await,
        }
    })
}

/// The budget, without a change to the store.
async fn state(settings: &Settings) -> Result<LoginBudget, Failure> {
    let clock = Clock::from_environment();
    let windows = settings.credentials.budget.in_real_time(clock);
    let state = match view(&settings.store).await? {
        Some(view) => view.store.login_budget(&windows).await?,
        // Nobody logged in yet.
        None => History::default().budget(&windows, clock.stamp()),
    };
    Ok(state.meant_by(clock))
}

async fn unblock(settings: &Settings) -> Result<ExitCode, Failure> {
    let group = &settings.credentials.budget.group;
    if state(settings).await?.blocked.is_zero() {
        print("logins are not blocked: there is nothing to lift")?;
        return Ok(ExitCode::SUCCESS);
    }
    let open = open_store(&settings.store).await?;
    open.store.unblock_logins(group).await?;
    tracing::info!(target: "audit", group = &**group, uid = user_id(), "unblock");
    drop(open);
    let state = state(settings).await?;
    let lifted = match state.halved.is_zero() {
        true => "the block is lifted".to_owned(),
        false => format!(
            "the block is lifted; the windows stay halved for {} more",
            rough(state.halved)
        ),
    };
    print(&format!("{lifted}. {}", next_login(&state)))?;
    Ok(ExitCode::SUCCESS)
}

fn as_text(settings: &Settings, state: &LoginBudget) -> String {
    let mut text = format!("login group    {}", settings.credentials.budget.group);
    let mut row = |name: &str, value: &str| text.push_str(&format!("\n{name:<14} {value}"));
    for window in &state.windows {
        row("window", &shown(window));
    }
    row(
        "reserve",
        &format!("{} of each window, for users seen before", state.reserve),
    );
    row("next login", &next_login(state));
    row(
        "block",
        &match state.blocked.is_zero() {
            true => "none".to_owned(),
            false => format!(
                "for {} more: Damoov answered a login with 429; `damoov-proxy budget unblock` ends it",
                rough(state.blocked)
            ),
        },
    );
    row(
        "halving",
        &match state.halved.is_zero() {
            true => "none".to_owned(),
            false => format!(
                "for {} more: after a 429 every window allows half",
                rough(state.halved)
            ),
        },
    );
    text
}

/// As `4 logins in 1m: 3 used, 1 free`.
fn shown(state: &WindowState) -> String {
    let WindowState {
        window,
        limit,
        used,
    } = *state;
    let configured = match limit == window.logins {
        true => String::new(),
        false => format!(" (half of {})", window.logins),
    };
    format!(
        "{limit} logins in {}{configured}: {used} used, {} free",
        config::compact(window.per),
        limit.saturating_sub(used)
    )
}

fn next_login(state: &LoginBudget) -> String {
    let when = |left: Duration| match left.is_zero() {
        true => "now".to_owned(),
        false => format!("in {}", rough(left.max(Duration::from_secs(1)))),
    };
    format!(
        "users seen before: {}; new users: {}",
        when(state.next_known),
        when(state.next_new)
    )
}

/// The budget as one JSON object.
pub(super) fn as_json(settings: &Settings, state: &LoginBudget) -> String {
    let windows: Vec<_> = state
        .windows
        .iter()
        .map(|state| {
            json!({
                "logins": state.window.logins,
                "seconds": state.window.per.as_secs_f64(),
                "limit": state.limit,
                "used": state.used,
            })
        })
        .collect();
    json!({
        "group": settings.credentials.budget.group,
        "windows": windows,
        "reserve": state.reserve,
        "remaining": state.remaining,
        "next_known_seconds": state.next_known.as_secs_f64(),
        "next_new_seconds": state.next_new.as_secs_f64(),
        "blocked_seconds": state.blocked.as_secs_f64(),
        "halved_seconds": state.halved.as_secs_f64(),
    })
    .to_string()
}

//! `explain`: all about one principal. Looking changes nothing.

mod keeping;
mod words;

use std::process::ExitCode;

use clap::Args;

pub(super) use self::words::{as_text, sentences};
use super::opening::{StoreView, no_store, view};
use super::output::{Format, print_json};
use super::who::Who;
use super::{ConfigFile, Failure, exit, print, say};
use crate::clock::Clock;
use crate::config::{Secrets, Settings};
use crate::credentials::{Explanation, Inquiry};
use crate::principal::Principal;

/// Whom to explain, and how.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Whom.
    #[command(flatten)]
    who: Who,
    /// How.
    #[command(flatten)]
    format: Format,
}

/// Runs the command.
pub fn run(config: ConfigFile, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (_, loaded) = config.load(Secrets::Resolve)?;
    let settings = &loaded.settings;
    super::background_runtime()?.block_on(async {
        let Some(view) = view(&settings.store).await? else {
            return Ok(no_store(settings, exit::NOT_FOUND));
        };
        let explanation = explain(&view, settings, &arguments.who.principal).await?;
        match arguments.format.is_json() {
            true => print_json(&explanation)?,
            false => print(&as_text(&explanation))?,
        }
        Ok(found(&explanation))
    })
}

/// The explanation of a principal, from its store.
pub(super) async fn explain(
    open: &StoreView,
    settings: &Settings,
    principal: &Principal,
) -> Result<Explanation, Failure> {
    let entry = open.store.load(principal).await?;
    let clock = Clock::from_environment();
    let windows = settings.credentials.budget.in_real_time(clock);
    let budget = open.store.login_budget(&windows).await?.meant_by(clock);
    let inquiry = Inquiry {
        settings: &settings.credentials,
        directory: &settings.directory,
        ring: &open.ring,
        principal,
        entry: &entry,
        budget: &budget,
        lease: open.store.lease_holder(principal).await?,
        condition: &open.store.condition(),
        now: open.store.stamp(),
    };
    let guard = |name: String| {
        let store = &open.store;
        async move { store.guard(&name).await }
    };
    Ok(crate::credentials::explain(&inquiry, guard).await?)
}

/// The exit code, once the explanation is printed: it says when nothing is known.
pub(super) fn found(explanation: &Explanation) -> ExitCode {
    if explanation.known {
        return ExitCode::SUCCESS;
    }
    say(&format!("nothing is known of {}", explanation.principal));
    ExitCode::from(exit::NOT_FOUND)
}

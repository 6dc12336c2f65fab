//! `tokens renew`: renews the pair of one principal now, as a proxy would, beside all proxies on the store.

use std::pin::pin;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::cli::opening::OpenStore;
use crate::cli::output::{Format, print_json};
use crate::cli::who::Who;
use crate::cli::wiring::{finish, renewer};
use crate::cli::{Failure, interrupted, print, say};
use crate::config::Settings;
use crate::credentials::{Error, MayLogIn, OnDemand};
use crate::principal::Principal;

/// Whom to renew, and at what price.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Whom.
    #[command(flatten)]
    who: Who,
    /// Log in if a refresh does not help: this spends a slot of the login budget and ends the tokens before
    #[arg(long)]
    allow_login: bool,
    /// How.
    #[command(flatten)]
    format: Format,
}

impl Arguments {
    /// Whether a principal without a pair is of interest.
    pub(super) fn may_log_in(&self) -> bool {
        self.allow_login
    }
}

/// Renews the pair. The first signal does not end the command: the answer to a call that is under way would
/// be lost.
pub(super) async fn renew(
    open: OpenStore,
    settings: Settings,
    arguments: &Arguments,
) -> Result<ExitCode, Failure> {
    let principal = &arguments.who.principal;
    let may_log_in = match arguments.allow_login {
        true => MayLogIn::Yes,
        false => MayLogIn::No,
    };
    let renewer = renewer(open, settings)?;
    let mut renewal = pin!(async {
        let renewed = renewer.renew(principal, may_log_in).await;
        finish(&renewer).await;
        renewed
    });
    let renewed = tokio::select! {
        renewed = &mut renewal => renewed,
        () = interrupted() => renewal.await,
    };
    let outcome = match renewed {
        Ok(outcome) => outcome,
        Err(Error::StoreUnavailable(error)) => return Err(error.into()),
        Err(error) => return Err(Failure::other(error)),
    };
    match arguments.format.is_json() {
        true => print_json(&json!({
            "principal": principal.to_string(),
            "outcome": outcome.as_str(),
        }))?,
        false => told(principal, outcome)?,
    }
    Ok(match outcome {
        OnDemand::Refreshed | OnDemand::LoggedIn => ExitCode::SUCCESS,
        OnDemand::NeedsLogin | OnDemand::Busy => ExitCode::FAILURE,
    })
}

fn told(principal: &Principal, outcome: OnDemand) -> Result<(), Failure> {
    match outcome {
        OnDemand::Refreshed => print(&format!("refreshed {principal}: no login was needed")),
        OnDemand::LoggedIn => print(&format!(
            "logged in {principal}: a slot of the login budget was spent"
        )),
        OnDemand::NeedsLogin => {
            say(&format!(
                "{principal} has no RefreshToken that Damoov accepts: only a login brings a new pair. \
                 `explain` says why; --allow-login logs it in, which spends a slot of the login budget"
            ));
            Ok(())
        }
        OnDemand::Busy => {
            say(&format!(
                "a running proxy is renewing {principal} now: look again with `explain`"
            ));
            Ok(())
        }
    }
}

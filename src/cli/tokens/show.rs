//! `tokens show`: all that is known of one principal, and what stands in the way of its login.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::cli::explain::{as_text, explain, found, sentences};
use crate::cli::opening::StoreView;
use crate::cli::output::Format;
use crate::cli::who::Who;
use crate::cli::{Failure, print};
use crate::config::Settings;
use crate::credentials::{Explanation, Stored};

/// Whom to show, and how.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Whom.
    #[command(flatten)]
    who: Who,
    /// How.
    #[command(flatten)]
    format: Format,
}

/// Prints what the store knows of the principal.
pub(super) async fn show(
    open: &StoreView,
    settings: &Settings,
    arguments: &Arguments,
) -> Result<ExitCode, Failure> {
    let explanation = explain(open, settings, &arguments.who.principal).await?;
    print(&match arguments.format.is_json() {
        true => as_json(&explanation),
        false => as_text(&explanation),
    })?;
    Ok(found(&explanation))
}

fn as_json(explanation: &Explanation) -> String {
    let Explanation {
        principal,
        log_name,
        generation,
        epoch,
        instance,
        stored,
        ages,
        answer_lost,
        next_request,
        lease,
        store,
        ..
    } = explanation;
    json!({
        "principal": principal.to_string(),
        "log_name": log_name.as_str(),
        "generation": generation,
        "epoch": epoch,
        "instance": instance.map(|instance| instance.to_string()),
        "received_millis": ages.map(|ages| ages.received.as_millis()),
        "expires_millis": ages.map(|ages| ages.expires.as_millis()),
        "needs_login": stored.needs_login(),
        "key_missing": matches!(stored, Stored::KeyMissing(_)),
        "answer_lost": answer_lost,
        "next_request": next_request,
        "obstacles": sentences(explanation),
        "lease": lease,
        "store": store,
    })
    .to_string()
}

//! `tokens show`: all that is known of one principal.

use std::process::ExitCode;

use super::{NOT_FOUND, notes};
use crate::cli::opening::LookedAt;
use crate::cli::output::rough;
use crate::cli::{Failure, print, say};
use crate::clock::Clock;
use crate::credentials::Pair;
use crate::credentials::seal::Unopened;
use crate::principal::Principal;
use crate::store::Entry;

/// Prints what the store knows of the principal.
pub(super) async fn show(open: &LookedAt, principal: &Principal) -> Result<ExitCode, Failure> {
    let entry = open.store.load(principal).await?;
    if entry == Entry::default() {
        say(&format!("nothing is known of {principal}"));
        return Ok(ExitCode::from(NOT_FOUND));
    }
    let now = Clock::from_environment().wall();
    let mut text = format!(
        "principal      {principal}\nin logs        {}\ngeneration     {}\nepoch          {}",
        open.ring.log_name(principal),
        entry.generation.0,
        entry.epoch,
    );
    let mut row = |name: &str, value: String| text.push_str(&format!("\n{name:<14} {value}"));
    match &entry.record {
        None => row("pair", "none".into()),
        Some(record) => {
            let pair = Pair::of_record(&open.ring, principal, record);
            row(
                "instance",
                record.instance.map_or("none".into(), |i| i.to_string()),
            );
            row(
                "received",
                format!("{} ago", rough(now.since(record.received))),
            );
            row("token left", rough(record.expires.since(now)));
            row(
                "RefreshToken",
                match pair {
                    Err(Unopened::UnknownKey) => {
                        format!(
                            "sealed with the key {}, which is not configured",
                            record.key
                        )
                    }
                    Err(_) => "the record is damaged".into(),
                    Ok(pair) if pair.refresh_token.is_some() => "present".into(),
                    Ok(_) => "none".into(),
                },
            );
        }
    }
    for note in notes(&entry, now) {
        row("note", note);
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

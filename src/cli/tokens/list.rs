//! `tokens list`: one line for each principal of the store.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::notes;
use crate::cli::Failure;
use crate::cli::output::{rough, write};
use crate::clock::{Clock, Timestamp};
use crate::principal::Principal;
use crate::store::{Entry, Listed, ReadOnly};

/// Entries read at once.
const PAGE: usize = 1000;

/// How to list.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Print one JSON object for each principal
    #[arg(long)]
    json: bool,
}

/// Prints every principal of the store.
pub(super) async fn list(store: &dyn ReadOnly, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let now = Clock::from_environment().wall();
    let mut after = None;
    let header = format!(
        "{:<42} {:<36} {:>10} {:>10} {:>10}  NOTES\n",
        "PRINCIPAL", "INSTANCE", "GENERATION", "AGE", "LEFT"
    );
    let mut text = match arguments.json {
        true => String::new(),
        false => header,
    };
    loop {
        let page = store.list(Listed::Known, after.as_ref(), PAGE).await?;
        for (principal, entry) in &page.entries {
            text.push_str(&match arguments.json {
                true => as_json(principal, entry, now),
                false => line(principal, entry, now),
            });
            text.push('\n');
        }
        write(text.as_bytes())?;
        text.clear();
        after = page.next;
        if after.is_none() {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn line(principal: &Principal, entry: &Entry, now: Timestamp) -> String {
    let (instance, age, left) = match &entry.record {
        None => ("-".to_owned(), "-".to_owned(), "-".to_owned()),
        Some(record) => (
            record
                .instance
                .map_or("-".to_owned(), |instance| instance.to_string()),
            rough(now.since(record.received)),
            rough(record.expires.since(now)),
        ),
    };
    let notes = notes(entry, now).join(", ");
    let generation = entry.generation.0;
    format!(
        "{:<42} {instance:<36} {generation:>10} {age:>10} {left:>10}  {notes}",
        principal.to_string()
    )
}

fn as_json(principal: &Principal, entry: &Entry, now: Timestamp) -> String {
    let record = entry.record.as_ref();
    json!({
        "principal": principal.to_string(),
        "instance": record.and_then(|r| r.instance).map(|i| i.to_string()),
        "generation": entry.generation.0,
        "received_millis": record.map(|r| r.received.as_millis()),
        "expires_millis": record.map(|r| r.expires.as_millis()),
        "notes": notes(entry, now),
    })
    .to_string()
}

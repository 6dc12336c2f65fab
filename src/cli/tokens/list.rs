//! `tokens list`: one line for each principal of the store that the filters let through, page by page, so
//! that its memory does not grow with the store.

mod filter;

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use self::filter::{Filter, Filters};
use super::notes::notes;
use crate::cli::output::{Format, rough, write};
use crate::cli::{Failure, exit, print, say};
use crate::clock::Timestamp;
use crate::config::Settings;
use crate::principal::Principal;
use crate::store::{Entry, Listed, ReadOnly};

/// Entries read at once.
const PAGE: usize = 1000;

/// What to list, and how.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Which principals.
    #[command(flatten)]
    filters: Filters,
    /// Stop after this many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print only how many there are
    #[arg(long)]
    count: bool,
    /// How.
    #[command(flatten)]
    format: Format,
}

/// Prints the principals of the store.
pub(super) async fn list(
    store: &dyn ReadOnly,
    settings: &Settings,
    arguments: &Arguments,
) -> Result<ExitCode, Failure> {
    let filter = match arguments.filters.resolve(&settings.directory) {
        Ok(filter) => filter,
        Err(why) => {
            say(&format!("error: {why}"));
            return Ok(ExitCode::from(exit::USAGE));
        }
    };
    let found = print_all(store, &filter, arguments).await?;
    if arguments.count {
        print(&match arguments.format.is_json() {
            true => json!({ "count": found }).to_string(),
            false => found.to_string(),
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints each, unless they are only counted. Returns how many there were.
async fn print_all(
    store: &dyn ReadOnly,
    filter: &Filter,
    arguments: &Arguments,
) -> Result<u64, Failure> {
    let Arguments {
        limit,
        count,
        format,
        ..
    } = arguments;
    let mut left = limit.unwrap_or(u64::MAX);
    let mut found = 0;
    let mut after = None;
    let mut text = match *count || format.is_json() {
        true => String::new(),
        false => header(),
    };
    loop {
        let page = store.list(Listed::Known, after.as_ref(), PAGE).await?;
        let now = store.now();
        let matching = page
            .entries
            .iter()
            .filter(|(_, entry)| filter.lets(entry, now));
        for (principal, entry) in matching.take(usize::try_from(left).unwrap_or(usize::MAX)) {
            found += 1;
            left -= 1;
            if *count {
                continue;
            }
            text.push_str(&match format.is_json() {
                true => as_json(principal, entry, now),
                false => line(principal, entry, now),
            });
            text.push('\n');
        }
        write(text.as_bytes())?;
        text.clear();
        after = page.next;
        if after.is_none() || left == 0 {
            return Ok(found);
        }
    }
}

fn header() -> String {
    format!(
        "{:<42} {:<36} {:>10} {:>10} {:>10}  NOTES\n",
        "PRINCIPAL", "INSTANCE", "GENERATION", "AGE", "LEFT"
    )
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
    let notes = noted(entry, now).join(", ");
    let generation = entry.generation.0;
    format!(
        "{:<42} {instance:<36} {generation:>10} {age:>10} {left:>10}  {notes}",
        principal.to_string()
    )
}

/// One principal as a JSON object.
pub(in crate::cli) fn as_json(principal: &Principal, entry: &Entry, now: Timestamp) -> String {
    let record = entry.record.as_ref();
    json!({
        "principal": principal.to_string(),
        "instance": record.and_then(|r| r.instance).map(|i| i.to_string()),
        "generation": entry.generation.0,
        "received_millis": record.map(|r| r.received.as_millis()),
        "expires_millis": record.map(|r| r.expires.as_millis()),
        "notes": noted(entry, now),
    })
    .to_string()
}

fn noted(entry: &Entry, now: Timestamp) -> Vec<String> {
    notes(entry, now)
        .into_iter()
        .map(|(_, text)| text)
        .collect()
}

//! `tokens list`: one line for each principal of the store.

use std::process::ExitCode;

use super::notes;
use crate::cli::Failure;
use crate::cli::output::{rough, write};
use crate::clock::{Clock, Timestamp};
use crate::principal::Principal;
use crate::store::Entry;
use crate::store::sqlite::Look;

/// Entries read at once.
const PAGE: usize = 1000;

/// Prints every principal of the store.
pub(super) async fn list(store: &Look) -> Result<ExitCode, Failure> {
    let now = Clock::from_environment().wall();
    let mut after: Option<Principal> = None;
    let mut text = format!(
        "{:<42} {:<36} {:>10} {:>10} {:>10}  NOTES\n",
        "PRINCIPAL", "INSTANCE", "GENERATION", "AGE", "LEFT"
    );
    loop {
        let page = store.list(after.as_ref(), PAGE).await?;
        for (principal, entry) in &page {
            text.push_str(&line(principal, entry, now));
            text.push('\n');
        }
        write(text.as_bytes())?;
        text.clear();
        match page.into_iter().next_back() {
            None => return Ok(ExitCode::SUCCESS),
            Some((last, _)) => after = Some(last),
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

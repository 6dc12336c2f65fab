//! `tokens export`: writes what is stored, in clear or sealed, as `tokens import` reads it.

mod clear;
mod output;
mod sealed;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use zeroize::Zeroizing;

use self::clear::Clear;
use self::output::Output;
use self::sealed::Sealed;
use crate::cli::opening::StoreView;
use crate::cli::progress::{Progress, Shown, Total};
use crate::cli::{Failure, exit, interrupted, print, say};
use crate::principal::Principal;
use crate::store::{Entry, Listed, Tombstone};

/// Entries read at once.
const PAGE: usize = 1000;

/// What to export, and where to.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A new file, which only its owner can read; - for standard output, in clear only if that is no
    /// terminal
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Write whole entries, whose tokens stay sealed: only a store with the same key, now or among
    /// its old ones, can import them
    #[arg(long)]
    sealed: bool,
}

/// What an export consists of.
trait Lines {
    /// Which entries are shown to it.
    fn listed(&self) -> Listed;

    /// Appends what comes before the entries.
    fn begin(&mut self, _text: &mut Vec<u8>) {}

    /// Appends the line of one entry, unless it is left out. Returns a sentence if it failed.
    fn append(
        &mut self,
        principal: &Principal,
        entry: &Entry,
        text: &mut Vec<u8>,
    ) -> Option<String>;

    /// Whether tombstones are shown to it, after the entries.
    fn has_tombstones(&self) -> bool {
        false
    }

    /// Appends the line of a tombstone.
    fn bury(&mut self, _tombstone: &Tombstone, _text: &mut Vec<u8>) {}

    /// Appends what comes after the tombstones.
    fn end(&mut self, _text: &mut Vec<u8>) {}

    /// What was exported, in a sentence.
    fn summary(&self) -> String;

    /// How many entries could not be exported although they should have been.
    fn failed(&self) -> u64;
}

/// Exports everything that helps another store.
pub(super) async fn export(view: &StoreView, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Some(mut output) = Output::create(&arguments.to, arguments.sealed)? else {
        say(
            "error: this would show every token on the terminal; name a file with --to, or \
             pipe standard output into another command",
        );
        return Ok(ExitCode::from(exit::USAGE));
    };
    let is_file = output.is_file();
    let exported = tokio::select! {
        exported = write_all(view, arguments, &mut output) => exported,
        // There is nothing to clean up on standard output: there the signal ends the process by itself.
        () = interrupted(), if is_file => {
            output.remove();
            say("interrupted: nothing was exported");
            return Ok(ExitCode::from(exit::INTERRUPTED));
        }
    };
    // Half of an export would look like a complete one.
    let (summary, failed) = exported.inspect_err(|_| output.remove())?;
    match is_file {
        true => print(&summary)?,
        false => say(&summary),
    }
    Ok(match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Writes all lines. Returns the summary, and how many entries failed.
async fn write_all(
    view: &StoreView,
    arguments: &Arguments,
    output: &mut Output<'_>,
) -> Result<(String, u64), Failure> {
    let entries = view.store.count().await?;
    let mut lines: Box<dyn Lines> = match arguments.sealed {
        true => Box::new(Sealed::of(view, entries).await?),
        false => Box::new(Clear::new(&view.ring)),
    };
    let shown = match output.is_file() {
        true => Shown::AsBar,
        // An import that reads it draws one.
        false => Shown::AsLines,
    };
    let progress = Progress::new("exported", Total::Entries(entries), shown);
    let mut text = Zeroizing::new(Vec::new());
    lines.begin(&mut text);
    let mut after = None;
    loop {
        let page = view
            .store
            .list(lines.listed(), after.as_ref(), PAGE)
            .await?;
        for (principal, entry) in &page.entries {
            if let Some(failed) = lines.append(principal, entry, &mut text) {
                progress.say(&failed);
            }
        }
        output.write(&text)?;
        progress.advance(page.entries.len() as u64, text.len() as u64);
        text.clear();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    while lines.has_tombstones() {
        let page = view.store.tombstones(after.as_ref(), PAGE).await?;
        for tombstone in &page.tombstones {
            lines.bury(tombstone, &mut text);
        }
        output.write(&text)?;
        text.clear();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    lines.end(&mut text);
    output.write(&text)?;
    output.finish()?;
    Ok((lines.summary(), lines.failed()))
}

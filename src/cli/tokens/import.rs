//! `tokens import`: adopts what was issued or stored elsewhere, without a login. What is stored and newer
//! is kept, so an import that runs again, or late, costs no login.

mod adopt;
mod buried;
mod clear;
mod offer;
mod report;
mod sealed;

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;

use clap::Args;
use futures_util::stream::StreamExt;

use self::report::Report;
use self::sealed::Checked;
use super::sealed::Header;
use crate::cli::lines::{Source, unreadable};
use crate::cli::opening::{OpenStore, StoreView, open_store, view};
use crate::cli::progress::Total;
use crate::cli::{Failure, exit, interrupted, say};
use crate::config::Settings;
use crate::principal::Principal;
use crate::store::{self, Day};

/// The longest line that is read, in bytes: far more than a pair takes.
const LONGEST: usize = 1 << 20;

/// What to import, and how.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What `tokens export` wrote, sealed or in clear: then JSON lines {"DeviceToken", "InstanceId",
    /// "AccessToken", "RefreshToken"}; - for standard input
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Say what would be done with each line, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Replace a stored pair even if it is newer; not for sealed exports
    #[arg(long)]
    overwrite: bool,
    /// Print the counts as JSON
    #[arg(long)]
    json: bool,
}

/// Which store, and whether it is changed.
enum Target<'a> {
    /// It is written.
    Store(&'a OpenStore),
    /// It is only decided. `None`: there is no store yet.
    DryRun(Option<&'a StoreView>),
}

/// Lets pairs that are offered count as used today, those that stand already as well: `forget_unused` is to
/// spare them however long ago their users were last named.
async fn count_as_used(
    open: &OpenStore,
    offered: impl IntoIterator<Item = &Principal>,
) -> Result<(), store::Error> {
    let today = Day::of(open.store.now());
    let users = offered.into_iter().filter(|offered| offered.is_user());
    let named = users.map(|user| (user.clone(), today)).collect();
    open.store.mark_used(named).await.map(drop)
}

/// Why the import ends before its lines do.
enum Ended {
    /// A signal; what is done stays done.
    Interrupted,
    /// The file cannot be read any further.
    Unreadable(io::Error),
    /// A sealed export of which a part is missing; a sentence says which.
    NotWhole(String),
    /// The store fails, for this line as for all others.
    Store(store::Error),
}

/// Imports every line of the file, or says what would become of it.
pub(super) async fn import(
    settings: &Settings,
    arguments: &Arguments,
) -> Result<ExitCode, Failure> {
    let source = Source::open(&arguments.from)?;
    let size = source.size;
    let is_interrupted = Cell::new(false);
    let lines = source.lines(LONGEST)?.take_until(async {
        interrupted().await;
        is_interrupted.set(true);
    });
    let mut lines = pin!(lines.peekable());
    // Which form it is decides whether the store is opened at all.
    let header = match lines.as_mut().peek().await {
        Some(line) => line.text.as_deref().ok().and_then(Header::read),
        None => None,
    };
    let ring = match &header {
        Some(header) => match sealed::check(header, settings, arguments)? {
            Checked::Good(ring) => ring,
            Checked::Refused(code) => return Ok(code),
        },
        None => None,
    };
    let (open, view) = match arguments.dry_run {
        true => (None, view(&settings.store).await?),
        false => (Some(open_store(&settings.store).await?), None),
    };
    let target = match &open {
        Some(open) => Target::Store(open),
        None => Target::DryRun(view.as_ref()),
    };
    let total = match (&header, size) {
        (Some(header), _) => Total::Entries(header.entries),
        (None, Some(size)) => Total::Bytes(size),
        (None, None) => Total::Unknown,
    };
    let mut report = Report::new(arguments, total);
    let ended = match header {
        Some(_) => sealed::import(lines.skip(1), &target, ring.as_ref(), &mut report).await?,
        None => clear::import(lines, target, settings, &mut report).await?,
    };
    let ended = match is_interrupted.get() {
        true => Some(Ended::Interrupted),
        false => ended,
    };
    conclude(report, ended, arguments)
}

/// The last line, and the exit code: that of the import, whether or not somebody reads the line.
fn conclude(
    report: Report<'_>,
    ended: Option<Ended>,
    arguments: &Arguments,
) -> Result<ExitCode, Failure> {
    let is_good = report.is_good();
    let printed = report.finish();
    // A reader that went away changes nothing about what was imported.
    if let Err(Failure::Output(error)) = &printed
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return printed.map(|()| ExitCode::SUCCESS);
    }
    match ended {
        Some(Ended::Store(error)) => return Err(error.into()),
        Some(Ended::Unreadable(error)) => return Err(unreadable(&arguments.from, error)),
        Some(Ended::Interrupted) => {
            say("interrupted: what was imported stays; import the same file again for the rest");
            return Ok(ExitCode::from(exit::INTERRUPTED));
        }
        Some(Ended::NotWhole(why)) => {
            say(&format!("the export is not whole: {why}"));
            return Ok(ExitCode::from(exit::INPUT));
        }
        None if !is_good => return Ok(ExitCode::from(exit::INPUT)),
        None => {}
    }
    printed.map(|()| ExitCode::SUCCESS)
}

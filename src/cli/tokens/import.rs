//! `tokens import`: adopts pairs that were issued elsewhere, without a login. A stored pair that is
//! newer is kept, so an import that runs again, or late, costs no login.

mod adopt;
mod offer;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use futures_util::stream::{self, Stream, StreamExt};
use serde::Serialize;
use tokio::sync::mpsc;

use self::adopt::{Adopter, Decision, NotAdopted, Target};
use self::offer::{Offer, UnusableLine};
use crate::cli::opening::{open_store, view};
use crate::cli::{Failure, exit, interrupted, print, say};
use crate::clock::Clock;
use crate::config::Settings;
use crate::store;

/// Lines imported at once: they share the store's group commits.
const CONCURRENT: usize = 256;

/// What to import, and how.
#[derive(Debug, Args)]
pub struct Arguments {
    /// JSON lines {"DeviceToken", "InstanceId", "AccessToken", "RefreshToken"}, as `tokens export`
    /// writes them; - for standard input
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Say what would be done with each line, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Replace a stored pair even if it is newer
    #[arg(long)]
    overwrite: bool,
    /// Print the counts as JSON
    #[arg(long)]
    json: bool,
}

/// What became of the lines.
#[derive(Debug, Default, Serialize)]
struct Counts {
    imported: u64,
    kept_newer: u64,
    without_refresh_token: u64,
    failed: u64,
}

/// Why the import ends before its lines do.
enum Ended {
    /// A signal; what is done stays done.
    Interrupted,
    /// The file cannot be read any further.
    Unreadable(io::Error),
    /// The store fails, for this line as for all others.
    Store(store::Error),
}

/// Imports every line of the file, or says what would become of it.
pub(super) async fn import(
    settings: &Settings,
    arguments: &Arguments,
) -> Result<ExitCode, Failure> {
    if arguments.dry_run {
        let view = view(&settings.store).await?;
        return import_into(Target::DryRun(view.as_ref()), settings, arguments).await;
    }
    let open = open_store(&settings.store).await?;
    import_into(Target::Store(&open), settings, arguments).await
}

async fn import_into(
    into: Target<'_>,
    settings: &Settings,
    arguments: &Arguments,
) -> Result<ExitCode, Failure> {
    let adopter = Adopter {
        into,
        overwrite: arguments.overwrite,
    };
    let now = Clock::from_environment().wall();
    let is_interrupted = Cell::new(false);
    let lines = lines(&arguments.from)?.take_until(async {
        interrupted().await;
        is_interrupted.set(true);
    });
    let adopter = &adopter;
    let outcomes = lines.map(|(number, line)| async move {
        let offer = match line {
            Ok(line) => offer::read(&line, &settings.directory, now),
            // `BufRead::lines` goes on after a line that is not UTF-8, and only then.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(UnusableLine::Bad("not UTF-8".to_owned()))
            }
            Err(error) => return Err(Ended::Unreadable(error)),
        };
        Ok((number, outcome(adopter, offer).await?))
    });
    let mut outcomes = std::pin::pin!(outcomes.buffer_unordered(CONCURRENT));
    let mut counts = Counts::default();
    let mut ended = None;
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok((number, outcome)) => {
                if let Some(told) = outcome.counted(&mut counts, arguments.dry_run) {
                    match (arguments.dry_run, arguments.json) {
                        (true, true) => {
                            let told = serde_json::json!({ "line": number, "outcome": told });
                            print(&told.to_string())?;
                        }
                        (true, false) => print(&format!("line {number}: {told}"))?,
                        (false, _) => say(&format!("line {number}: {told}")),
                    }
                }
            }
            Err(why) => {
                ended = Some(why);
                break;
            }
        }
    }
    if is_interrupted.get() {
        ended = Some(Ended::Interrupted);
    }
    conclude(&counts, ended, arguments)
}

/// The last line, and the exit code: that of the import, whether or not somebody reads the line.
fn conclude(
    counts: &Counts,
    ended: Option<Ended>,
    arguments: &Arguments,
) -> Result<ExitCode, Failure> {
    let printed = match arguments.json {
        true => print(&serde_json::to_string(counts).expect("numbers always serialise")),
        false => {
            let Counts {
                imported,
                kept_newer,
                without_refresh_token,
                failed,
            } = counts;
            let would_be = if arguments.dry_run { "would be " } else { "" };
            print(&format!(
                "{would_be}imported {imported}, kept newer {kept_newer}, without RefreshToken \
                 {without_refresh_token}, failed {failed}"
            ))
        }
    };
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
        None if counts.failed + counts.without_refresh_token > 0 => {
            return Ok(ExitCode::from(exit::INPUT));
        }
        None => {}
    }
    printed.map(|()| ExitCode::SUCCESS)
}

/// What became of one line.
enum Outcome {
    Decided(Offer, Decision),
    Unusable(UnusableLine),
}

async fn outcome(
    adopter: &Adopter<'_>,
    offer: Result<Offer, UnusableLine>,
) -> Result<Outcome, Ended> {
    let offer = match offer {
        Ok(offer) => offer,
        Err(unusable) => return Ok(Outcome::Unusable(unusable)),
    };
    match adopter.adopt(&offer).await {
        Ok(decision) => Ok(Outcome::Decided(offer, decision)),
        Err(NotAdopted::Line(why)) => Ok(Outcome::Unusable(UnusableLine::Bad(why))),
        Err(NotAdopted::Store(error)) => Err(Ended::Store(error)),
    }
}

impl Outcome {
    /// Counts it. Returns what is to be said of it: nothing of what went as usual, unless it is only
    /// tried.
    fn counted(&self, counts: &mut Counts, dry_run: bool) -> Option<String> {
        let (count, told, is_usual) = match self {
            Outcome::Decided(offer, Decision::Import) => (
                &mut counts.imported,
                format!("{} would be imported", offer.principal),
                true,
            ),
            Outcome::Decided(offer, Decision::Keep(why)) => (
                &mut counts.kept_newer,
                format!("the stored pair of {} stays: {why}", offer.principal),
                why.is_usual(),
            ),
            Outcome::Unusable(UnusableLine::WithoutRefreshToken) => (
                &mut counts.without_refresh_token,
                "RefreshToken is missing: without it the user would still cost a login".to_owned(),
                false,
            ),
            Outcome::Unusable(UnusableLine::Bad(why)) => (&mut counts.failed, why.clone(), false),
        };
        *count += 1;
        (dry_run || !is_usual).then_some(told)
    }
}

/// The numbered lines of a file that are not empty. A thread reads them: a pipe may keep it waiting
/// for ever, and that must not keep an interrupt waiting.
fn lines(from: &Path) -> Result<impl Stream<Item = (usize, io::Result<String>)> + use<>, Failure> {
    let reader: Box<dyn BufRead + Send> = match from.as_os_str() == "-" {
        true => Box::new(BufReader::new(io::stdin())),
        false => {
            let file = File::open(from).map_err(|error| unreadable(from, error))?;
            Box::new(BufReader::new(file))
        }
    };
    let (sender, mut receiver) = mpsc::channel(CONCURRENT);
    let read = move || {
        for (index, line) in reader.lines().enumerate() {
            let is_empty = line.as_ref().is_ok_and(|line| line.trim().is_empty());
            // An import that ended early reads no further.
            if !is_empty && sender.blocking_send((index + 1, line)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("import-lines".into())
        .spawn(read)
        .map_err(Failure::other)?;
    Ok(stream::poll_fn(move |context| receiver.poll_recv(context)))
}

fn unreadable(from: &Path, error: io::Error) -> Failure {
    Failure::other(anyhow::Error::new(error).context(format!("cannot read {}", from.display())))
}

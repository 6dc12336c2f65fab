//! `tokens verify`: refreshes some of the stored pairs, picked at random, to find out whether they
//! are good, as after an import. It never logs anybody in.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde::Serialize;

use crate::cli::opening::OpenStore;
use crate::cli::progress::{Progress, Shown, Total};
use crate::cli::wiring::{finish, renewer};
use crate::cli::{Failure, exit, interrupted, print, say};
use crate::config::Settings;
use crate::credentials::{MayLogIn, OnDemand, Renewer, Stored};
use crate::principal::Principal;
use crate::store::{Listed, Store};

/// Entries read at once.
const PAGE: usize = 1000;
/// Rejections in a row that end the command; also the refreshes at once, so that there are no more. One
/// more would make the guard of every proxy on this store take it for a failure of the API.
const MOST_REJECTED: usize = 4;

/// What to verify.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Refresh this many pairs, picked at random
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    sample: u32,
    /// Print the counts as JSON
    #[arg(long)]
    json: bool,
}

/// The pairs of a store, and those to be tried.
#[derive(Default)]
struct Sample {
    picked: Vec<Principal>,
    refreshable: u64,
    known_dead: u64,
    without_refresh_token: u64,
    unopened: u64,
}

/// What became of the sample.
#[derive(Debug, Default, Serialize)]
struct Counts {
    refreshed: u64,
    rejected: u64,
    failed: u64,
    not_tried: u64,
}

/// Refreshes a sample.
pub(super) async fn verify(
    open: OpenStore,
    settings: Settings,
    arguments: &Arguments,
) -> Result<ExitCode, Failure> {
    let renewer = renewer(open, settings)?;
    let mut sample = pick(&renewer, renewer.store(), arguments.sample as usize).await?;
    if sample.picked.is_empty() {
        say(&sample.nothing_to_verify());
        return Ok(ExitCode::FAILURE);
    }
    let picked = std::mem::take(&mut sample.picked);
    let tried = picked.len();
    let progress = Progress::new("tried", Total::Entries(tried as u64), Shown::AsBar);
    let (counts, is_interrupted) = refresh(&renewer, picked, &progress).await;
    drop(progress);
    finish(&renewer).await;
    let summary = match arguments.json {
        true => serde_json::to_string(&counts).expect("numbers always serialise"),
        false => sample.summary(tried, &counts),
    };
    let printed = print(&summary);
    if is_interrupted {
        return Ok(ExitCode::from(exit::INTERRUPTED));
    }
    if counts.rejected + counts.failed > 0 {
        return Ok(ExitCode::FAILURE);
    }
    printed.map(|()| ExitCode::SUCCESS)
}

impl Sample {
    fn nothing_to_verify(&self) -> String {
        let Sample {
            known_dead,
            without_refresh_token,
            unopened,
            ..
        } = self;
        format!(
            "error: there is nothing to verify: of the stored pairs, {known_dead} are known to be \
             dead, {without_refresh_token} have no RefreshToken, {unopened} cannot be opened"
        )
    }

    /// What became of the `tried` pairs, and which others could not be picked.
    fn summary(&self, tried: usize, counts: &Counts) -> String {
        let Counts {
            refreshed,
            rejected,
            failed,
            not_tried,
        } = counts;
        let mut text = format!(
            "refreshed {refreshed}, rejected {rejected}, failed {failed}, not tried {not_tried}; \
             {tried} picked of {}",
            self.refreshable
        );
        for (count, are) in [
            (self.known_dead, "known dead"),
            (self.without_refresh_token, "without RefreshToken"),
            (self.unopened, "not to be opened"),
        ] {
            if count > 0 {
                write!(text, ", {count} more are {are}").expect("a String takes everything");
            }
        }
        text
    }
}

/// Picks from all refreshable pairs, each with the same chance, without keeping them all in memory.
async fn pick(renewer: &Renewer, store: &dyn Store, most: usize) -> Result<Sample, Failure> {
    let mut sample = Sample::default();
    let total = Total::Entries(store.count().await?);
    let progress = Progress::new("looked at", total, Shown::AsBar);
    let mut after = None;
    loop {
        let page = store.list(Listed::Known, after.as_ref(), PAGE).await?;
        for (principal, entry) in &page.entries {
            match renewer.stored(principal, entry) {
                Stored::Absent => {}
                Stored::Dead => sample.known_dead += 1,
                Stored::WithoutRefreshToken => sample.without_refresh_token += 1,
                Stored::KeyMissing(_) | Stored::Damaged => sample.unopened += 1,
                Stored::Refreshable => {
                    sample.refreshable += 1;
                    if sample.picked.len() < most {
                        sample.picked.push(principal.clone());
                        continue;
                    }
                    let place = fastrand::u64(0..sample.refreshable);
                    if let Some(place) = usize::try_from(place).ok().filter(|at| *at < most) {
                        sample.picked[place] = principal.clone();
                    }
                }
            }
        }
        progress.advance(page.entries.len() as u64, 0);
        after = page.next;
        if after.is_none() {
            return Ok(sample);
        }
    }
}

/// Refreshes them all, until too many in a row are rejected or a signal comes; what is under way then
/// goes on to its end. Whether a signal came.
async fn refresh(
    renewer: &Renewer,
    mut picked: Vec<Principal>,
    progress: &Progress,
) -> (Counts, bool) {
    let mut counts = Counts::default();
    let mut rejected_in_a_row = 0;
    let mut is_interrupted = false;
    let mut under_way = FuturesUnordered::new();
    let mut signal = std::pin::pin!(interrupted());
    loop {
        let may_start = MOST_REJECTED.saturating_sub(rejected_in_a_row);
        while !is_interrupted
            && under_way.len() < may_start
            && let Some(principal) = picked.pop()
        {
            under_way.push(async move {
                let renewed = renewer.renew(&principal, MayLogIn::No).await;
                (principal, renewed)
            });
        }
        let (principal, renewed) = tokio::select! {
            () = &mut signal, if !is_interrupted => {
                is_interrupted = true;
                continue;
            }
            renewed = under_way.next() => match renewed {
                Some(renewed) => renewed,
                None => break,
            },
        };
        progress.advance(1, 0);
        match renewed {
            Ok(OnDemand::Refreshed | OnDemand::LoggedIn) => {
                counts.refreshed += 1;
                rejected_in_a_row = 0;
            }
            Ok(OnDemand::NeedsLogin) => {
                counts.rejected += 1;
                rejected_in_a_row += 1;
                progress.say(&format!("{principal}: the API rejects its RefreshToken"));
            }
            Ok(OnDemand::Busy) => {
                counts.not_tried += 1;
                progress.say(&format!("{principal}: a running proxy is renewing it now"));
            }
            Err(error) => {
                counts.failed += 1;
                progress.say(&format!("{principal}: {error}"));
            }
        }
    }
    if rejected_in_a_row >= MOST_REJECTED && !picked.is_empty() {
        progress.say(&format!(
            "{MOST_REJECTED} in a row are rejected: the rest is not tried. Each costs a login at its \
             next request"
        ));
    }
    counts.not_tried += picked.len() as u64;
    (counts, is_interrupted)
}

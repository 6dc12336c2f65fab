//! The import of pairs in clear, each for itself, under a lease.

use std::io;
use std::pin::pin;

use futures_util::stream::{Stream, StreamExt};

use super::adopt::{Adopter, Decision, NotAdopted};
use super::offer::{self, Offer, UnusableLine};
use super::report::{Count, Report};
use super::{Ended, Target};
use crate::cli::Failure;
use crate::cli::lines::InputLine;
use crate::clock::Clock;
use crate::config::Settings;

/// Lines imported at once: they share the store's group commits.
const CONCURRENT: usize = 256;

/// What became of one line.
enum Outcome {
    Decided(Offer, Decision),
    Unusable(UnusableLine),
}

/// Imports these lines. Returns why it ended before they did.
pub(super) async fn import(
    lines: impl Stream<Item = InputLine>,
    into: Target<'_>,
    settings: &Settings,
    report: &mut Report<'_>,
) -> Result<Option<Ended>, Failure> {
    let now = match &into {
        Target::Store(open) => open.store.now(),
        Target::DryRun(Some(view)) => view.store.now(),
        Target::DryRun(None) => Clock::from_environment().wall(),
    };
    let adopter = &Adopter {
        into,
        overwrite: report.arguments().overwrite,
    };
    let outcomes = lines.map(|line| async move {
        let offer = match line.text {
            Ok(text) => offer::read(&text, &settings.directory, now),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(UnusableLine::Bad(error.to_string()))
            }
            Err(error) => return Err(Ended::Unreadable(error)),
        };
        Ok((line.number, line.bytes, outcome(adopter, offer).await?))
    });
    let mut outcomes = pin!(outcomes.buffer_unordered(CONCURRENT));
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok((number, bytes, outcome)) => {
                let (count, told, usual) = outcome.told();
                report.count(count);
                report.tell(number, &told, usual)?;
                report.advance(1, bytes);
            }
            Err(why) => return Ok(Some(why)),
        }
    }
    Ok(None)
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
    /// How it counts, in words, and whether it is as usual.
    fn told(&self) -> (Count, String, bool) {
        match self {
            Outcome::Decided(offer, Decision::Import) => (
                Count::Imported,
                format!("{} would be imported", offer.principal),
                true,
            ),
            Outcome::Decided(offer, Decision::Keep(why)) => (
                Count::KeptNewer,
                format!("the stored pair of {} stays: {why}", offer.principal),
                why.is_usual(),
            ),
            Outcome::Unusable(UnusableLine::WithoutRefreshToken) => (
                Count::WithoutRefreshToken,
                "RefreshToken is missing: without it the user would still cost a login".to_owned(),
                false,
            ),
            Outcome::Unusable(UnusableLine::Bad(why)) => (Count::Failed, why.clone(), false),
        }
    }
}

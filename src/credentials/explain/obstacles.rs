//! What stands in the way of a login of one principal, as far as the store tells.

use std::time::Duration;

use serde::Serialize;

use super::{Inquiry, as_seconds};
use crate::credentials;
use crate::credentials::guards::shared::SharedMoment;
use crate::credentials::guards::{breaker, contested, mass_rejection, remembered};
use crate::credentials::renewal::identity::{Identity, class};
use crate::principal::Principal;
use crate::store::{Class, Error, Guard};

/// Why a login of a principal would not happen now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// No instance is configured that it could log in with.
    InstanceUnknown,
    /// The instance that it is known under is configured no longer.
    InstanceGone,
    /// No account of this name is configured.
    AccountUnknown,
    /// Damoov rejected the login with the configured key or password.
    Rejected {
        /// Until it is tried again.
        #[serde(rename = "left_seconds", serialize_with = "as_seconds")]
        left: Duration,
    },
    /// Damoov rejected the logins of several users with the same key, one after the other.
    KeyRejected {
        /// Until one of its class is tried again.
        #[serde(rename = "left_seconds", serialize_with = "as_seconds")]
        left: Duration,
    },
    /// Another program logs it in, too.
    Contested {
        /// Until the next login of this proxy.
        #[serde(rename = "left_seconds", serialize_with = "as_seconds")]
        left: Duration,
    },
    /// Damoov rejects the RefreshTokens of many: principals that hold a pair wait.
    Suspended,
    /// Damoov answered a login with 429.
    Blocked {
        /// Until the block ends.
        #[serde(rename = "left_seconds", serialize_with = "as_seconds")]
        left: Duration,
    },
    /// Every slot of the budget is taken.
    OutOfBudget {
        /// Until the next one for a principal of its class.
        #[serde(rename = "left_seconds", serialize_with = "as_seconds")]
        left: Duration,
    },
}

impl Obstacle {
    /// Whether a request that waits for as long as `wait` outlasts it: it waits for a slot of the budget,
    /// and for nothing else.
    pub(super) fn is_over_within(&self, wait: Duration) -> bool {
        matches!(self, Obstacle::OutOfBudget { left } if *left <= wait)
    }
}

/// Everything that stands in the way of a login. `guard` reads one of the store's guards by its name.
pub(super) async fn of<F: Future<Output = Result<Guard, Error>>>(
    inquiry: &Inquiry<'_>,
    guard: impl Fn(String) -> F,
) -> Result<Vec<Obstacle>, Error> {
    let Inquiry {
        settings,
        directory,
        ring,
        principal,
        entry,
        budget,
        now,
        ..
    } = *inquiry;
    let class = class(principal, entry);
    let mut obstacles = Vec::new();
    match Identity::of(directory, ring, principal, None, entry) {
        Err(error) => obstacles.push(match (principal, error) {
            (Principal::Account(_), _) => Obstacle::AccountUnknown,
            (Principal::User(_), credentials::Error::InstanceGone) => Obstacle::InstanceGone,
            (Principal::User(_), _) => Obstacle::InstanceUnknown,
        }),
        Ok(Identity { key, .. }) => {
            let (with, every) = (key.fingerprint, settings.remember_rejected);
            if let Some(left) = remembered::rejected_for(&entry.notes, with, now.wall, every) {
                obstacles.push(Obstacle::Rejected { left });
            }
            let breaker = guard(breaker::row(with)).await?;
            if let Some(left) = breaker::holds(&breaker, class, &SharedMoment::at(now), every) {
                obstacles.push(Obstacle::KeyRejected { left });
            }
        }
    }
    if let Some(left) = contested::left(entry, now.wall, settings.contested_backoff) {
        obstacles.push(Obstacle::Contested { left });
    }
    let suspension = guard(mass_rejection::ROW.to_owned()).await?;
    if entry.record.is_some() && mass_rejection::suspends(&suspension) {
        obstacles.push(Obstacle::Suspended);
    }
    let next = match class {
        Class::Known => budget.next_known,
        Class::New => budget.next_new,
    };
    match (budget.blocked, next) {
        (Duration::ZERO, Duration::ZERO) => {}
        (Duration::ZERO, left) => obstacles.push(Obstacle::OutOfBudget { left }),
        (left, _) => obstacles.push(Obstacle::Blocked { left }),
    }
    Ok(obstacles)
}

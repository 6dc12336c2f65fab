//! What is going to happen: what the next request of a principal does and costs, and what a 401 to it then
//! does. As the engine would decide it now.

use std::time::Duration;

use serde::Serialize;

use super::{Ages, Inquiry, Obstacle, Stored};
use crate::credentials::guards::remembered::holds;
use crate::credentials::vault::cache::SUPPRESSED_FOR;

/// What the next request of a principal does, unless the API rejects its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NextRequest {
    /// It goes out with the stored JWT and costs nothing.
    Served,
    /// It waits for a refresh, which is free.
    Refreshes,
    /// It waits for a login, which costs a slot of the budget and ends the tokens before it.
    LogsIn,
    /// It is refused: the key of the pair is missing, or an obstacle stands in the way of its login.
    Refused,
}

/// What a 401 to the next request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum After401 {
    /// There is none: the request is not sent.
    NotSent,
    /// It is the answer: the newest token got a 401 as well, so that expiry is not the cause.
    PassedOn {
        /// Until a 401 renews again.
        #[serde(rename = "left_seconds", serialize_with = "super::as_seconds")]
        left: Duration,
    },
    /// A refresh, which is free; then the request is sent again.
    Refreshes,
    /// A login, which costs a slot of the budget; then the request is sent again.
    LogsIn,
    /// An error is the answer: only a login would help, and an obstacle stands in its way.
    Refused,
}

impl NextRequest {
    /// `wait`: for how long a request waits for a slot of the budget.
    pub(super) fn of(
        stored: Stored,
        ages: Option<Ages>,
        obstacles: &[Obstacle],
        wait: Duration,
    ) -> NextRequest {
        let is_unexpired = ages.is_some_and(|ages| !ages.left.is_zero());
        match stored {
            Stored::KeyMissing(_) => NextRequest::Refused,
            Stored::WithoutRefreshToken | Stored::Dead | Stored::Refreshable if is_unexpired => {
                NextRequest::Served
            }
            Stored::Refreshable => NextRequest::Refreshes,
            _ if may_log_in(obstacles, wait) => NextRequest::LogsIn,
            _ => NextRequest::Refused,
        }
    }
}

impl After401 {
    pub(super) fn of(
        inquiry: &Inquiry<'_>,
        next: NextRequest,
        stored: Stored,
        obstacles: &[Obstacle],
    ) -> After401 {
        if next == NextRequest::Refused {
            return After401::NotSent;
        }
        let suppressed_until = inquiry.entry.notes.suppressed_until;
        let left = suppressed_until.map(|until| until.since(inquiry.now.wall));
        if let Some(left) = left.filter(|left| holds(*left, SUPPRESSED_FOR)) {
            return After401::PassedOn { left };
        }
        match next {
            // A new pair has a RefreshToken.
            NextRequest::Refreshes | NextRequest::LogsIn => After401::Refreshes,
            _ if stored == Stored::Refreshable => After401::Refreshes,
            _ if may_log_in(obstacles, inquiry.settings.wait) => After401::LogsIn,
            _ => After401::Refused,
        }
    }
}

/// Whether a request that waits for as long as `wait` outlasts all that stands in the way of its login.
fn may_log_in(obstacles: &[Obstacle], wait: Duration) -> bool {
    obstacles.iter().all(|one| one.is_over_within(wait))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn the_next_request_follows_from_the_pair_its_age_and_the_obstacles() {
        let expired = Ages {
            received: Timestamp::from_millis(0),
            expires: Timestamp::from_millis(1),
            age: Duration::from_secs(9),
            left: Duration::ZERO,
            overdue: Duration::from_secs(8),
        };
        let soon = [Obstacle::OutOfBudget {
            left: Duration::from_secs(5),
        }];
        let late = [Obstacle::OutOfBudget {
            left: Duration::from_secs(50),
        }];
        for (stored, obstacles, next) in [
            (Stored::Refreshable, &late[..], NextRequest::Refreshes),
            (Stored::Dead, &[], NextRequest::LogsIn),
            (Stored::Dead, &soon, NextRequest::LogsIn),
            (Stored::Dead, &late, NextRequest::Refused),
            (
                Stored::Damaged,
                &[Obstacle::Suspended],
                NextRequest::Refused,
            ),
        ] {
            let wait = Duration::from_secs(20);
            let said = NextRequest::of(stored, Some(expired), obstacles, wait);
            assert_eq!(said, next, "{stored:?} {obstacles:?}");
        }
    }
}

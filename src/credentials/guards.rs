//! What holds a login back, or a call to the Auth endpoints. Knows nothing of how a pair is renewed.
//!
//! A login is scarce and ends the tokens of the login before it. Each guard stands for one way in which
//! logins would be wasted:
//!
//! | guard | holds back | for |
//! | --- | --- | --- |
//! | [`budget`] | any login | as long as the API's limit on logins, or its block after a 429, says |
//! | [`mass_rejection`] | logins of principals that hold a pair | as long as the API rejects the RefreshTokens of many: it is broken, not they |
//! | [`breaker`] | logins with one key | some minutes, after several in a row were rejected: the key is wrong |
//! | [`contested`] | logins of one principal | `contested_backoff`: something else logs it in, too |
//! | [`remembered`] | logins of one principal | `remember_rejected`: the API rejected its login |
//! | [`backoff`] | calls of one principal, or of all | seconds, after calls failed |
//! | [`pace`] | renewals that no request waits for | a turn each: they start evenly, in all processes together |
//! | [`password_limit`] | comparisons with a password | a second each, after wrong ones |

pub(crate) mod backoff;
pub(crate) mod breaker;
pub(crate) mod budget;
pub(crate) mod contested;
mod line;
pub(crate) mod mass_rejection;
pub(crate) mod pace;
pub(crate) mod password_limit;
mod queue;
pub(crate) mod remembered;
pub(crate) mod seeker;
pub(crate) mod shared;

use std::sync::Arc;

use crate::clock::Clock;
use crate::credentials::closing::ClosingWatch;
use crate::credentials::settings::Current;
use crate::metrics::Metrics;
use crate::store::Store;
use backoff::Backoff;
use backoff::own::{self, OwnBackoff};
use breaker::Breakers;
use budget::Budget;
use contested::Contested;
use mass_rejection::MassRejection;
use pace::Pace;
use password_limit::PasswordLimit;

/// All guards of a process.
pub(crate) struct Guards {
    /// All processes on one store share the slots; each has its own line.
    pub(crate) budget: Budget,
    pub(crate) pace: Pace,
    /// Patience with the host of the Auth endpoints.
    pub(crate) backoff: Backoff,
    /// Patience with each principal's refreshes.
    pub(crate) refresh_backoff: OwnBackoff,
    /// Patience with each principal's logins, which cost more.
    pub(crate) login_backoff: OwnBackoff,
    /// All processes on one store share its state; which principals wait is known to each alone.
    pub(crate) mass_rejection: MassRejection,
    /// Shared by all processes on one store.
    pub(crate) breakers: Breakers,
    /// What holds a contested principal back is a note in the store; this counts them, for the metric.
    pub(crate) contested: Contested,
    pub(crate) password_limit: PasswordLimit,
}

impl Guards {
    pub(crate) fn new(
        current: &Current,
        store: &Arc<dyn Store>,
        closing: ClosingWatch,
        clock: Clock,
        metrics: &Arc<Metrics>,
    ) -> Guards {
        Guards {
            budget: Budget::new(
                current.clone(),
                store.clone(),
                closing,
                clock,
                metrics.clone(),
            ),
            pace: Pace::new(current.clone(), processes_on(store), clock),
            backoff: Backoff::new(clock),
            refresh_backoff: OwnBackoff::new(own::REFRESH, clock),
            login_backoff: OwnBackoff::new(own::LOGIN, clock),
            mass_rejection: MassRejection::new(store.clone(), clock, metrics.clone()),
            breakers: Breakers::new(current.clone(), store.clone(), clock),
            contested: Contested::new(current.clone(), store.clone(), clock),
            password_limit: PasswordLimit::new(clock),
        }
    }
}

/// How many processes share the store now.
fn processes_on(store: &Arc<dyn Store>) -> impl Fn() -> u32 + Send + Sync + 'static {
    let store = store.clone();
    move || store.condition().processes
}

//! The life of tokens: which are in memory, when they are renewed, what a login may cost. The
//! path asks [`Provider`] for credentials and reports rejected ones; it learns nothing of how they
//! are obtained. Nothing here sees a request or a response.
//!
//! `vault` is what is kept, `guards` what holds a login back, `renewal` how a pair is renewed; `engine`
//! holds the three. The files beside them are the face: what the path, the callers' logins and the
//! command line ask for.

mod adoption;
mod closing;
mod engine;
mod explain;
mod explained;
#[cfg(test)]
mod fixture;
mod following;
mod guards;
mod handed_out;
mod login_slot;
mod looking;
mod on_demand;
mod password;
mod provider;
mod rejection;
mod renewal;
mod settings;
mod vault;

pub use adoption::Expected;
pub use engine::Parts;
pub use explain::{
    After401, Ages, Explanation, Inquiry, LastRenewal, NextRequest, Obstacle, RenewalOutcome,
    Renewing, Stored, explain,
};
pub use login_slot::{LoginSlot, SlotEnd};
pub use on_demand::{MayLogIn, OnDemand, Renewer};
pub use password::{Login, PasswordError};
pub use provider::{Background, Obtained, Provider};
pub use settings::{LEASE, Settings};
pub use vault::credentials::Credentials;
pub use vault::pair::Pair;
pub use vault::{canary, key_file, seal};

use std::sync::Arc;
use std::time::Duration;

/// How good credentials must be to be handed out at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Unexpired will do; a stale token starts a renewal in the background.
    Usable,
    /// Stale is not enough: this request cannot be replayed.
    Fresh,
}

/// Why there are no credentials. Shared by all callers that waited. `retry_after` is real time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A login has no instance: the one that was named is not configured, or none was named and there is
    /// no default.
    #[error("name a configured InstanceId; there is no default one")]
    InstanceUnknown,
    /// The instance that the principal's pair is of is configured no longer.
    #[error(
        "the instance of this user is configured no longer: put it back into the configuration, and \
         its tokens are used again"
    )]
    InstanceGone,
    /// The named account is not configured, or none is named and there is no default.
    #[error("name a configured account; there is no default one")]
    AccountUnknown,
    /// The principal is known under another instance than the caller named.
    #[error("this DeviceToken is known under another InstanceId; name that one, or none")]
    InstanceMismatch,
    /// Damoov does not accept this login. Remembered for a while.
    #[error("Damoov accepts no login with this DeviceToken and InstanceKey; check both")]
    LoginRejected,
    /// No login slot comes in time.
    #[error("the login budget is used up; try again after Retry-After")]
    BudgetExhausted {
        /// When the next slot of this principal's class comes.
        retry_after: Duration,
    },
    /// Damoov blocks logins.
    #[error("Damoov blocks logins from this address; try again after Retry-After")]
    LoginBlocked {
        /// When the block ends.
        retry_after: Duration,
    },
    /// Another program keeps logging this principal in.
    #[error("another program logs this user in as well; stop it, or try again after Retry-After")]
    Contested {
        /// When this principal may log in again.
        retry_after: Duration,
    },
    /// Damoov rejects many RefreshTokens at once; principals that hold one wait.
    #[error("Damoov rejects the RefreshTokens of many users; try again after Retry-After")]
    Suspended {
        /// When it has been tried again whether the API works.
        retry_after: Duration,
    },
    /// The store cannot be used for a renewal.
    #[error("the token store cannot be used now; /readyz says why")]
    StoreUnavailable(#[from] crate::store::Error),
    /// The Auth endpoints cannot be reached, or answer 5xx. Why, in a sentence for callers.
    #[error("Damoov's Auth endpoints cannot be reached: {0}; try again later")]
    Unreachable(Arc<str>),
    /// The Auth endpoints answer what cannot be understood.
    #[error("the answer of Damoov's Auth endpoints cannot be used; try again later")]
    BadResponse,
    /// The Auth endpoints do not answer in time.
    #[error("Damoov's Auth endpoints did not answer in time; try again later")]
    Timeout,
    /// The request's own wait ended; the renewal goes on.
    #[error("the token was not renewed in time; the renewal goes on, so try again")]
    WaitedTooLong,
    /// The process is shutting down.
    #[error("shutting down")]
    Closing,
}

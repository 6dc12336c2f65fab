//! The life of tokens: which are in memory, when they are renewed, what a login may cost. The
//! path asks [`Provider`] for credentials and reports rejected ones; it learns nothing of how they
//! come about. Nothing here sees a request or a response.

pub mod seal;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::principal::{InstanceId, Principal};
use crate::secret::Secret;
use crate::store::{Generation, LoginWindows};

/// What the engine is told at start. One part of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// At least one instance or account.
    pub instances: Vec<Instance>,
    /// API accounts for admin JWTs.
    pub accounts: Vec<Account>,
    /// The API's limit on logins, with a margin.
    pub budget: LoginWindows,
    /// How long a 429 without Retry-After blocks logins.
    pub blocked_for: Duration,
    /// Renew in the background after this share of a JWT's life: above 0, below 1.
    pub ahead: f64,
    /// How long a request waits for credentials.
    pub wait: Duration,
    /// The deadline of one call to the Auth endpoints.
    pub timeout: Duration,
    /// Idle pairs are renewed at this age; `None`: never.
    pub keep_refresh_tokens: Option<Duration>,
    /// The pace of renewals that a mass expiry causes; at least 1.
    pub renewals_per_second: u32,
    /// How long a rejected login is remembered.
    pub remember_rejected: Duration,
    /// One login in this time for a contested principal; zero switches the guard off.
    pub contested_backoff: Duration,
    /// Bytes of credentials kept in memory.
    pub max_cached: u64,
}

/// A configured instance.
#[derive(Clone, Debug)]
pub struct Instance {
    /// What the configuration calls it.
    pub name: Arc<str>,
    /// The InstanceId.
    pub id: InstanceId,
    /// The InstanceKey.
    pub key: Secret,
    /// Whether it is the one for users that name none; at most one is. A single instance always is.
    pub default: bool,
}

/// A configured API account.
#[derive(Clone, Debug)]
pub struct Account {
    /// What the configuration calls it.
    pub name: Arc<str>,
    /// The login.
    pub email: String,
    /// Its password.
    pub password: Secret,
    /// Whether it is the one for requests that name none; at most one is. A single account always is.
    pub default: bool,
}

/// Who a request wants credentials for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whose.
    pub principal: Principal,
    /// The instance that the caller named, if it did.
    pub instance: Option<InstanceId>,
}

/// How good credentials must be to be handed out at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Unexpired will do; a stale token starts a renewal in the background.
    Usable,
    /// Stale is not enough: this request cannot be replayed.
    Fresh,
}

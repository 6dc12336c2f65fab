//! Which path goes to which host with which kind of credential: the built-in table of interface.md
//! ("Routes") and what `[[route]]` adds to it. Pure.

use http::Method;

/// A route as configured or built in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// A prefix of whole segments; `*` matches one segment; a `$` at the end means exactly this
    /// path. Matched without regard to case.
    pub path: String,
    /// The upstream host it goes to, by its public name.
    pub host: String,
    /// What is attached.
    pub credential: Credential,
    /// Only these methods; empty: all.
    pub methods: Vec<Method>,
    /// Whether a 401 renews and replays.
    pub replay: Replay,
}

/// What a route attaches to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Credential {
    /// The user JWT of the DeviceToken that the caller names.
    User,
    /// The admin JWT of an account.
    Admin,
    /// The user's where the caller names a DeviceToken, else the account's that it names.
    UserOrAdmin,
    /// The headers InstanceId and InstanceKey; no JWT.
    Instance,
    /// The caller's own Authorization.
    Passthrough,
    /// The proxy answers itself: the Auth endpoints.
    Answer,
}

/// What happens after a 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Replay {
    /// Renew and send once more.
    On401,
    /// Renew for the next request; pass the 401 on.
    Never,
}

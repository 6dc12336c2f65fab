//! What the listeners ask of the components that run. One implementation outside of tests, in `cli`: so this
//! room knows none of them.

use std::future::Future;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;

use super::code::Code;
use crate::error::Error;
use crate::store;

/// What is asked of the renewal engine, and of what serves requests.
pub trait Engine: Send + Sync + 'static {
    /// Whether renewals can be made durable.
    fn writable(&self) -> Result<(), store::Error>;

    /// Brings those metrics up to date that are read off rather than counted.
    fn report(&self) -> impl Future<Output = ()> + Send;

    /// What stands in the way of logins.
    fn logins(&self) -> impl Future<Output = Logins> + Send;

    /// What is bad about logins and does not keep the process from serving.
    fn conditions(&self, logins: &Logins) -> Vec<(Code, String)>;

    /// Why the store is not reached, and since when.
    fn away(&self) -> Option<store::Away>;

    /// A host of the API that cannot be connected to, and since when.
    fn unreachable(&self) -> Option<(String, SystemTime)>;

    /// How many tokens there are. Cheap enough for each second.
    fn tokens(&self) -> Tokens;

    /// The hosts of the API that the routes lead to.
    fn hosts(&self) -> Vec<Host>;

    /// What may run out. Cheap enough for each second.
    fn room(&self) -> Vec<Room>;

    /// The settings in force; no secret.
    fn settings(&self) -> Value;

    /// The login budget, as the command `budget` prints it.
    fn budget(&self) -> impl Future<Output = Result<Value, Error>> + Send;

    /// At most `limit` principals of the store, those after the place `after`.
    fn principals(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> impl Future<Output = Result<Listing, Error>> + Send;

    /// All about one principal, as the command `explain` prints it; `None` if nothing is known of it.
    fn explain(&self, who: &str) -> impl Future<Output = Result<Option<Value>, Error>> + Send;

    /// Refreshes its pair now, and never logs in; `None` if nothing is known of it.
    fn renew(&self, who: &str) -> impl Future<Output = Result<Option<Renewed>, Error>> + Send;

    /// Drops its tokens. Returns whether anything was known of it.
    fn forget(&self, who: &str) -> impl Future<Output = Result<bool, Error>> + Send;
}

/// A part of the principals of a store.
#[derive(Debug, Serialize)]
pub struct Listing {
    /// Each as a line of `tokens list --json`.
    pub principals: Vec<Value>,
    /// Where the next part begins; `None` if this is the last one.
    pub next: Option<String>,
}

/// What came of a renewal.
#[derive(Debug, Serialize)]
pub struct Renewed {
    /// A stable word.
    pub outcome: &'static str,
    /// What it means.
    pub message: &'static str,
}

/// The login budget, and what else stands in the way of logins. Durations are real ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logins {
    /// The logins that the tightest window allows when none has been made; `None` if the store does not say.
    pub limit: Option<u32>,
    /// Logins that users seen before could make now; `None` if the store does not say.
    pub remaining: Option<u32>,
    /// How long until one of them may log in; zero: now.
    pub next: Duration,
    /// How long until a user never seen may log in; zero: now, or nobody has asked in vain.
    pub next_new: Duration,
    /// How long Damoov blocks logins; zero: it does not.
    pub blocked: Duration,
    /// Whether a mass rejection suspends logins of users that hold tokens.
    pub suspended: bool,
    /// Users that another program logs in as well.
    pub contested: u64,
    /// One for each window.
    pub windows: Vec<Window>,
}

/// One window of the login budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// What it allows now.
    pub logins: u32,
    /// What it spans.
    pub per: Duration,
    /// Slots that are taken.
    pub used: u32,
}

/// How many tokens there are. Those in memory by their freshness, as of a moment ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// In memory, and used as they are.
    pub fresh: usize,
    /// In memory, and renewed in the background when they are used.
    pub stale: usize,
    /// In memory, and neither: expired or rejected.
    pub expired: usize,
}

/// A host of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its public name.
    pub name: String,
    /// Open connections to it, of all workers.
    pub connections: u64,
}

/// Something that may run out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// What, in a few words.
    pub what: &'static str,
    /// How much is taken.
    pub used: u64,
    /// How much there is.
    pub limit: u64,
    /// `bytes`, or empty for a count.
    pub unit: &'static str,
}

//! The journal: what every call presented, what it was issued, and what became of the answer, in one
//! order. For tests that judge a whole history instead of counts. Kept from [`Writer::begin`] on only.

mod writer;

use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::clock::Timestamp;
use crate::principal::{DeviceToken, Principal};

use super::tokens::{Birth, Serial};
pub(super) use writer::{DataCall, Writer};

/// A journal as it stood when it was asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Journal {
    /// In order of arrival.
    pub entries: Vec<Entry>,
    /// How many older entries were given up for lack of room; a history without its beginning proves
    /// nothing.
    pub forgotten: u64,
}

/// A point of the journal. Each arrival and each end has a number of its own, so that of two points it
/// is known which came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Tick {
    /// Counts from 1.
    pub number: u64,
    /// The simulator's clock; in JSON, milliseconds since the Unix epoch.
    #[serde(serialize_with = "in_millis")]
    pub at: Timestamp,
}

/// One call, or one command to the simulator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When it arrived.
    pub arrived: Tick,
    /// When it was over, and how; `None`: it is under way.
    pub end: Option<End>,
    /// What was called.
    pub called: Called,
    /// The door that the call came through; `None`: the front, or a command.
    #[serde(serialize_with = "displayed")]
    pub door: Option<Arc<str>>,
    /// Whose it is: of a refresh and of a data call, whose access token came. `None` if that is unknown;
    /// of a command, if it concerns everybody.
    #[serde(serialize_with = "displayed")]
    pub principal: Option<Principal>,
    /// Of a data call, the user whom its `DeviceToken` header named.
    #[serde(serialize_with = "displayed")]
    pub named: Option<DeviceToken>,
    /// The pair whose RefreshToken (refresh) or access token (data call) came.
    pub presented: Option<Serial>,
    /// The pair that was issued.
    pub issued: Option<Birth>,
    /// What the simulator decided; `None`: it has not yet.
    pub verdict: Option<Verdict>,
    /// The HTTP status of the answer; `None`: there is none yet, or the connection was cut instead.
    pub status: Option<u16>,
}

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Called {
    /// `POST /v1/Auth/Login`
    Login,
    /// `POST /v1/Auth/RefreshToken`
    Refresh,
    /// `POST /v1/Registration/create`
    Registration,
    /// A data endpoint. Kept are those that were answered 401, those that named another user than the
    /// token's, and the first through a door with a token other than the one before it.
    Data,
    /// The command that issues a pair, as if another program had logged in.
    Issue,
    /// The command that lets access tokens expire.
    Expire,
    /// The command that ends RefreshTokens, or access tokens too.
    Revoke,
}

/// What the simulator decided about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A pair was issued, or the access token was accepted.
    Granted,
    /// Not accepted: a wrong key, a dead token.
    Rejected,
    /// Over the login limit.
    Limited,
    /// A fault answered; nothing was processed.
    Faulted,
}

/// How a call was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct End {
    /// When.
    pub at: Tick,
    /// What became of the answer.
    pub fate: Fate,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It was handed to the connection, whole.
    Delivered,
    /// A fault lost or spoilt it.
    Lost,
    /// The caller had hung up before it was there.
    HungUp,
}

impl Entry {
    fn new(called: Called, arrived: Tick) -> Entry {
        Entry {
            arrived,
            end: None,
            called,
            door: None,
            principal: None,
            named: None,
            presented: None,
            issued: None,
            verdict: None,
            status: None,
        }
    }
}

fn in_millis<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(at.as_millis())
}

fn displayed<T: ToString, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.serialize_some(&value.to_string()),
        None => serializer.serialize_none(),
    }
}

//! The list of all faults: their names, what each does, and how it is asked for. How they are carried
//! out is in `effect.rs`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What happens to a call. In JSON a variant is its name in snake case, `"reset"`, or an object with
/// that name and what the variant holds, `{"in_band":401}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Another answer; nothing is processed.
    Status(Status),
    /// The same with Retry-After as a date; nothing is processed.
    StatusUntil(StatusUntil),
    /// HTTP 200 with an envelope that says this `Status`; nothing is processed.
    InBand(u16),
    /// 401 before the content is read. Data calls only.
    Early(Early),
    /// The answer takes longer, by real time, not that of a scaled clock.
    Delay(Delay),
    /// The connection is reset; nothing is processed.
    Reset,
    /// The call is processed (tokens rotate), then its answer is lost.
    Lose(Lost),
    /// The call is processed (tokens rotate), then its answer is spoilt. Auth calls only.
    Garbage(Garbage),
}

/// An answer of any status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The HTTP status, 200 … 599.
    pub code: u16,
    /// The header, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// The content; `None`: the envelope of that status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// An answer that says until when to stay away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusUntil {
    /// The HTTP status, 200 … 599.
    pub code: u16,
    /// How far ahead the date is, in seconds of real time; it may lie in the past.
    pub seconds: i64,
}

impl Action {
    /// The plain answer of a status.
    pub fn status(code: u16) -> Action {
        Action::Status(Status {
            code,
            retry_after: None,
            content: None,
        })
    }
}

/// What becomes of content after an early 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Early {
    /// The connection is closed.
    Close,
    /// It is read and dropped.
    KeepReading,
}

/// How much longer an answer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delay {
    /// This many milliseconds.
    Millis(u64),
    /// Zero to this many milliseconds, evenly spread.
    UpToMillis(u64),
}

/// How an answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lost {
    /// The connection is reset before any answer byte.
    Reset,
    /// The connection is closed after half the content.
    Half,
    /// No answer ever comes.
    Hang,
}

/// How an answer that carries credentials is spoilt; HTTP 200 all the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Garbage {
    /// An HTML page.
    Html,
    /// No content.
    Empty,
    /// JSON cut in the middle, with a Content-Length that fits.
    CutJson,
    /// `"Result": null`
    ResultNull,
    /// Another `Status` in the envelope.
    OtherStatus(u16),
    /// No RefreshToken, although it has rotated.
    NoRefreshToken,
    /// 10 MB more than there should be.
    Huge,
    /// Any JSON value as `ExpiresIn`.
    ExpiresIn(Value),
    /// The JWT of another user.
    OtherUser,
}

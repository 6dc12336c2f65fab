//! Faults on demand: one list of rules, looked at once for every call. Says what goes wrong and
//! when; the endpoints carry it out.

use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::principal::{DeviceToken, Principal};

/// A rule: calls that it concerns meet its action.
///
/// Delays of all rules that concern a call add up. Of the other actions the oldest rule's applies.
/// A rule whose `times` are used up is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which calls.
    #[serde(default)]
    pub on: On,
    /// Only those of this principal; `None`: those of all, known or not.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "read_principal",
        serialize_with = "write_principal"
    )]
    pub principal: Option<Principal>,
    /// What happens to them.
    pub action: Action,
    /// How often; `None`: until cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
}

impl Fault {
    /// A rule for everybody, until cleared.
    pub fn new(on: On, action: Action) -> Fault {
        Fault {
            on,
            principal: None,
            action,
            times: None,
        }
    }

    /// The same for the next `times` calls only.
    pub fn times(self, times: u64) -> Fault {
        Fault {
            times: Some(times),
            ..self
        }
    }

    /// The same for one principal only.
    pub fn of(self, principal: Principal) -> Fault {
        Fault {
            principal: Some(principal),
            ..self
        }
    }
}

/// Which calls a rule concerns; in JSON `"login"`, `"refresh"`, `"registration"`, `"auth"`,
/// `"data"`, `"all"`, or a path prefix like `"/trips"` (without regard to case).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum On {
    /// Every call.
    #[default]
    All,
    /// `/v1/Auth/Login`.
    Login,
    /// `/v1/Auth/RefreshToken`.
    Refresh,
    /// `/v1/Registration/create`.
    Registration,
    /// These three.
    Auth,
    /// Every other call.
    Data,
    /// Calls whose path begins like this.
    Path(String),
}

const WORDS: [(&str, On); 6] = [
    ("all", On::All),
    ("login", On::Login),
    ("refresh", On::Refresh),
    ("registration", On::Registration),
    ("auth", On::Auth),
    ("data", On::Data),
];

impl TryFrom<String> for On {
    type Error = &'static str;

    fn try_from(text: String) -> Result<On, &'static str> {
        if text.starts_with('/') {
            return Ok(On::Path(text));
        }
        WORDS
            .into_iter()
            .find(|(word, _)| *word == text)
            .map(|(_, on)| on)
            .ok_or("`on` is all, login, refresh, registration, auth, data, or a path like /trips")
    }
}

impl From<On> for String {
    fn from(on: On) -> String {
        if let On::Path(prefix) = on {
            return prefix;
        }
        let word = WORDS.into_iter().find(|(_, known)| *known == on);
        word.map(|(text, _)| text.to_owned()).unwrap_or_default()
    }
}

impl On {
    /// Whether a rule for `self` concerns a call of `endpoint` ([`On::Login`], [`On::Refresh`],
    /// [`On::Registration`] or [`On::Data`]) at `path`.
    fn concerns(&self, endpoint: &On, path: &str) -> bool {
        match self {
            On::All => true,
            On::Auth => *endpoint != On::Data,
            On::Path(prefix) => path
                .get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix)),
            exactly => exactly == endpoint,
        }
    }
}

/// What happens to a call.
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
    /// No RefreshToken.
    NoRefreshToken,
    /// 10 MB more than there should be.
    Huge,
    /// Any JSON value as `ExpiresIn`.
    ExpiresIn(Value),
    /// The JWT of another user.
    OtherUser,
}

impl Garbage {
    pub(super) fn content_type(&self) -> &'static str {
        match self {
            Garbage::Html => "text/html",
            _ => "application/json",
        }
    }

    /// The content that `envelope` becomes. [`Garbage::OtherUser`] takes a token from the tables:
    /// `other_user`.
    pub(super) fn spoil(&self, mut envelope: Value, other_user: impl FnOnce() -> String) -> String {
        match self {
            Garbage::Html => return "<!doctype html><title>It works!</title>".to_owned(),
            Garbage::Empty => return String::new(),
            Garbage::CutJson => {
                let mut text = envelope.to_string();
                text.truncate(text.len() / 2);
                return text;
            }
            Garbage::ResultNull => envelope["Result"] = Value::Null,
            Garbage::OtherStatus(status) => envelope["Status"] = (*status).into(),
            Garbage::NoRefreshToken => {
                if let Some(result) = envelope["Result"].as_object_mut() {
                    result.remove("RefreshToken");
                }
            }
            Garbage::Huge => envelope["Title"] = "x".repeat(10_000_000).into(),
            Garbage::ExpiresIn(value) => {
                envelope["Result"]["AccessToken"]["ExpiresIn"] = value.clone();
            }
            Garbage::OtherUser => {
                envelope["Result"]["AccessToken"]["Token"] = other_user().into();
            }
        }
        envelope.to_string()
    }
}

/// The rules in force, oldest first.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Vec<Fault>>);

/// What the rules have in store for one call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Struck {
    pub(super) delay: Duration,
    pub(super) action: Option<Action>,
}

impl Faults {
    pub(super) fn add(&self, fault: Fault) {
        self.0.lock().expect("no holder panics").push(fault);
    }

    pub(super) fn list(&self) -> Vec<Fault> {
        self.0.lock().expect("no holder panics").clone()
    }

    pub(super) fn clear(&self) {
        self.0.lock().expect("no holder panics").clear();
    }

    /// Takes what concerns a call of `endpoint` at `path` by `principal`.
    pub(super) fn strike(
        &self,
        endpoint: &On,
        path: &str,
        principal: Option<&Principal>,
    ) -> Struck {
        let mut struck = Struck::default();
        let mut faults = self.0.lock().expect("no holder panics");
        for fault in faults.iter_mut() {
            let whose = fault.principal.as_ref();
            if !fault.on.concerns(endpoint, path) || whose.is_some() && whose != principal {
                continue;
            }
            match &fault.action {
                Action::Delay(delay) => struck.delay += delay.draw(),
                _ if struck.action.is_some() => continue,
                action => struck.action = Some(action.clone()),
            }
            if let Some(times) = &mut fault.times {
                *times = times.saturating_sub(1);
            }
        }
        faults.retain(|fault| fault.times != Some(0));
        struck
    }
}

impl Delay {
    fn draw(self) -> Duration {
        Duration::from_millis(match self {
            Delay::Millis(millis) => millis,
            Delay::UpToMillis(most) => fastrand::u64(..=most),
        })
    }
}

/// `user:<uuid>`, `account:<email>`, a bare UUID or a bare email.
pub(super) fn principal_named(text: &str) -> Option<Principal> {
    if let Ok(device) = DeviceToken::parse(text) {
        return Some(Principal::User(device));
    }
    if !text.contains(':') && text.contains('@') {
        return Some(Principal::Account(text.into()));
    }
    Principal::parse(text)
}

fn read_principal<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Principal>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)? else {
        return Ok(None);
    };
    principal_named(&text)
        .map(Some)
        .ok_or_else(|| serde::de::Error::custom("`principal` is a DeviceToken or an email"))
}

fn write_principal<S: Serializer>(
    principal: &Option<Principal>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match principal {
        Some(principal) => serializer.collect_str(principal),
        None => serializer.serialize_none(),
    }
}

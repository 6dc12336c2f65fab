//! The Auth endpoints: what is sent to log in and to refresh, and what an answer means
//! (damoov/API.md, "Login", "Refresh"). Pure.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json::{self, Doubt};
use super::retry_after::retry_after;
use crate::content_coding::{self, understood};
use crate::principal::{DeviceToken, InstanceId};
use crate::secret::Secret;

/// The host of the Auth endpoints.
pub const HOST: &str = "user.telematicssdk.com";

/// One call to an Auth endpoint; all are POSTs of JSON.
#[derive(Debug)]
pub struct Call {
    /// The path on [`HOST`].
    pub path: &'static str,
    /// The header `InstanceId`, which only a user's login has.
    pub instance: Option<InstanceId>,
    /// The content, secrets inside.
    pub content: Secret,
}

const LOGIN: &str = "/v1/Auth/Login";
const REFRESH: &str = "/v1/Auth/RefreshToken";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct LoginContent<'a> {
    /// JSON inside a JSON string: the only form whose key case the API documents.
    login_fields: &'a str,
    password: &'a str,
}

/// Logs a user in with its instance's key. The key inside `LoginFields` is `Devicetoken`, exactly.
pub fn log_in_user(user: DeviceToken, instance: InstanceId, key: &Secret) -> Call {
    let fields = format!(r#"{{"Devicetoken":"{user}"}}"#);
    login(&fields, key, Some(instance))
}

/// Logs an API account in.
pub fn log_in_account(email: &str, password: &Secret) -> Call {
    let fields = serde_json::json!({ "email": email }).to_string();
    login(&fields, password, None)
}

fn login(login_fields: &str, password: &Secret, instance: Option<InstanceId>) -> Call {
    let content = LoginContent {
        login_fields,
        password: password.expose(),
    };
    Call {
        path: LOGIN,
        instance,
        content: json(&content),
    }
}

/// Trades a pair for a new one; the access token may have expired.
pub fn refresh(access_token: &Secret, refresh_token: &Secret) -> Call {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Content<'a> {
        access_token: &'a str,
        refresh_token: &'a str,
    }
    let content = Content {
        access_token: access_token.expose(),
        refresh_token: refresh_token.expose(),
    };
    Call {
        path: REFRESH,
        instance: None,
        content: json(&content),
    }
}

fn json(content: &impl Serialize) -> Secret {
    Secret::new(serde_json::to_string(content).expect("strings always serialise"))
}

/// The meaning of an answer of an Auth endpoint.
#[derive(Debug)]
pub enum Answer {
    /// New tokens.
    Granted(Grant),
    /// Definitely rejected: 400 or 401 (to a login: any 4xx except 429), or an empty `Result`, in the
    /// envelope.
    Rejected,
    /// 429.
    Limited {
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// 5xx: says nothing about the tokens.
    Unavailable {
        /// How long a 503 asks to wait.
        retry_after: Option<Duration>,
    },
    /// Not what the API answers. Tokens may have rotated.
    Unreadable(Unreadable),
}

/// Why an answer cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Its end is ambiguous: Content-Length beside Transfer-Encoding, or twice.
    #[error("its framing is ambiguous")]
    Framing,
    /// Its coding is unknown or damaged, or it is too long.
    #[error(transparent)]
    Content(#[from] content_coding::Unreadable),
    /// Also if it is not an envelope.
    #[error("it is not JSON of the expected form")]
    NotJson,
    /// A name appears twice, so it is ambiguous which token counts.
    #[error("a name appears twice in it")]
    NameTwice,
    /// Its status and `Result` mean neither success nor rejection.
    #[error("it carries neither tokens nor a rejection")]
    Unexpected,
}

/// Tokens as the API gives them out.
#[derive(Debug)]
pub struct Grant {
    /// The user that the answer names, if it names one.
    pub device_token: Option<DeviceToken>,
    /// Missing in a broken answer, which may still carry a rotated RefreshToken.
    pub access_token: Option<Secret>,
    /// Missing if the old one stays valid.
    pub refresh_token: Option<Secret>,
    /// Seconds, whatever the API wrote: a number, a fraction, a string.
    pub expires_in: Option<i64>,
    /// How it wrote that.
    pub expires_in_form: ExpiresInForm,
}

/// How the API writes `ExpiresIn`; both were seen (damoov/API.md, "Envelope").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExpiresInForm {
    /// `86400`; also if there was none to go by.
    #[default]
    Number,
    /// `"86400"`
    Text,
}

/// Reads the answer to a refresh: its content as it came, or why it cannot be read.
pub fn read_refresh(
    status: StatusCode,
    headers: &HeaderMap,
    content: Result<Bytes, Unreadable>,
) -> Answer {
    read(status, headers, content, |status| {
        matches!(status, 400 | 401)
    })
}

/// Reads the answer to a login, in the same way.
pub fn read_login(
    status: StatusCode,
    headers: &HeaderMap,
    content: Result<Bytes, Unreadable>,
) -> Answer {
    read(status, headers, content, |status| {
        (400..500).contains(&status)
    })
}

fn read(
    status: StatusCode,
    headers: &HeaderMap,
    content: Result<Bytes, Unreadable>,
    is_rejection: impl Fn(u16) -> bool,
) -> Answer {
    let envelope = content
        .and_then(|content| Ok(understood(headers, content)?))
        .and_then(|content| Envelope::read(&content));
    let status = match &envelope {
        Ok(Envelope {
            status: Some(inner),
            ..
        }) if status.is_success() => *inner,
        _ => status.as_u16(),
    };
    match (status, envelope) {
        (429, _) => Answer::Limited {
            retry_after: retry_after(headers),
        },
        (503, _) => Answer::Unavailable {
            retry_after: retry_after(headers),
        },
        (500.., _) => Answer::Unavailable { retry_after: None },
        (_, Err(unreadable)) => Answer::Unreadable(unreadable),
        (200..300, Ok(Envelope { result, .. })) => match result {
            Value::Null => Answer::Rejected,
            Value::Object(fields) if fields.is_empty() => Answer::Rejected,
            result => {
                grant(&result).map_or(Answer::Unreadable(Unreadable::Unexpected), Answer::Granted)
            }
        },
        (status, Ok(_)) if is_rejection(status) => Answer::Rejected,
        _ => Answer::Unreadable(Unreadable::Unexpected),
    }
}

/// The envelope of an answer with tokens, if nothing in it is ambiguous.
struct Envelope {
    /// `Null` also if there is none.
    result: Value,
    status: Option<u16>,
}

impl Envelope {
    fn read(content: &[u8]) -> Result<Envelope, Unreadable> {
        let mut fields = match json::parse(content) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) | Err(Doubt::NotJson) => return Err(Unreadable::NotJson),
            Err(Doubt::NameTwice) => return Err(Unreadable::NameTwice),
        };
        // On one host the names are in lower case.
        let mut take = |names: [&str; 2]| match names.map(|name| fields.remove(name)) {
            [Some(_), Some(_)] => Err(Unreadable::NameTwice),
            [one, other] => Ok(one.or(other).unwrap_or_default()),
        };
        let result = take(["Result", "result"])?;
        let status = match take(["Status", "status"])? {
            Value::Null if result.is_null() => return Err(Unreadable::NotJson),
            Value::Null => None,
            status => {
                let status = status.as_u64().and_then(|status| status.try_into().ok());
                Some(status.ok_or(Unreadable::NotJson)?)
            }
        };
        Ok(Envelope { result, status })
    }
}

/// Where the access token stands in what [`grant`] reads.
pub(super) const ACCESS_TOKEN: &str = "/AccessToken/Token";
/// Where the RefreshToken stands.
pub(super) const REFRESH_TOKEN: &str = "/RefreshToken";

/// Reads `Result`; `None` if it carries neither token.
pub(super) fn grant(result: &Value) -> Option<Grant> {
    // Each place is a constant without escapes, which `Value::pointer` would look for.
    let at = |place: &str| {
        let mut names = place.split('/').skip(1);
        names.try_fold(result, |value, name| value.get(name))
    };
    let text = |place| {
        let text = at(place).and_then(Value::as_str);
        text.filter(|text| !text.is_empty())
    };
    let expires_in = at("/AccessToken/ExpiresIn");
    let grant = Grant {
        device_token: text("/DeviceToken").and_then(|token| DeviceToken::parse(token).ok()),
        access_token: text(ACCESS_TOKEN).map(Secret::from),
        refresh_token: text(REFRESH_TOKEN).map(Secret::from),
        expires_in: expires_in.and_then(seconds),
        expires_in_form: match expires_in {
            Some(Value::String(_)) => ExpiresInForm::Text,
            _ => ExpiresInForm::Number,
        },
    };
    (grant.access_token.is_some() || grant.refresh_token.is_some()).then_some(grant)
}

/// Whole seconds of a number or of a string that holds one.
fn seconds(value: &Value) -> Option<i64> {
    let number = match value {
        Value::String(text) => text.trim().parse::<f64>().ok()?,
        other => other.as_f64()?,
    };
    // A float cast saturates, so 1e18 and beyond stay positive.
    Some(number as i64)
}

#[cfg(test)]
mod tests;

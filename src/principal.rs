//! Whose credentials: a user of an instance, or an API account. The identifiers here are canonical
//! once parsed; nothing else reaches a key, a header or a body. Pure; never sees a token.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

/// A UUID that was not written as 32 hex digits, with or without dashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID of 32 hex digits, with or without dashes")]
pub struct NotAUuid;

/// Accepts what damoov/API.md calls "with or without dashes, in any case", and neither braces nor
/// `urn:uuid:`, which the `uuid` crate would take.
fn parse_uuid(text: &str) -> Result<Uuid, NotAUuid> {
    match text.len() {
        32 | 36 => Uuid::try_parse(text).map_err(|_| NotAUuid),
        _ => Err(NotAUuid),
    }
}

/// The permanent identifier of one app user (damoov/API.md, "Terms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceToken(Uuid);

impl DeviceToken {
    /// Parses 32 hex digits, with or without dashes, in any case.
    pub fn parse(text: &str) -> Result<DeviceToken, NotAUuid> {
        parse_uuid(text).map(DeviceToken)
    }
}

/// Lower case with dashes: the form that goes into keys and bodies.
impl fmt::Display for DeviceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The group a user is registered in (damoov/API.md, "Terms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(Uuid);

impl InstanceId {
    /// No instance's.
    pub const NIL: InstanceId = InstanceId(Uuid::nil());

    /// Parses 32 hex digits, with or without dashes, in any case.
    pub fn parse(text: &str) -> Result<InstanceId, NotAUuid> {
        parse_uuid(text).map(InstanceId)
    }
}

impl From<Uuid> for InstanceId {
    fn from(id: Uuid) -> InstanceId {
        InstanceId(id)
    }
}

impl From<InstanceId> for Uuid {
    fn from(InstanceId(id): InstanceId) -> Uuid {
        id
    }
}

/// Lower case with dashes.
impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// Whose credentials a request goes out with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// An app user. The instance is no part of the key: a DeviceToken is unique and may move.
    User(DeviceToken),
    /// A configured API account, by the name the configuration gives it.
    Account(Arc<str>),
}

impl Principal {
    /// Whether it is an app user.
    pub fn is_user(&self) -> bool {
        matches!(self, Principal::User(_))
    }

    /// Reads what `Display` wrote: `user:<uuid>` or `account:<name>`.
    pub fn parse(text: &str) -> Option<Principal> {
        match text.split_once(':')? {
            ("user", token) => DeviceToken::parse(token).ok().map(Principal::User),
            ("account", name) if !name.is_empty() => Some(Principal::Account(name.into())),
            _ => None,
        }
    }
}

/// `user:<uuid>` or `account:<name>`: the store's key and the seal's associated data.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::User(token) => write!(f, "user:{token}"),
            Principal::Account(name) => write!(f, "account:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANONICAL: &str = "6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11";

    #[test]
    fn dashes_and_case_do_not_matter() {
        for text in [
            CANONICAL,
            "6F1C0C1E-5A0E-4C1E-9F53-0D3C2F8A7B11",
            "6f1c0c1e5a0e4c1e9f530d3c2f8a7b11",
        ] {
            assert_eq!(DeviceToken::parse(text).unwrap().to_string(), CANONICAL);
        }
    }

    #[test]
    fn other_spellings_of_a_uuid_are_refused() {
        for text in [
            "",
            "{6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11}",
            "urn:uuid:6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11",
            "6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b1",
            "6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b1g",
            "6f1c0c1e5-a0e-4c1e-9f53-0d3c2f8a7b11",
            " 6f1c0c1e5a0e4c1e9f530d3c2f8a7b11",
        ] {
            assert_eq!(DeviceToken::parse(text), Err(NotAUuid), "{text:?}");
        }
    }

    #[test]
    fn a_principal_reads_what_it_displays() {
        for principal in [
            Principal::User(DeviceToken::parse(CANONICAL).unwrap()),
            Principal::Account("reporting".into()),
        ] {
            assert_eq!(Principal::parse(&principal.to_string()), Some(principal));
        }
        assert_eq!(Principal::parse("account:"), None);
        assert_eq!(Principal::parse("robot:x"), None);
    }
}

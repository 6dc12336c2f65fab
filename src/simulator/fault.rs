//! Faults on demand: a [`Fault`] is a rule that says which calls fail, and how.
//!
//! `fault/action.rs` lists them, `fault/effect.rs` carries them out, `MANUAL.md` has a row for each. How
//! one is added stands in README, "A fault of the simulator, step by step".

mod action;
mod effect;
mod on;
mod rules;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::principal::{DeviceToken, Principal};

pub use self::action::{Action, Delay, Early, Garbage, Lost, Status, StatusUntil};
pub use self::on::On;
pub(super) use self::rules::{Faults, Struck};

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

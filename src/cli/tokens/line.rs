//! One line of what `tokens export` writes and `tokens import` reads: a pair in clear, and whose it
//! is.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// As it is written. A user has a DeviceToken and an InstanceId; an account has the name that the
/// configuration gives it.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Line<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) device_token: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) account: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) instance_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) access_token: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) refresh_token: Option<Cow<'a, str>>,
}

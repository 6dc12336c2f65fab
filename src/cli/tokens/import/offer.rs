//! What a line of an import offers: a pair, and whose it is. A message about a line never quotes it.

use std::borrow::Cow;

use super::super::line::Line;
use crate::clock::Timestamp;
use crate::credentials::Pair;
use crate::damoov::jwt::Claims;
use crate::directory::Directory;
use crate::principal::{DeviceToken, InstanceId, Principal};
use crate::secret::Secret;

/// A pair that may be adopted.
pub(super) struct Offer {
    pub(super) principal: Principal,
    /// `None` for an account.
    pub(super) instance: Option<InstanceId>,
    pub(super) pair: Pair,
}

/// Why a line cannot be used.
pub(super) enum UnusableLine {
    /// It has no RefreshToken: it would work until its JWT expires, and then cost a login.
    WithoutRefreshToken,
    /// A sentence that says why.
    Bad(String),
}

/// Reads a line, at `now`.
pub(super) fn read(
    text: &str,
    directory: &Directory,
    now: Timestamp,
) -> Result<Offer, UnusableLine> {
    // Files of some systems begin with a byte order mark. serde's message would quote the line, and
    // with it a token.
    let line: Line<'_> =
        serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| {
            UnusableLine::Bad(format!(
                "not an object of DeviceToken, InstanceId, AccessToken, RefreshToken (column {})",
                error.column()
            ))
        })?;
    let principal = principal(&line, directory).map_err(UnusableLine::Bad)?;
    let refresh_token = filled(&line.refresh_token).ok_or(UnusableLine::WithoutRefreshToken)?;
    let access_token = Secret::from(line.access_token.as_deref().unwrap_or_default());
    let instance = match principal {
        Principal::Account(_) => None,
        Principal::User(_) => {
            let named = filled(&line.instance_id);
            Some(instance(directory, named, &access_token).map_err(UnusableLine::Bad)?)
        }
    };
    let pair = Pair::imported(&principal, access_token, Secret::from(refresh_token), now)
        .map_err(|error| UnusableLine::Bad(error.to_string()))?;
    Ok(Offer {
        principal,
        instance,
        pair,
    })
}

/// `None` if there is nothing in it.
fn filled<'l>(text: &'l Option<Cow<'_, str>>) -> Option<&'l str> {
    text.as_deref().filter(|text| !text.trim().is_empty())
}

fn principal(line: &Line<'_>, directory: &Directory) -> Result<Principal, String> {
    match (&line.device_token, &line.account) {
        (Some(device), None) => DeviceToken::parse(device)
            .map(Principal::User)
            .map_err(|error| format!("DeviceToken: {error}")),
        (None, Some(name)) => directory
            .account(name)
            .map(|account| Principal::Account(account.name.clone()))
            .ok_or_else(|| "Account: no account of this name is configured".to_owned()),
        (Some(_), Some(_)) => Err("it names a DeviceToken and an Account".to_owned()),
        (None, None) => Err("DeviceToken is missing".to_owned()),
    }
}

/// The configured instance that the line names, else the one that its JWT names, else the default
/// one.
fn instance(
    directory: &Directory,
    named: Option<&str>,
    access_token: &Secret,
) -> Result<InstanceId, String> {
    let is_configured = |id| directory.instance(id).is_some();
    if let Some(named) = named {
        let id = InstanceId::parse(named).map_err(|error| format!("InstanceId: {error}"))?;
        return match is_configured(id) {
            true => Ok(id),
            false => Err(format!("InstanceId {id} is not configured")),
        };
    }
    if let Some(claimed) = Claims::read(access_token.expose()).instance {
        return match is_configured(claimed) {
            true => Ok(claimed),
            false => Err(format!(
                "InstanceId is missing; AccessToken is of {claimed}, which is not configured"
            )),
        };
    }
    let default = directory.default_instance();
    default
        .map(|instance| instance.id)
        .ok_or_else(|| "InstanceId is missing, and no instance is the default".to_owned())
}

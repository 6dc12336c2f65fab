//! The rules by which a request head names a principal and an instance. The route decides the kind
//! of credential; names only fill it. Pure.

use http::HeaderMap;
use http::header::HeaderName;

use crate::damoov::routes::Credential;
use crate::directory::Directory;
use crate::headers;
use crate::principal::{DeviceToken, InstanceId, NotAUuid, Principal};

const DEVICE_TOKEN: HeaderName = HeaderName::from_static("devicetoken");
const INSTANCE_ID: HeaderName = HeaderName::from_static("instanceid");
const USER_DEVICE_TOKEN: HeaderName = HeaderName::from_static("userdevicetoken");

/// What a request named, for its kind of route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Whose JWT to attach; `None` on routes that attach none.
    pub principal: Option<Principal>,
    /// The instance that the caller picked, if it did.
    pub instance: Option<InstanceId>,
}

/// The first segment of a path, if it is one that names a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix<'a> {
    /// `/~<DeviceToken>/…`
    User(DeviceToken),
    /// `/~account:<name>/…`; not yet known to be configured.
    Account(&'a str),
}

/// What the caller's bearer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// There is none.
    Absent,
    /// Somebody else's token: it names nobody and is dropped.
    Foreign,
    /// A token that the proxy handed out, for this principal.
    Ours(Principal),
    /// It claims to be one that the proxy handed out, and is forged, too old, forgotten, another
    /// caller's, or not of the same pair as the one beside it.
    Void,
}

/// Why nobody is named. Each is a 400, except for two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `device_token_missing`
    #[error("name the user by the header DeviceToken or the path prefix /~<DeviceToken>")]
    DeviceTokenMissing,
    /// `device_token_invalid`
    #[error("the DeviceToken must be one UUID: 32 hex digits, with or without dashes")]
    DeviceTokenInvalid,
    /// `instance_unknown`: it cannot be one that is configured.
    #[error("the InstanceId must be one UUID, or the name of one configured instance")]
    InstanceIdInvalid,
    /// `account_unknown`: named, but not configured.
    #[error("no account of this name is configured")]
    AccountUnknown,
    /// `account_unknown`: none is named, and none is the default.
    #[error("name the account by the path prefix /~account:<name>, or configure a default one")]
    AccountMissing,
    /// `account_unknown`: a user is named where an account is wanted.
    #[error("this path is for API accounts, and the request names a user")]
    AccountWanted,
    /// `token_invalid`, 401: a bearer that is not ours is the only name.
    #[error(
        "the bearer token was not handed out by this proxy; log in through it, or name the user"
    )]
    BearerForeign,
    /// `token_invalid`, 401
    #[error("the token counts no longer; log in through this proxy")]
    BearerVoid,
    /// `bad_request`: a token of the proxy's own, where Damoov would get it.
    #[error("this token was handed out by the proxy and is useless at the API, where it would go")]
    BearerOurs,
    /// `principal_conflict`
    #[error("the request names two different principals; name one")]
    Conflict,
}

/// Cuts a naming prefix off a checked path: what it names, and the path that is matched and
/// forwarded. A path without one comes back whole.
pub fn cut_prefix(path: &str) -> Result<(Option<Prefix<'_>>, &str), Error> {
    let Some(named) = ["/~", "/%7E", "/%7e"]
        .iter()
        .find_map(|tilde| path.strip_prefix(tilde))
    else {
        return Ok((None, path));
    };
    let end = named.find('/').unwrap_or(named.len());
    let (name, rest) = named.split_at(end);
    let prefix = match name.strip_prefix("account:") {
        Some(account) => Prefix::Account(account),
        None => Prefix::User(DeviceToken::parse(name).map_err(|_| Error::DeviceTokenInvalid)?),
    };
    Ok((Some(prefix), if rest.is_empty() { "/" } else { rest }))
}

/// Who is meant by a request for a route that attaches this credential, given what [`cut_prefix`]
/// found, and whom the bearer names.
pub fn name(
    credential: Credential,
    prefix: Option<Prefix<'_>>,
    bearer: Bearer,
    headers: &HeaderMap,
    directory: &Directory,
) -> Result<Named, Error> {
    use Credential::{Admin, Answer, Instance, Passthrough, User, UserOrAdmin};
    let by_path = match prefix {
        Some(Prefix::User(token)) => Some(Principal::User(token)),
        Some(Prefix::Account(name)) => Some(account(directory, name)?),
        None => None,
    };
    let is_foreign = bearer == Bearer::Foreign;
    let by_bearer = match bearer {
        Bearer::Ours(principal) => Some(principal),
        Bearer::Absent | Bearer::Foreign => None,
        Bearer::Void => return Err(Error::BearerVoid),
    };
    let principal = match credential {
        User | UserOrAdmin => {
            let named = one_of(by_path, by_bearer)?;
            let takes_accounts = credential == UserOrAdmin;
            Some(user_or_account(
                named,
                is_foreign,
                takes_accounts,
                headers,
                directory,
            )?)
        }
        // The DeviceToken header is the API's own here: it says whom the account acts on.
        Admin => match one_of(by_path, by_bearer)? {
            None => Some(default_account(directory, is_foreign)?),
            Some(Principal::User(_)) => return Err(Error::AccountWanted),
            named => named,
        },
        // The field goes to the API as on any other route: it must read the same user in it.
        Instance | Passthrough | Answer => {
            one_of(by_path, device_token(headers)?.map(Principal::User))?;
            None
        }
    };
    let instance = match credential {
        User | UserOrAdmin | Instance | Answer => instance(directory, headers)?,
        Admin | Passthrough => None,
    };
    Ok(Named {
        principal,
        instance,
    })
}

/// Who is meant on a route for users, given whom path and bearer name. If it takes accounts, too, one may
/// act on a user.
fn user_or_account(
    named: Option<Principal>,
    is_foreign: bool,
    takes_accounts: bool,
    headers: &HeaderMap,
    directory: &Directory,
) -> Result<Principal, Error> {
    // An account acts on the user whom this field of the API's names, as on admin routes.
    let acts_on_a_user = takes_accounts && headers.contains_key(USER_DEVICE_TOKEN);
    let is_users = named.as_ref().is_some_and(Principal::is_user);
    let by_header = match acts_on_a_user && directory.default_account().is_some() && !is_users {
        true => None,
        false => device_token(headers)?.map(Principal::User),
    };
    match one_of(named, by_header)? {
        None if acts_on_a_user => default_account(directory, is_foreign),
        None if is_foreign => Err(Error::BearerForeign),
        None => Err(Error::DeviceTokenMissing),
        Some(Principal::Account(_)) if !takes_accounts => Err(Error::DeviceTokenMissing),
        Some(named) => Ok(named),
    }
}

fn account(directory: &Directory, name: &str) -> Result<Principal, Error> {
    let known = directory.account(name).ok_or(Error::AccountUnknown)?;
    Ok(Principal::Account(known.name.clone()))
}

/// The account of a request that names none; a caller with a stranger's token means somebody.
fn default_account(directory: &Directory, is_foreign: bool) -> Result<Principal, Error> {
    match directory.default_account() {
        _ if is_foreign => Err(Error::BearerForeign),
        Some(default) => Ok(Principal::Account(default.name.clone())),
        None => Err(Error::AccountMissing),
    }
}

/// The instance that the header names, by id or by the name that the configuration gives it.
fn instance(directory: &Directory, headers: &HeaderMap) -> Result<Option<InstanceId>, Error> {
    let read = |text: &str| {
        InstanceId::parse(text).or_else(|not_a_uuid| {
            let named = directory.instance_named(text);
            named.map(|instance| instance.id).ok_or(not_a_uuid)
        })
    };
    only(headers, &INSTANCE_ID, read).map_err(|NotAUuid| Error::InstanceIdInvalid)
}

/// Both ways may name somebody, as long as it is the same one.
fn one_of(a: Option<Principal>, b: Option<Principal>) -> Result<Option<Principal>, Error> {
    match (&a, &b) {
        (Some(one), Some(other)) if one != other => Err(Error::Conflict),
        _ => Ok(a.or(b)),
    }
}

fn device_token(headers: &HeaderMap) -> Result<Option<DeviceToken>, Error> {
    only(headers, &DEVICE_TOKEN, DeviceToken::parse).map_err(|NotAUuid| Error::DeviceTokenInvalid)
}

/// The only field of this name. Two are an error even if they agree, because the API might read either.
fn only<T>(
    headers: &HeaderMap,
    name: &HeaderName,
    parse: impl FnOnce(&str) -> Result<T, NotAUuid>,
) -> Result<Option<T>, NotAUuid> {
    let mut lines = headers::lines(headers, name);
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(line), None) => parse(line.to_str().map_err(|_| NotAUuid)?).map(Some),
        (Some(_), Some(_)) => Err(NotAUuid),
    }
}

#[cfg(test)]
mod tests;

//! The rules by which a request head names a principal and an instance. The route decides the kind
//! of credential; names only fill it. Pure.

use std::sync::Arc;

use http::HeaderMap;
use http::header::HeaderName;

use super::{DeviceToken, InstanceId, NotAUuid, Principal};
use crate::damoov::routes::Credential;
use crate::headers;

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

/// What the configuration calls accounts and instances.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Every configured account.
    pub accounts: Vec<Arc<str>>,
    /// The account of requests that name none: the only one, or the one marked as default.
    pub default_account: Option<Arc<str>>,
    /// Every configured instance; callers may use its name in the place of its id.
    pub instances: Vec<(Arc<str>, InstanceId)>,
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
}

/// Why nobody is named. Each is a 400, but for one.
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
    #[error("the bearer was not handed out by this proxy; log in through it, or name the user")]
    BearerForeign,
    /// `bad_request`: a token of the proxy's own, where Damoov would get it.
    #[error(
        "this token was handed out by the proxy and is worth nothing to the API, where it would go"
    )]
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
    names: &Names,
) -> Result<Named, Error> {
    use Credential::{Admin, Answer, Instance, Passthrough, User, UserOrAdmin};
    let by_path = match prefix {
        Some(Prefix::User(token)) => Some(Principal::User(token)),
        Some(Prefix::Account(name)) => Some(names.account(name)?),
        None => None,
    };
    let is_foreign = bearer == Bearer::Foreign;
    let by_bearer = match bearer {
        Bearer::Ours(principal) => Some(principal),
        Bearer::Absent | Bearer::Foreign => None,
    };
    let principal = match credential {
        User | UserOrAdmin => {
            // An account acts on the user whom this field of the API's names, as on admin routes.
            let acts_on_a_user =
                credential == UserOrAdmin && headers.contains_key(USER_DEVICE_TOKEN);
            let named = one_of(by_path, by_bearer)?;
            let is_users = named.as_ref().is_some_and(Principal::is_user);
            let by_header = match acts_on_a_user && names.default_account.is_some() && !is_users {
                true => None,
                false => device_token(headers)?.map(Principal::User),
            };
            match one_of(named, by_header)? {
                None if acts_on_a_user => Some(names.default_account(is_foreign)?),
                None if is_foreign => return Err(Error::BearerForeign),
                None => return Err(Error::DeviceTokenMissing),
                Some(Principal::Account(_)) if credential == User => {
                    return Err(Error::DeviceTokenMissing);
                }
                named => named,
            }
        }
        // The DeviceToken header is the API's own here: it says whom the account acts on.
        Admin => match one_of(by_path, by_bearer)? {
            None => Some(names.default_account(is_foreign)?),
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
        User | UserOrAdmin | Instance | Answer => names.instance(headers)?,
        Admin | Passthrough => None,
    };
    Ok(Named {
        principal,
        instance,
    })
}

impl Names {
    fn account(&self, name: &str) -> Result<Principal, Error> {
        let known = self.accounts.iter().find(|known| &***known == name);
        known
            .map(|known| Principal::Account(known.clone()))
            .ok_or(Error::AccountUnknown)
    }

    /// The account of a request that names none; a caller with a stranger's token means somebody.
    fn default_account(&self, is_foreign: bool) -> Result<Principal, Error> {
        match &self.default_account {
            _ if is_foreign => Err(Error::BearerForeign),
            Some(default) => Ok(Principal::Account(default.clone())),
            None => Err(Error::AccountMissing),
        }
    }

    /// The instance that the header names, by id or by name.
    fn instance(&self, headers: &HeaderMap) -> Result<Option<InstanceId>, Error> {
        let read = |text: &str| {
            InstanceId::parse(text).or_else(|not_a_uuid| {
                let mut instances = self.instances.iter();
                let named = instances.find(|(name, _)| &**name == text);
                named.map(|(_, id)| *id).ok_or(not_a_uuid)
            })
        };
        only(headers, &INSTANCE_ID, read).map_err(|NotAUuid| Error::InstanceIdInvalid)
    }
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

/// The only field of this name. Two are an error even where they agree: the API might read either.
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
mod tests {
    use super::*;
    use Credential::{Admin, Answer, Instance, Passthrough, User, UserOrAdmin};
    use http::HeaderValue;

    const A: &str = "6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11";
    const A_BARE: &str = "6F1C0C1E5A0E4C1E9F530D3C2F8A7B11";
    const B: &str = "00000000-5a0e-4c1e-9f53-0d3c2f8a7b11";

    fn user(token: &str) -> Option<Principal> {
        Some(Principal::User(DeviceToken::parse(token).unwrap()))
    }

    fn account(name: &str) -> Option<Principal> {
        Some(Principal::Account(name.into()))
    }

    fn names(default: Option<&str>) -> Names {
        Names {
            accounts: vec!["reporting".into(), "billing".into()],
            default_account: default.map(Arc::from),
            instances: vec![("main".into(), InstanceId::parse(B).unwrap())],
        }
    }

    /// Names by path prefix and fields, with `billing` as the default account.
    fn named(
        credential: Credential,
        path: &str,
        fields: &[(&'static str, &str)],
    ) -> Result<Named, Error> {
        let mut headers = HeaderMap::new();
        for (field, value) in fields {
            headers.append(
                HeaderName::from_static(field),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        let (prefix, _) = cut_prefix(path)?;
        name(
            credential,
            prefix,
            Bearer::Absent,
            &headers,
            &names(Some("billing")),
        )
    }

    fn principal(
        credential: Credential,
        path: &str,
        fields: &[(&'static str, &str)],
    ) -> Result<Option<Principal>, Error> {
        named(credential, path, fields).map(|named| named.principal)
    }

    #[test]
    fn the_prefix_is_cut_off_in_both_spellings() {
        for (path, rest) in [
            (format!("/~{A}/indicators/v3"), "/indicators/v3"),
            (format!("/%7E{A_BARE}/x/~y/"), "/x/~y/"),
            (format!("/%7e{A}"), "/"),
            (format!("/~{A}/"), "/"),
        ] {
            let token = DeviceToken::parse(A).unwrap();
            assert_eq!(cut_prefix(&path), Ok((Some(Prefix::User(token)), rest)));
        }
        assert_eq!(
            cut_prefix("/~account:reporting/v1/companies"),
            Ok((Some(Prefix::Account("reporting")), "/v1/companies"))
        );
        for path in ["/", "/indicators/~x", "/a~b", ""] {
            assert_eq!(cut_prefix(path), Ok((None, path)));
        }
        for path in ["/~", "/~/", "/~x/y", "/~Account:x/y", "/%7E{}/y"] {
            assert_eq!(cut_prefix(path), Err(Error::DeviceTokenInvalid), "{path}");
        }
    }

    #[test]
    fn a_user_is_named_by_path_or_header_or_by_both_alike() {
        for credential in [User, UserOrAdmin] {
            for (path, fields) in [
                (format!("/~{A}/x"), vec![]),
                ("/x".to_owned(), vec![("devicetoken", A_BARE)]),
                (format!("/~{A}/x"), vec![("devicetoken", A_BARE)]),
            ] {
                assert_eq!(principal(credential, &path, &fields), Ok(user(A)));
            }
        }
    }

    #[test]
    fn nobody_named_on_a_user_route_is_missing_even_with_an_account() {
        for (credential, path) in [
            (User, "/x"),
            (User, "/~account:reporting/x"),
            (UserOrAdmin, "/x"),
        ] {
            assert_eq!(
                principal(credential, path, &[]),
                Err(Error::DeviceTokenMissing)
            );
        }
    }

    /// Every way to name beside every bearer, on every kind of route: which names count, which
    /// are dropped, and which stand in each other's way.
    #[test]
    fn a_bearer_of_ours_is_a_name_and_a_strangers_is_none() {
        let a = || user(A);
        let ours = |principal: Option<Principal>| Bearer::Ours(principal.unwrap());
        let (path_a, path_b) = (format!("/~{A}/x"), format!("/~{B}/x"));
        let (billing, reporting) = (account("billing"), account("reporting"));
        let of = |credential, path: &str, header: Option<&str>, bearer| {
            let mut headers = HeaderMap::new();
            if let Some(token) = header {
                headers.insert("devicetoken", token.parse().unwrap());
            }
            let (prefix, _) = cut_prefix(path).unwrap();
            let names = names(Some("billing"));
            name(credential, prefix, bearer, &headers, &names).map(|named| named.principal)
        };
        for credential in [User, UserOrAdmin] {
            for (path, header, bearer, named) in [
                ("/x", None, ours(a()), Ok(a())),
                ("/x", Some(A_BARE), ours(a()), Ok(a())),
                (&*path_a, Some(A), ours(a()), Ok(a())),
                (&*path_a, None, Bearer::Foreign, Ok(a())),
                ("/x", Some(A), Bearer::Foreign, Ok(a())),
                ("/x", None, Bearer::Foreign, Err(Error::BearerForeign)),
                ("/x", Some(B), ours(a()), Err(Error::Conflict)),
                (&*path_b, None, ours(a()), Err(Error::Conflict)),
                ("/x", Some(A), ours(billing.clone()), Err(Error::Conflict)),
            ] {
                let found = of(credential, path, header, bearer);
                assert_eq!(found, named, "{credential:?} {path} {header:?}");
            }
        }
        let by_account = |credential| of(credential, "/x", None, ours(reporting.clone()));
        assert_eq!(by_account(UserOrAdmin), Ok(reporting.clone()));
        assert_eq!(by_account(Admin), Ok(reporting.clone()));
        assert_eq!(by_account(User), Err(Error::DeviceTokenMissing));
        for (path, header, bearer, named) in [
            (
                "/x",
                Some(B),
                ours(reporting.clone()),
                Ok(reporting.clone()),
            ),
            ("/~account:billing/x", None, Bearer::Foreign, Ok(billing)),
            ("/x", Some(A), Bearer::Foreign, Err(Error::BearerForeign)),
            ("/x", None, ours(a()), Err(Error::AccountWanted)),
            (
                "/~account:billing/x",
                None,
                ours(reporting),
                Err(Error::Conflict),
            ),
        ] {
            assert_eq!(of(Admin, path, header, bearer), named, "{path} {header:?}");
        }
    }

    #[test]
    fn a_device_token_that_is_not_one_uuid_is_invalid() {
        let list = format!("{A}, {B}");
        let quoted = format!("\"{A}\"");
        let braced = format!("{{{A}}}");
        let urn = format!("urn:uuid:{A}");
        for value in ["", "x", "null", "é", &list, &quoted, &braced, &urn] {
            for credential in [User, UserOrAdmin, Instance, Passthrough, Answer] {
                assert_eq!(
                    principal(credential, "/x", &[("devicetoken", value)]),
                    Err(Error::DeviceTokenInvalid),
                    "{value:?}"
                );
            }
        }
        for credential in [User, UserOrAdmin, Instance, Passthrough, Answer] {
            assert_eq!(
                principal(credential, "/x", &[("devicetoken", A), ("devicetoken", A)]),
                Err(Error::DeviceTokenInvalid)
            );
        }
    }

    #[test]
    fn two_ways_that_differ_are_a_conflict() {
        for (credential, path) in [
            (User, format!("/~{B}/x")),
            (UserOrAdmin, format!("/~{B}/x")),
            (User, "/~account:reporting/x".to_owned()),
            (UserOrAdmin, "/~account:reporting/x".to_owned()),
        ] {
            assert_eq!(
                principal(credential, &path, &[("devicetoken", A)]),
                Err(Error::Conflict),
                "{path}"
            );
        }
    }

    #[test]
    fn an_account_is_named_by_path_and_has_a_default_on_admin_routes_only() {
        for credential in [Admin, UserOrAdmin] {
            assert_eq!(
                principal(credential, "/~account:reporting/x", &[]),
                Ok(account("reporting"))
            );
        }
        assert_eq!(principal(Admin, "/x", &[]), Ok(account("billing")));
        assert_eq!(
            name(Admin, None, Bearer::Absent, &HeaderMap::new(), &names(None)),
            Err(Error::AccountMissing)
        );
    }

    #[test]
    fn an_account_that_is_not_configured_is_unknown_and_never_the_default() {
        for path in ["/~account:x/y", "/~account:/y", "/~account:REPORTING/y"] {
            for credential in [Admin, UserOrAdmin, User] {
                assert_eq!(
                    principal(credential, path, &[]),
                    Err(Error::AccountUnknown),
                    "{path}"
                );
            }
        }
        assert_eq!(
            principal(Admin, &format!("/~{A}/x"), &[]),
            Err(Error::AccountWanted)
        );
    }

    #[test]
    fn a_call_on_a_user_is_the_default_accounts_unless_somebody_is_named() {
        let on = ("userdevicetoken", B);
        for fields in [&[on][..], &[on, ("devicetoken", A)]] {
            let named = principal(UserOrAdmin, "/x", fields);
            assert_eq!(named, Ok(account("billing")));
        }
        let by_path = principal(UserOrAdmin, &format!("/~{A}/x"), &[on]);
        assert_eq!(by_path, Ok(user(A)));
        // Then the DeviceToken is no account's, and must be that user's.
        for (device, named) in [
            (A_BARE, Ok(user(A))),
            (B, Err(Error::Conflict)),
            ("x", Err(Error::DeviceTokenInvalid)),
        ] {
            let fields = [on, ("devicetoken", device)];
            let found = principal(UserOrAdmin, &format!("/~{A}/x"), &fields);
            assert_eq!(found, named, "{device}");
        }
        assert_eq!(principal(User, "/x", &[on]), Err(Error::DeviceTokenMissing));
        let mut headers = HeaderMap::from_iter([(USER_DEVICE_TOKEN, B.parse().unwrap())]);
        let of = |headers: &_, bearer, default| {
            let named = name(UserOrAdmin, None, bearer, headers, &names(default));
            named.map(|named| named.principal)
        };
        assert_eq!(
            of(&headers, Bearer::Absent, None),
            Err(Error::AccountMissing)
        );
        assert_eq!(
            of(&headers, Bearer::Foreign, Some("billing")),
            Err(Error::BearerForeign)
        );
        headers.insert(DEVICE_TOKEN, A.parse().unwrap());
        assert_eq!(of(&headers, Bearer::Absent, None), Ok(user(A)));
    }

    #[test]
    fn on_an_admin_route_the_device_token_header_names_nobody() {
        for value in [A, "whatever", ""] {
            assert_eq!(
                principal(Admin, "/x", &[("devicetoken", value)]),
                Ok(account("billing"))
            );
        }
    }

    #[test]
    fn routes_without_a_jwt_name_nobody() {
        for credential in [Instance, Passthrough, Answer] {
            for fields in [&[][..], &[("devicetoken", A_BARE)]] {
                assert_eq!(principal(credential, &format!("/~{A}/x"), fields), Ok(None));
            }
            let other = [("devicetoken", B)];
            let named = principal(credential, &format!("/~{A}/x"), &other);
            assert_eq!(named, Err(Error::Conflict));
        }
    }

    #[test]
    fn the_instance_is_picked_by_one_uuid_where_an_instance_matters() {
        for credential in [User, UserOrAdmin, Instance] {
            let picked = |fields: &[(&'static str, &str)]| {
                named(credential, &format!("/~{A}/x"), fields).map(|named| named.instance)
            };
            assert_eq!(picked(&[]), Ok(None));
            assert_eq!(
                picked(&[("instanceid", B)]),
                Ok(Some(InstanceId::parse(B).unwrap()))
            );
            assert_eq!(
                picked(&[("instanceid", "main")]),
                picked(&[("instanceid", B)])
            );
            for fields in [
                &[("instanceid", "")][..],
                &[("instanceid", "Main")],
                &[("instanceid", B), ("instanceid", B)],
            ] {
                assert_eq!(picked(fields), Err(Error::InstanceIdInvalid));
            }
        }
        let admin = named(Admin, "/x", &[("instanceid", "whatever")]).unwrap();
        assert_eq!(admin.instance, None);
    }

    proptest::proptest! {
        #[test]
        fn any_path_is_cut_without_a_panic_and_the_rest_is_its_end(path in "(/(~|%7E)?)?\\PC*") {
            if let Ok((_, rest)) = cut_prefix(&path) {
                proptest::prop_assert!(path.ends_with(rest) || rest == "/");
            }
        }
    }
}

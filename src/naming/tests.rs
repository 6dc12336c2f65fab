//! Whom a head names on each kind of route, and what is refused.

use super::*;
use crate::directory::{self, Account};
use crate::secret::Secret;
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

fn directory(default: Option<&str>) -> Directory {
    let account = |name: &str| Account {
        name: name.into(),
        email: format!("{name}@example.com"),
        password: Secret::from("password"),
        default: default == Some(name),
    };
    let main = directory::Instance {
        name: "main".into(),
        id: InstanceId::parse(B).unwrap(),
        key: Secret::from("key"),
        default: true,
    };
    Directory::new(vec![main], vec![account("reporting"), account("billing")])
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
        &directory(Some("billing")),
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
        let directory = directory(Some("billing"));
        name(credential, prefix, bearer, &headers, &directory).map(|named| named.principal)
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
        name(
            Admin,
            None,
            Bearer::Absent,
            &HeaderMap::new(),
            &directory(None)
        ),
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
        let named = name(UserOrAdmin, None, bearer, headers, &directory(default));
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

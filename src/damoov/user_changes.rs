//! Calls that change who a user is: registration, move to another instance, deletion
//! (damoov/API.md, "Registration" and "Hosts and credentials"). Pure.

use http::Method;
use serde_json::{Map, Value};

use super::auth::{ACCESS_TOKEN, Grant, REFRESH_TOKEN, Unreadable, grant};
use super::json::{self, Doubt};
use super::jwt::Claims;
use crate::percent::decoded;
use crate::principal::{DeviceToken, InstanceId};

/// What a call does to a user, if it succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Makes one; the answer names it and may carry tokens.
    Registered,
    /// Moves one to another instance; the content names both.
    Moved,
    /// Moves the user that calls to the company that a code in the path stands for.
    Joined,
    /// Ends one.
    Deleted(DeviceToken),
}

impl Change {
    /// What a call on the host of users does; `None` if it changes nobody. The path has passed the
    /// checks of the request head.
    pub fn of(method: &Method, path: &str) -> Option<Change> {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        let mut next = || segments.next();
        let call = [next(), next(), next(), next(), next(), next(), next()];
        let [
            Some(version),
            Some(area),
            Some(third),
            fourth,
            fifth,
            sixth,
            None,
        ] = call
        else {
            return None;
        };
        let is = |segment: &str, name: &str| {
            decoded(segment)
                .map(|byte| byte.to_ascii_lowercase())
                .eq(name.bytes())
        };
        if !is(version, "v1") {
            return None;
        }
        match (fourth, fifth) {
            (None, None) if is(area, "registration") && is(third, "create") => {
                (method == Method::POST).then_some(Change::Registered)
            }
            _ if !is(area, "management") || !is(third, "users") => None,
            (Some(token), None) if method == Method::DELETE => {
                // Escapes of plain characters are read by the API, too.
                let token: String = decoded(token).map(char::from).collect();
                DeviceToken::parse(&token).ok().map(Change::Deleted)
            }
            (Some(fourth), Some(fifth)) if is(fourth, "instances") && is(fifth, "change") => {
                match sixth {
                    None => Some(Change::Moved),
                    Some(_) => (method == Method::POST).then_some(Change::Joined),
                }
            }
            _ => None,
        }
    }
}

/// The user that the content of a move names, and the instance that it moves to, if that can be read.
pub fn moved(content: &[u8]) -> Option<(DeviceToken, Option<InstanceId>)> {
    let content: Map<String, Value> = serde_json::from_slice(content).ok()?;
    let text = |wanted: &str| {
        let mut fields = content.iter();
        let named = fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        named?.1.as_str()
    };
    let user = DeviceToken::parse(text("DeviceToken")?).ok()?;
    let to = text("ToInstanceId").and_then(|id| InstanceId::parse(id).ok());
    Some((user, to))
}

/// The 2xx answer to a registration.
pub struct Registration {
    /// The new user, if the answer or the JWT in it names it. `None` if there is none.
    pub user: Option<DeviceToken>,
    /// Its tokens, if the answer carries some.
    pub grant: Option<Grant>,
    /// The whole answer, whose tokens are to be replaced.
    answer: Value,
}

impl Registration {
    /// Reads the answer to a registration, decoded, with the envelope or without it.
    ///
    /// # Errors
    ///
    /// It is not a JSON object, a name appears twice in it, or it holds tokens that cannot be the
    /// user's.
    pub fn read(content: &[u8]) -> Result<Registration, Unreadable> {
        let answer = match json::parse(content) {
            Ok(answer @ Value::Object(_)) => answer,
            Ok(_) | Err(Doubt::NotJson) => return Err(Unreadable::NotJson),
            Err(Doubt::NameTwice) => return Err(Unreadable::NameTwice),
        };
        let succeeded = match answer.get("Status") {
            None => true,
            Some(status) => matches!(status.as_u64(), Some(200..300)),
        };
        let result = answer.get("Result").unwrap_or(&answer);
        let grant = grant(result).filter(|_| succeeded);
        let mut rest = answer.clone();
        if grant.is_some() {
            replace_tokens(&mut rest, [Value::Null, Value::Null]);
        }
        if holds_token(&rest) {
            return Err(Unreadable::Unexpected);
        }
        let named = result.get("DeviceToken").and_then(Value::as_str);
        let claimed = || {
            let jwt = grant.as_ref()?.access_token.as_ref()?;
            Claims::read(jwt.expose()).device_token
        };
        Ok(Registration {
            user: named
                .and_then(|user| DeviceToken::parse(user).ok())
                .or_else(claimed)
                .filter(|_| succeeded),
            grant,
            answer,
        })
    }

    /// The answer with these tokens in the place of those that it carries.
    pub fn with_tokens(mut self, access_token: &str, refresh_token: &str) -> Vec<u8> {
        let tokens = [access_token.into(), refresh_token.into()];
        replace_tokens(&mut self.answer, tokens);
        self.answer.to_string().into_bytes()
    }
}

/// Puts these in the place of the two tokens that [`grant`] reads.
fn replace_tokens(answer: &mut Value, [access_token, refresh_token]: [Value; 2]) {
    let result = match answer.get("Result").is_some() {
        true => &mut answer["Result"],
        false => answer,
    };
    for (place, token) in [(ACCESS_TOKEN, access_token), (REFRESH_TOKEN, refresh_token)] {
        if let Some(found) = result.pointer_mut(place).filter(|found| !found.is_null()) {
            *found = token;
        }
    }
}

/// Whether a text, or a list, stands anywhere under the name of a token, in any case.
fn holds_token(value: &Value) -> bool {
    let is_token = |name: &str| {
        ["AccessToken", "RefreshToken", "Token"]
            .iter()
            .any(|token| name.eq_ignore_ascii_case(token))
    };
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| match value {
            Value::String(text) => is_token(name) && !text.is_empty(),
            Value::Array(values) if is_token(name) => !values.is_empty(),
            value => holds_token(value),
        }),
        Value::Array(values) => values.iter().any(holds_token),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11";

    fn user() -> DeviceToken {
        DeviceToken::parse(USER).unwrap()
    }

    #[test]
    fn calls_that_change_a_user_are_recognised_in_any_spelling() {
        let escaped = format!(
            "/v1/Management/users/%{:x}{}/",
            USER.as_bytes()[0],
            &USER[1..]
        );
        let delete = format!("/v1/management/USERS/{}", USER.replace('-', ""));
        for (method, path, change) in [
            ("POST", "/v1/Registration/create", Change::Registered),
            ("POST", "/v1/registration/Create/", Change::Registered),
            (
                "POST",
                "/v1/Management/users/instances/change",
                Change::Moved,
            ),
            (
                "PUT",
                "/v1/Management/Users/Instances/Change",
                Change::Moved,
            ),
            (
                "POST",
                "/v1/Management/users/instances/change/CODE",
                Change::Joined,
            ),
            ("DELETE", &delete, Change::Deleted(user())),
            ("DELETE", &escaped, Change::Deleted(user())),
        ] {
            let method = method.parse().unwrap();
            assert_eq!(Change::of(&method, path), Some(change), "{path}");
        }
    }

    #[test]
    fn other_calls_change_nobody() {
        for (method, path) in [
            ("GET", "/v1/Registration/create"),
            ("POST", "/v1/Registration/create/x"),
            ("GET", "/v1/Management/users"),
            ("PUT", "/v1/Management/users"),
            ("DELETE", "/v1/Management/users"),
            ("DELETE", "/v1/Management/users/find"),
            (
                "DELETE",
                "/v2/Management/users/6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11",
            ),
            ("POST", "/v1/Management/users/instances"),
            ("GET", "/v1/Management/users/instances/change/CODE"),
            ("POST", "/v1/Management/users/instances/change/CODE/x"),
            (
                "DELETE",
                "/v1/Instances/6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11",
            ),
        ] {
            assert_eq!(Change::of(&method.parse().unwrap(), path), None, "{path}");
        }
        let get = format!("/v1/Management/users/{USER}");
        assert_eq!(Change::of(&Method::GET, &get), None);
    }

    #[test]
    fn a_move_names_its_user_and_its_new_instance() {
        let content = |to: &str| format!(r#"{{"DeviceToken":"{USER}","ToInstanceId":"{to}"}}"#);
        assert_eq!(moved(content("x").as_bytes()), Some((user(), None)));
        let to = "22222222-2222-4222-8222-222222222222";
        let instance = InstanceId::parse(to).ok();
        assert_eq!(moved(content(to).as_bytes()), Some((user(), instance)));
        assert_eq!(moved(b"{}"), None);
        assert_eq!(moved(b""), None);
    }

    #[test]
    fn a_registration_is_read_and_rewritten_with_and_without_the_envelope() {
        let bare = format!(
            r#"{{"AccessToken":{{"ExpiresIn":432000,"Token":"real"}},"DeviceToken":"{USER}","Other":[1],"RefreshToken":"real too"}}"#
        );
        let enveloped = format!(r#"{{"Errors":[],"Result":{bare},"Status":200,"Title":""}}"#);
        for content in [&bare, &enveloped] {
            let registration = Registration::read(content.as_bytes()).unwrap();
            assert_eq!(registration.user, Some(user()));
            let grant = registration.grant.as_ref().unwrap();
            assert_eq!(grant.access_token.as_ref().unwrap().expose(), "real");
            let ours = String::from_utf8(registration.with_tokens("ours", "ours too")).unwrap();
            assert_eq!(
                ours,
                content
                    .replace("real too", "ours too")
                    .replace("\"real\"", "\"ours\"")
            );
        }
    }

    #[test]
    fn an_answer_with_tokens_that_nobody_can_take_for_the_users_is_unread() {
        for content in [
            r#"{"Result":{"AccessToken":{"Token":"a"}},"Status":422}"#,
            r#"{"Result":{"AccessToken":{"Token":"a"}},"Status":"200"}"#,
            r#"{"Result":{"AccessToken":"a"}}"#,
            r#"{"Result":{"AccessToken":["a"]}}"#,
            r#"{"Result":{"User":{"refreshToken":"a"}}}"#,
            r#"{"Result":null,"token":"a"}"#,
            // One that would be replaced, and one that would pass.
            r#"{"Result":{"RefreshToken":"a"},"result":{"RefreshToken":"a"}}"#,
            r#"{"Result":{"RefreshToken":"a","User":{"token":"a"}}}"#,
            r#"{"Result":{"RefreshToken":"a","RefreshToken":"b"}}"#,
        ] {
            assert!(Registration::read(content.as_bytes()).is_err(), "{content}");
        }
    }

    #[test]
    fn a_registration_without_tokens_stays_without() {
        for content in [
            format!(r#"{{"Result":{{"DeviceToken":"{USER}"}},"Status":200}}"#),
            format!(
                r#"{{"Result":{{"AccessToken":null,"DeviceToken":"{USER}","RefreshToken":null}},"Status":200}}"#
            ),
        ] {
            let registration = Registration::read(content.as_bytes()).unwrap();
            assert!(registration.grant.is_none());
            assert_eq!(registration.with_tokens("a", "b"), content.as_bytes());
        }
        for content in [
            &br#"{"Result":null,"Status":422}"#[..],
            br#"{"Result":{"DeviceToken":"x"}}"#,
        ] {
            let registration = Registration::read(content).unwrap();
            assert!(registration.user.is_none() && registration.grant.is_none());
        }
        for content in [&b""[..], b"[]", b"<html>", br#"{"Result":{"Acc"#] {
            assert!(Registration::read(content).is_err());
        }
    }
}

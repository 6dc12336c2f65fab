//! The Auth endpoints as a server: what clients send to log in and to refresh, and the answers that
//! they get (damoov/API.md, "Login" and "Refresh"). Pure.

use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};

use super::auth::ExpiresInForm;
use super::json;
use crate::principal::DeviceToken;
use crate::secret::Secret;

/// Which of the Auth endpoints is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/Auth/Login`
    Login,
    /// `/v1/Auth/RefreshToken`
    RefreshToken,
}

impl Endpoint {
    /// The endpoint at a path that has passed the checks of the request head; `None` if there is
    /// no such one. Case and a slash at the end do not matter.
    pub fn at(path: &str) -> Option<Endpoint> {
        let path = path.strip_suffix('/').unwrap_or(path);
        [
            ("/v1/Auth/Login", Endpoint::Login),
            ("/v1/Auth/RefreshToken", Endpoint::RefreshToken),
        ]
        .into_iter()
        .find(|(known, _)| {
            crate::percent::decoded(path)
                .map(|byte| byte.to_ascii_lowercase())
                .eq(known.bytes().map(|byte| byte.to_ascii_lowercase()))
        })
        .map(|(_, endpoint)| endpoint)
    }
}

/// Who wants to log in, with what.
#[derive(Clone, Debug)]
pub struct Login {
    /// Who.
    pub who: Who,
    /// An InstanceKey, or an account's password.
    pub password: Secret,
}

/// The user or account that `LoginFields` name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// An app user.
    User(DeviceToken),
    /// The email of an API account.
    Account(String),
}

/// A pair that is to be renewed.
#[derive(Clone, Debug)]
pub struct Refresh {
    /// Of whatever age.
    pub access_token: Secret,
    /// What renews it.
    pub refresh_token: Secret,
}

/// Why content is not such a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// Neither of the forms of a login.
    #[error("send LoginFields, with one Devicetoken or email, and Password, as JSON")]
    Login,
    /// Not both tokens.
    #[error("send AccessToken and RefreshToken as JSON")]
    Refresh,
}

/// Reads a login, decoded, in either form: `LoginFields` as JSON in a string, or as the object of older
/// clients. The case of names does not matter: the sources disagree about it.
pub fn read_login(content: &[u8]) -> Result<Login, Unread> {
    let content = json::object(content).ok_or(Unread::Login)?;
    let fields = match field(&content, "LoginFields") {
        Some(Value::String(text)) => json::object(text.as_bytes()).ok_or(Unread::Login)?,
        Some(Value::Object(fields)) => fields.clone(),
        _ => return Err(Unread::Login),
    };
    let user = text(&fields, "DeviceToken")
        .map(|token| DeviceToken::parse(token).map_err(|_| Unread::Login))
        .transpose()?;
    let who = match (user, text(&fields, "Email")) {
        (Some(user), None) => Who::User(user),
        (None, Some(email)) => Who::Account(email.to_owned()),
        (Some(_), Some(_)) | (None, None) => return Err(Unread::Login),
    };
    let password = text(&content, "Password").ok_or(Unread::Login)?;
    Ok(Login {
        who,
        password: Secret::from(password),
    })
}

/// Reads a refresh, decoded. The case of names does not matter.
pub fn read_refresh(content: &[u8]) -> Result<Refresh, Unread> {
    let content = json::object(content).ok_or(Unread::Refresh)?;
    let token = |name| text(&content, name).map(Secret::from);
    match (token("AccessToken"), token("RefreshToken")) {
        (Some(access_token), Some(refresh_token)) => Ok(Refresh {
            access_token,
            refresh_token,
        }),
        _ => Err(Unread::Refresh),
    }
}

fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let mut named = fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
    match (named.next(), named.next()) {
        (Some((_, value)), None) => Some(value),
        // Two spellings of one name: nobody knows which one counts.
        _ => None,
    }
}

/// A text that is not empty; older clients write `null` for fields that they do not use.
fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    field(fields, name)?
        .as_str()
        .filter(|text| !text.is_empty())
}

/// Tokens for a client. No `Debug`, because it holds secrets.
pub struct Granted<'a> {
    /// Whose they are; `None` for an account.
    pub user: Option<DeviceToken>,
    /// The JWT.
    pub access_token: &'a str,
    /// Its remaining life in seconds.
    pub expires_in: u64,
    /// How the API writes that.
    pub form: ExpiresInForm,
    /// What renews it.
    pub refresh_token: &'a str,
}

impl Granted<'_> {
    /// The content of the answer to a login or a refresh, in the API's envelope.
    pub fn content(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Content<'a> {
            result: Tokens<'a>,
            status: u16,
            title: &'a str,
            errors: [(); 0],
        }
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Tokens<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            device_token: Option<String>,
            access_token: AccessToken<'a>,
            refresh_token: &'a str,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct AccessToken<'a> {
            token: &'a str,
            expires_in: Value,
        }
        let content = Content {
            result: Tokens {
                device_token: self.user.map(|user| user.to_string()),
                access_token: AccessToken {
                    token: self.access_token,
                    expires_in: match self.form {
                        ExpiresInForm::Number => self.expires_in.into(),
                        ExpiresInForm::Text => self.expires_in.to_string().into(),
                    },
                },
                refresh_token: self.refresh_token,
            },
            status: StatusCode::OK.as_u16(),
            title: "",
            errors: [],
        };
        serde_json::to_vec(&content).expect("strings and numbers always serialise")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11";
    const BARE: &str = "6F1C0C1E5A0E4C1E9F530D3C2F8A7B11";

    fn login(content: &str) -> Result<(Who, String), Unread> {
        read_login(content.as_bytes()).map(|login| (login.who, login.password.expose().to_owned()))
    }

    #[test]
    fn both_forms_and_every_case_of_a_login_are_read() {
        let user = Who::User(DeviceToken::parse(USER).unwrap());
        for content in [
            format!(r#"{{"LoginFields":"{{\"Devicetoken\":\"{USER}\"}}","Password":"k"}}"#),
            format!(r#"{{"LoginFields":"{{\"DeviceToken\":\"{BARE}\"}}","Password":"k"}}"#),
            format!(r#"{{"loginFields":{{"DeviceToken":"{USER}"}},"password":"k"}}"#),
            format!(
                r#"{{"loginFields":{{"Phone":null,"Email":null,"DeviceToken":"{USER}"}},"password":"k"}}"#
            ),
        ] {
            assert_eq!(
                login(&content),
                Ok((user.clone(), "k".to_owned())),
                "{content}"
            );
        }
        let account = Who::Account("a@b.c".to_owned());
        for content in [
            r#"{"LoginFields":"{\"email\":\"a@b.c\"}","Password":"p"}"#,
            r#"{"loginFields":{"Email":"a@b.c"},"password":"p"}"#,
        ] {
            assert_eq!(
                login(content),
                Ok((account.clone(), "p".to_owned())),
                "{content}"
            );
        }
    }

    #[test]
    fn what_is_no_login_is_not_guessed_at() {
        let nobody_or_two = [
            String::new(),
            "[]".to_owned(),
            "null".to_owned(),
            r#"{"Password":"k"}"#.to_owned(),
            r#"{"LoginFields":"{}","Password":"k"}"#.to_owned(),
            r#"{"LoginFields":"x","Password":"k"}"#.to_owned(),
            r#"{"LoginFields":"{\"Devicetoken\":\"x\"}","Password":"k"}"#.to_owned(),
            format!(r#"{{"LoginFields":"{{\"Devicetoken\":\"{USER}\"}}"}}"#),
            format!(r#"{{"LoginFields":"{{\"Devicetoken\":\"{USER}\"}}","Password":""}}"#),
            format!(r#"{{"LoginFields":{{"DeviceToken":"{USER}","Email":"a"}},"Password":"k"}}"#),
            format!(
                r#"{{"LoginFields":{{"DeviceToken":"{USER}","Devicetoken":"{USER}"}},"Password":"k"}}"#
            ),
            format!(
                r#"{{"LoginFields":{{"DeviceToken":"{USER}"}},"Password":"x","Password":"k"}}"#
            ),
            format!(
                r#"{{"LoginFields":"{{\"Devicetoken\":\"x\",\"Devicetoken\":\"{USER}\"}}","Password":"k"}}"#
            ),
        ];
        for content in nobody_or_two {
            assert_eq!(login(&content), Err(Unread::Login), "{content}");
        }
    }

    #[test]
    fn a_refresh_has_both_tokens() {
        let read = read_refresh(br#"{"AccessToken":"a","RefreshToken":"r"}"#).unwrap();
        assert_eq!(read.access_token.expose(), "a");
        assert_eq!(read.refresh_token.expose(), "r");
        assert!(read_refresh(br#"{"accessToken":"a","refreshToken":"r"}"#).is_ok());
        for content in [
            &b"{}"[..],
            br#"{"AccessToken":"a"}"#,
            br#"{"RefreshToken":"r"}"#,
            br#"{"AccessToken":"a","RefreshToken":""}"#,
            br#"{"AccessToken":"a","RefreshToken":null}"#,
            br#"{"AccessToken":"a","RefreshToken":"r","RefreshToken":"r"}"#,
            b"x",
        ] {
            assert_eq!(read_refresh(content).unwrap_err(), Unread::Refresh);
        }
    }

    #[test]
    fn an_answer_is_what_the_api_would_send() {
        let granted = Granted {
            user: Some(DeviceToken::parse(BARE).unwrap()),
            access_token: "jwt",
            expires_in: 86_400,
            form: ExpiresInForm::Number,
            refresh_token: "refresh",
        };
        let content = |granted: &Granted<'_>| String::from_utf8(granted.content()).unwrap();
        assert_eq!(
            content(&granted),
            format!(
                r#"{{"Result":{{"DeviceToken":"{USER}","AccessToken":{{"Token":"jwt","ExpiresIn":86400}},"RefreshToken":"refresh"}},"Status":200,"Title":"","Errors":[]}}"#
            )
        );
        let account = Granted {
            user: None,
            form: ExpiresInForm::Text,
            ..granted
        };
        assert_eq!(
            content(&account),
            r#"{"Result":{"AccessToken":{"Token":"jwt","ExpiresIn":"86400"},"RefreshToken":"refresh"},"Status":200,"Title":"","Errors":[]}"#
        );
    }

    #[test]
    fn endpoints_are_found_in_any_spelling() {
        for path in ["/v1/Auth/Login", "/V1/AUTH/login/", "/v1/%41uth/Login"] {
            assert_eq!(Endpoint::at(path), Some(Endpoint::Login), "{path}");
        }
        assert_eq!(
            Endpoint::at("/v1/auth/refreshtoken"),
            Some(Endpoint::RefreshToken)
        );
        for path in ["/v1/Auth", "/v1/Auth/Logout", "/v1/Auth/Login/x"] {
            assert_eq!(Endpoint::at(path), None, "{path}");
        }
    }
}

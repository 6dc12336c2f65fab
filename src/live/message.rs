//! The two messages that a session understands (damoov/API.md, "Live tracking"): the
//! caller's `authenticate`, and what upstream answers it. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::content_coding::unmarked;
use crate::principal::InstanceId;

/// What the proxy reads of an `authenticate`. Servers differ in whether the case of a name matters:
/// a name that may be read as one of these is that one.
const NAMES: [&str; 3] = ["type", "access_token", "instance_id"];

/// A message of the type `authenticate`. Its fields keep their values byte for byte.
#[derive(Debug)]
pub(super) struct Authenticate<'m>(BTreeMap<String, &'m RawValue>);

/// What upstream says to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthenticateAnswer {
    /// The token does not count: an `error` with the code 401.
    Unauthorized,
    /// It does: `authenticated`, or an `error` about something else.
    Other,
}

impl<'m> Authenticate<'m> {
    /// The message, if it is one.
    pub(super) fn read(text: &'m [u8]) -> Option<Authenticate<'m>> {
        let mut fields: BTreeMap<String, &RawValue> =
            serde_json::from_slice(unmarked(text)).ok()?;
        for name in NAMES {
            let is_it = |other: &String| other.eq_ignore_ascii_case(name);
            let exact = fields.get(name).copied();
            let last = fields.iter().rfind(|(other, _)| is_it(other));
            if let Some(value) = exact.or(last.map(|(_, value)| *value)) {
                fields.retain(|other, _| !is_it(other));
                fields.insert(name.to_owned(), value);
            }
        }
        let kind = fields.get("type").copied().and_then(string);
        (kind.as_deref() == Some("authenticate")).then_some(Authenticate(fields))
    }

    /// The token that the caller put in. One that is no string is nobody's.
    pub(super) fn access_token(&self) -> Option<String> {
        self.given("access_token")
    }

    /// The value of a field, unless it is null or empty; one that is no string as it stands there.
    fn given(&self, field: &str) -> Option<String> {
        let given = self.0.get(field)?;
        let value = match given.get() {
            "null" => String::new(),
            text => string(given).unwrap_or_else(|| text.to_owned()),
        };
        (!value.is_empty()).then_some(value)
    }

    /// The message with this token, and this instance if it names none. What it does name may be the
    /// name of an instance, for which `named` gives the id.
    pub(super) fn with(
        &self,
        token: &str,
        instance: Option<InstanceId>,
        named: impl Fn(&str) -> Option<InstanceId>,
    ) -> Vec<u8> {
        let raw = |text: &str| to_raw_value(text).expect("a string is JSON");
        let token = raw(token);
        let instance = match self.given("instance_id") {
            None => instance,
            Some(given) => named(&given),
        };
        let instance = instance.map(|instance| raw(&instance.to_string()));
        let mut fields = self.0.clone();
        fields.insert("access_token".to_owned(), &token);
        if let Some(instance) = &instance {
            fields.insert("instance_id".to_owned(), instance);
        }
        serde_json::to_vec(&fields).expect("a map of JSON values is JSON")
    }
}

impl AuthenticateAnswer {
    /// The answer that a message of upstream is, if it is one.
    pub(super) fn read(text: &[u8]) -> Option<AuthenticateAnswer> {
        #[derive(Deserialize)]
        struct Message<'m> {
            #[serde(borrow)]
            r#type: Cow<'m, str>,
            #[serde(borrow)]
            code: Option<&'m RawValue>,
        }
        // A struct would be read from an array as well.
        let is_object = text.trim_ascii_start().starts_with(b"{");
        let message: Message<'_> = serde_json::from_slice(text).ok().filter(|_| is_object)?;
        match (&*message.r#type, message.code.map(RawValue::get)) {
            ("error", Some("401" | "\"401\"")) => Some(AuthenticateAnswer::Unauthorized),
            ("authenticated" | "error", _) => Some(AuthenticateAnswer::Other),
            _ => None,
        }
    }
}

fn string(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn with(message: &str, instance: Option<&str>) -> Value {
        let instance = instance.map(|id| InstanceId::parse(id).unwrap());
        let message = Authenticate::read(message.as_bytes()).unwrap();
        let main = |name: &str| (name == "main").then(|| InstanceId::parse(MAIN).unwrap());
        serde_json::from_slice(&message.with("new", instance, main)).unwrap()
    }

    const MAIN: &str = "11111111-1111-4111-8111-111111111111";

    #[test]
    fn only_an_object_of_the_type_authenticate_is_one() {
        for message in [
            r#"{"type":"authenticate"}"#,
            r#" { "x": [1], "type" : "authenticate" } "#,
            r#"{"type":"\u0061uthenticate"}"#,
            r#"{"Type":"authenticate"}"#,
            "\u{feff}{\"type\":\"authenticate\"}",
        ] {
            assert!(
                Authenticate::read(message.as_bytes()).is_some(),
                "{message}"
            );
        }
        for message in [
            "",
            "authenticate",
            "[]",
            r#"["authenticate"]"#,
            r#"{"type":"Authenticate"}"#,
            r#"{"type":["authenticate"]}"#,
            r#"{"type":"authenticate"} x"#,
            r#"{"a":{"type":"authenticate"}}"#,
            "{\"type\":\"authenticate\",\"x\":\"\u{0}\"}",
        ] {
            assert!(
                Authenticate::read(message.as_bytes()).is_none(),
                "{message}"
            );
        }
        assert!(Authenticate::read(b"{\"type\":\"authenticate\",\"x\":\"\xff\"}").is_none());
    }

    #[test]
    fn a_null_or_empty_token_is_absent_and_one_that_is_no_string_nobodys() {
        for (given, token) in [
            (json!({}), None),
            (json!({"access_token": null}), None),
            (json!({"access_token": ""}), None),
            (json!({"access_token": "a\"b"}), Some("a\"b")),
            (json!({"access_token": 7}), Some("7")),
            (json!({"access_token": {"a": 1}}), Some("{\"a\":1}")),
        ] {
            let mut message = given;
            message["type"] = "authenticate".into();
            let text = message.to_string();
            let read = Authenticate::read(text.as_bytes()).unwrap();
            assert_eq!(read.access_token().as_deref(), token, "{text}");
        }
    }

    #[test]
    fn no_spelling_of_a_name_escapes() {
        let message = r#"{"TYPE":"authenticate","Access_Token":"a","ACCESS_TOKEN":"b","access_token":"c",
            "access_token":"d","Instance_Id":"main"}"#;
        let read = Authenticate::read(message.as_bytes()).unwrap();
        assert_eq!(read.access_token().as_deref(), Some("d"));
        assert_eq!(
            with(message, None),
            json!({"type": "authenticate", "access_token": "new", "instance_id": MAIN})
        );
        let other = r#"{"type":"echo","Type":"authenticate"}"#;
        assert!(Authenticate::read(other.as_bytes()).is_none());
    }

    #[test]
    fn an_instance_that_is_named_is_sent_by_its_id() {
        let message = r#"{"type":"authenticate","instance_id":"main"}"#;
        assert_eq!(with(message, None)["instance_id"], MAIN);
        let message = r#"{"type":"authenticate","instance_id":"other"}"#;
        assert_eq!(with(message, Some(MAIN))["instance_id"], "other");
    }

    #[test]
    fn the_token_is_put_in_and_the_instance_only_where_none_is_named() {
        assert_eq!(
            with(r#"{"type":"authenticate"}"#, Some(MAIN)),
            json!({"type": "authenticate", "access_token": "new", "instance_id": MAIN})
        );
        assert_eq!(
            with(
                r#"{"type":"authenticate","access_token":"old","instance_id":"x"}"#,
                Some(MAIN)
            ),
            json!({"type": "authenticate", "access_token": "new", "instance_id": "x"})
        );
        for absent in ["null", "\"\""] {
            let message = format!(r#"{{"type":"authenticate","instance_id":{absent}}}"#);
            assert_eq!(with(&message, Some(MAIN))["instance_id"], MAIN, "{message}");
        }
        assert_eq!(
            with(r#"{"type":"authenticate"}"#, None),
            json!({"type": "authenticate", "access_token": "new"})
        );
    }

    #[test]
    fn every_other_field_keeps_its_value_byte_for_byte() {
        let odd = r#"{"n": 1.10, "u": "\u00e9\/", "big": 123456789012345678901234567890, "o": {"b": 1, "a": 2}}"#;
        let message = format!(
            r#"{{"type":"authenticate","access_token":"a","access_token":"b","odd":{odd}}}"#
        );
        let sent = Authenticate::read(message.as_bytes())
            .unwrap()
            .with("new", None, |_| None);
        let sent = String::from_utf8(sent).unwrap();
        assert!(sent.contains(odd), "{sent}");
        assert_eq!(sent.matches("access_token").count(), 1, "{sent}");
    }

    #[test]
    fn an_answer_is_authenticated_or_an_error() {
        use AuthenticateAnswer::{Other, Unauthorized};
        for (text, answer) in [
            (r#"{"type":"authenticated","x":1}"#, Some(Other)),
            (r#"{"code":401,"type":"error"}"#, Some(Unauthorized)),
            (
                r#"{"type":"error","code":"401","message":"x"}"#,
                Some(Unauthorized),
            ),
            (r#"{"type":"error","code":403}"#, Some(Other)),
            (r#"{"type":"error"}"#, Some(Other)),
            (r#"{"type":"welcome","code":401}"#, None),
            (r#"["authenticated",401]"#, None),
            ("", None),
        ] {
            assert_eq!(AuthenticateAnswer::read(text.as_bytes()), answer, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in proptest::collection::vec(0u8.., 0..64)) {
            AuthenticateAnswer::read(&text);
            if let Some(message) = Authenticate::read(&text) {
                message.with("x", None, |_| None);
            }
        }
    }
}

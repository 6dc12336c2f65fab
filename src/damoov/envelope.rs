//! The envelope that every answer of the API has: `{"Result": …, "Status": …, "Title": …,
//! "Errors": […]}`, on one host in lower case (damoov/API.md, "Envelope"). Pure.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// An answer's envelope, its `Result` unread.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a> {
    /// What was asked for; `None` if it is `null` or missing.
    #[serde(rename = "Result", alias = "result", borrow, default)]
    pub result: Option<&'a RawValue>,
    /// The status that counts, whatever the HTTP status says.
    #[serde(rename = "Status", alias = "status", default)]
    pub status: Option<u16>,
}

impl Envelope<'_> {
    /// Reads an envelope; `None` if `content` is not one: a JSON object with a `Status` or a
    /// `Result`.
    pub fn parse(content: &[u8]) -> Option<Envelope<'_>> {
        // A struct would be read from an array as well.
        if !content.trim_ascii_start().starts_with(b"{") {
            return None;
        }
        let envelope: Envelope<'_> = serde_json::from_slice(content).ok()?;
        (envelope.status.is_some() || envelope.result.is_some()).then_some(envelope)
    }
}

/// The content of an error in the API's envelope: one entry in `Errors`, its `Key` being `key`.
pub fn error(status: StatusCode, key: &str, message: &str) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Failure<'a> {
        result: (),
        status: u16,
        title: &'a str,
        errors: [ErrorItem<'a>; 1],
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct ErrorItem<'a> {
        key: &'a str,
        message: &'a str,
    }
    let failure = Failure {
        result: (),
        status: status.as_u16(),
        title: status.canonical_reason().unwrap_or_default(),
        errors: [ErrorItem { key, message }],
    };
    serde_json::to_vec(&failure).expect("strings and numbers always serialise")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read() {
        for content in [
            r#"{"Result":{"a":1},"Status":200}"#,
            r#"{"result":{"a":1},"status":200}"#,
        ] {
            let envelope = Envelope::parse(content.as_bytes()).unwrap();
            assert_eq!(envelope.status, Some(200));
            assert_eq!(envelope.result.unwrap().get(), r#"{"a":1}"#);
        }
    }

    #[test]
    fn a_null_result_is_none() {
        let envelope = Envelope::parse(br#"{"Result":null,"Status":401}"#).unwrap();
        assert!(envelope.result.is_none());
    }

    #[test]
    fn other_content_is_no_envelope() {
        for content in [
            "",
            "<html>",
            "[]",
            "[null,401]",
            "{}",
            "null",
            r#"{"Status":"#,
            r#"{"Status":"x"}"#,
        ] {
            assert!(Envelope::parse(content.as_bytes()).is_none(), "{content}");
        }
    }

    #[test]
    fn an_error_is_an_envelope_of_its_own() {
        let content = error(
            StatusCode::SERVICE_UNAVAILABLE,
            "draining",
            "going \"down\"",
        );
        assert_eq!(Envelope::parse(&content).unwrap().status, Some(503));
        let json: serde_json::Value = serde_json::from_slice(&content).unwrap();
        assert_eq!(json["Errors"][0]["Key"], "draining");
        assert_eq!(json["Result"], serde_json::Value::Null);
    }
}

//! Recognises a 401 inside a success by the beginning of the answer (damoov/API.md, "Envelope"). Pure,
//! and cheap, because it looks at every JSON answer that passes.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::content_coding::unmarked;

static STATUS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"401"));

/// Whether JSON that begins like this has a `Status` or `status` of 401 at its top level. Nothing is
/// concluded from what is not there: a number at the very end may go on.
pub fn says_401(beginning: &[u8]) -> bool {
    let mut from = 0;
    // Few answers have these digits anywhere: a look for them is all that most cost.
    while let Some(found) = STATUS.find(&beginning[from..]) {
        let at = from + found;
        if let Some(name) = status_before(beginning, at)
            && is_top_level(&beginning[..name])
        {
            return true;
        }
        from = at + 1;
    }
    false
}

/// Where the name begins whose value is the whole 401 at `at`, if that name is the one.
fn status_before(text: &[u8], at: usize) -> Option<usize> {
    let ends = matches!(
        text.get(at + 3)?,
        b',' | b'}' | b' ' | b'\t' | b'\r' | b'\n'
    );
    let before = text[..at].trim_ascii_end().strip_suffix(b":")?;
    let before = before.trim_ascii_end().strip_suffix(b"tatus\"")?;
    let before = before.strip_suffix(b"S").or(before.strip_suffix(b"s"))?;
    let name = before.strip_suffix(b"\"")?;
    ends.then_some(name.len())
}

/// Whether what follows `text` stands in the outermost object, in no string.
fn is_top_level(text: &[u8]) -> bool {
    let text = unmarked(text).trim_ascii_start();
    if !text.starts_with(b"{") {
        return false;
    }
    let (mut depth, mut in_string) = (0_u32, false);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match (in_string, byte) {
            (true, b'\\') => {
                bytes.next();
            }
            (_, b'"') => in_string = !in_string,
            (true, _) => {}
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            (false, _) => {}
        }
    }
    depth == 1 && !in_string
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    #[test]
    fn a_401_at_the_top_level_counts_wherever_it_stands() {
        for yes in [
            r#"{"Result":null,"Status":401,"Title":"","Errors":[]}"#,
            r#"{"result":null,"status":401}"#,
            "\u{feff}{\"Status\":401}",
            " \r\n{ \"a\" : [ { \"Status\" : 200 } ] ,\n\t\"Status\"\t:\r\n401 }",
            r#"{"a":"\\\"{[","Status":401,"Errors":[{"Key":"cut in the mid"#,
            r#"{"a":"\\","Status":401}"#,
            r#"{"a":401,"b":{"Status":401},"status":401}"#,
        ] {
            assert!(says_401(yes.as_bytes()), "{yes}");
        }
    }

    #[test]
    fn nothing_else_is_a_401_inside() {
        for no in [
            r#"{"Result":{"Status":401},"Status":200}"#,
            r#"{"Result":[{"Status":401},401],"Status":200}"#,
            r#"{"Status":"401"}"#,
            r#"{"Status":403}"#,
            r#"{"Status":4010}"#,
            r#"{"Status":401.5}"#,
            r#"{"Status":-401}"#,
            r#"{"Status":1401}"#,
            r#"{"Status":401"#,
            r#"{"xStatus":401}"#,
            r#"{"Statuses":401}"#,
            r#"{"STATUS":401}"#,
            r#"{"a":"\"Status\":401,"}"#,
            r#"{"a":"{\"Status\":401}"}"#,
            r#"[{"Status":401}]"#,
            r#"[401]"#,
            r#""Status":401 "#,
            r#""{","Status":401 "#,
            "401",
            "",
        ] {
            assert!(!says_401(no.as_bytes()), "{no}");
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            Just("Status"),
            Just("status"),
            Just("401"),
            Just("\"Status\":401,"),
            Just("\\"),
            Just("{["),
            Just("]}"),
            Just("x\"y"),
        ];
        let leaf = prop_oneof![
            Just(Value::from(401)),
            Just(Value::from(200)),
            Just(Value::Null),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((text.clone(), inner), 0..4).prop_map(|fields| {
                    let fields = fields
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value));
                    Value::Object(fields.collect::<Map<_, _>>())
                }),
            ]
        })
    }

    proptest! {
        /// Of whole documents it says what a parser says.
        #[test]
        fn a_parser_agrees(document in json(), pretty: bool) {
            let text = match pretty {
                true => serde_json::to_string_pretty(&document).unwrap(),
                false => document.to_string(),
            };
            let expected = ["Status", "status"].iter().any(|name| {
                document.as_object().and_then(|fields| fields.get(*name)) == Some(&401.into())
            });
            prop_assert_eq!(says_401(text.as_bytes()), expected, "{}", text);
        }

        #[test]
        fn a_beginning_never_says_what_the_whole_does_not(document in json(), cut: prop::sample::Index) {
            let text = document.to_string();
            let beginning = &text.as_bytes()[..cut.index(text.len() + 1)];
            prop_assert!(!says_401(beginning) || says_401(text.as_bytes()));
        }
    }
}

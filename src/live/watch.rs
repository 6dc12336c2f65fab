//! The proxy's own tokens in what passes by: they are for the proxy alone, and the API never gets
//! one. Pure.

use serde_json::Value;

use crate::handed_out;

/// Whether a token of the proxy's own stands in a message, or in any text or name of its JSON.
pub(super) fn holds_own_token(message: &[u8]) -> bool {
    if handed_out::is_within(message) {
        return true;
    }
    // Escapes may hide one.
    let is_escaped = memchr::memchr(b'\\', message).is_some();
    let parsed = is_escaped.then(|| serde_json::from_slice::<Value>(message));
    parsed.is_some_and(|value| value.is_ok_and(|value| says_own_token(&value)))
}

fn says_own_token(value: &Value) -> bool {
    let is_own = |text: &str| handed_out::is_within(text.as_bytes());
    match value {
        Value::String(text) => is_own(text),
        Value::Array(values) => values.iter().any(says_own_token),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| is_own(name) || says_own_token(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Looks for one in content that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The end of the last piece: a token may begin there.
    end: Vec<u8>,
}

impl Watch {
    /// Whether a token has begun by the end of this piece.
    pub(super) fn finds(&mut self, piece: impl Iterator<Item = u8>) -> bool {
        let mut text = std::mem::take(&mut self.end);
        text.extend(piece);
        if handed_out::is_within(&text) {
            return true;
        }
        text.drain(..text.len().saturating_sub(handed_out::MARK - 1));
        // The room for a long piece is not kept.
        self.end = text.as_slice().to_vec();
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As every token of ours begins.
    const OURS: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImRhbW9vdi1wcm94eSJ9.x.y";

    #[test]
    fn a_token_is_found_under_any_name_and_behind_escapes() {
        let escaped = OURS.replacen('e', "\\u0065", 1);
        for message in [
            OURS.to_owned(),
            format!("Bearer {OURS}"),
            format!(r#"{{"a":[{{"b":"x {OURS}"}}]}}"#),
            format!(r#"{{"a":[{{"b":"{escaped}"}}]}}"#),
            format!(r#"{{"{escaped}":1}}"#),
        ] {
            assert!(holds_own_token(message.as_bytes()), "{message}");
        }
        for message in ["", "{}", r#"{"a":"eyJhbGciOiJIUzI1NiJ9.x.y","b":"\n"}"#] {
            assert!(!holds_own_token(message.as_bytes()), "{message}");
        }
    }

    #[test]
    fn a_token_in_pieces_of_any_size_is_found_before_it_is_whole() {
        let text = format!("before {OURS}");
        let mark = "before ".len() + handed_out::MARK;
        for size in 1..text.len() {
            let mut watch = Watch::default();
            let mut seen = 0;
            let found = text.as_bytes().chunks(size).find(|piece| {
                seen += piece.len();
                watch.finds(piece.iter().copied())
            });
            assert!(found.is_some(), "{size}");
            assert!((mark..mark + size).contains(&seen), "{size}: {seen}");
        }
        let mut watch = Watch::default();
        assert!(!watch.finds(OURS.bytes().take(handed_out::MARK - 1)));
        assert!(!watch.finds(OURS.bytes().skip(handed_out::MARK)));
    }
}

//! JSON in which each name of an object appears once. If a name appears twice, readers differ in which
//! value they take (RFC 8259 §4), so such a document is not read. Pure.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Why a text is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It is not JSON.
    NotJson,
    /// A name appears twice in an object.
    NameTwice,
}

/// Reads a whole document.
pub(super) fn parse(text: &[u8]) -> Result<Value, Doubt> {
    match serde_json::from_slice(text) {
        Ok(Unique(value)) => Ok(value),
        Err(error) if error.is_data() => Err(Doubt::NameTwice),
        Err(_) => Err(Doubt::NotJson),
    }
}

/// Reads a whole document that is an object.
pub(super) fn object(text: &[u8]) -> Option<Map<String, Value>> {
    match parse(text) {
        Ok(Value::Object(fields)) => Some(fields),
        Ok(_) | Err(_) => None,
    }
}

/// A value in which no name appears twice.
struct Unique(Value);

struct UniqueVisitor;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unique, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Unique)
    }
}

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unique(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some((name, Unique(value))) = fields.next_entry::<String, Unique>()? {
            if values.insert(name, value).is_some() {
                return Err(A::Error::custom("a name appears twice"));
            }
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_stands_twice_at_any_depth_is_refused() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":{"b":1,"c":2,"b":3}}"#,
            r#"[[{"a":null,"\u0061":null}]]"#,
        ] {
            assert_eq!(parse(text.as_bytes()), Err(Doubt::NameTwice), "{text}");
            assert_eq!(object(text.as_bytes()), None);
        }
    }

    #[test]
    fn everything_else_is_read_as_any_parser_reads_it() {
        for text in [
            "null",
            r#"{"a":[1,-1,1.5,1e300,"\u00e9",true,null,{}],"A":{"a":{"a":0}},"":[]}"#,
        ] {
            let expected: Value = serde_json::from_str(text).unwrap();
            assert_eq!(parse(text.as_bytes()), Ok(expected));
        }
        for text in ["", "{", "<html>", "{}{}", "\u{feff}{}", "{\"a\":01}"] {
            assert_eq!(parse(text.as_bytes()), Err(Doubt::NotJson), "{text}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(parse(deep.as_bytes()), Err(Doubt::NotJson));
    }
}

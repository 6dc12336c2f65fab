//! The configuration as written: a TOML tree in which every key and value knows where it was
//! written. Knows no key's meaning.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// A TOML value. Dates have no use here, so that only their presence is kept.
#[derive(Clone, Debug)]
pub(super) enum Value {
    String(String),
    /// Saturated if the number is larger; no setting comes near.
    Integer(i128),
    Float(f64),
    Boolean(bool),
    Datetime,
    Array(Vec<Node>),
    Table(Table),
}

/// A TOML table.
pub(super) type Table = BTreeMap<String, KeyValue>;

/// What a table holds under a key.
#[derive(Clone, Debug)]
pub(super) struct KeyValue {
    /// Where the key was written.
    pub(super) key: Origin,
    pub(super) value: Node,
}

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Bytes of the file.
    File(Range<usize>),
    /// An environment variable, and the text it holds.
    Variable { name: Arc<str>, text: Arc<str> },
}

/// A passage that is no TOML, and why.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) at: Range<usize>,
    pub(super) message: String,
}

/// Reads a whole file; finds every syntax error of it.
pub(super) fn parse(text: &str) -> Result<Node, Vec<SyntaxError>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors
            .into_iter()
            .map(|error| SyntaxError {
                at: error.span().unwrap_or(0..0),
                message: error.message().to_owned(),
            })
            .collect());
    }
    Ok(Node {
        value: Value::Table(table(document.into_inner(), &Origin::File)),
        origin: Origin::File(0..0),
    })
}

/// Reads a single value as TOML, everything in it of this `origin`.
pub(super) fn parse_value(text: &str, origin: &Origin) -> Option<Node> {
    let value = DeValue::parse(text).ok()?;
    Some(node(value, &|_| origin.clone()))
}

fn table(entries: DeTable<'_>, origin: &dyn Fn(Range<usize>) -> Origin) -> Table {
    let entry = |(key, value): (Spanned<_>, _)| {
        let at = origin(key.span());
        let value = node(value, origin);
        (String::from(key.into_inner()), KeyValue { key: at, value })
    };
    entries.into_iter().map(entry).collect()
}

fn node(value: Spanned<DeValue<'_>>, origin: &dyn Fn(Range<usize>) -> Origin) -> Node {
    let at = origin(value.span());
    let value = match value.into_inner() {
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Integer(digits) => Value::Integer(
            i128::from_str_radix(digits.as_str(), digits.radix()).unwrap_or(i128::MAX),
        ),
        DeValue::Float(digits) => Value::Float(digits.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => Value::Boolean(flag),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(items) => {
            Value::Array(items.into_iter().map(|item| node(item, origin)).collect())
        }
        DeValue::Table(entries) => Value::Table(table(entries, origin)),
    };
    Node { value, origin: at }
}

impl Node {
    /// The text of a string; also what a variable holds where a string is wanted but the text
    /// reads as a number, a flag or a date.
    pub(super) fn text(&self) -> Option<&str> {
        match (&self.value, &self.origin) {
            (Value::String(text), _) => Some(text),
            (Value::Array(_) | Value::Table(_), _) => None,
            (_, Origin::Variable { text, .. }) => Some(text),
            (_, Origin::File(_)) => None,
        }
    }

    /// Adds where each scalar in this value stands in the file.
    pub(super) fn scalars(&self, found: &mut Vec<Range<usize>>) {
        match (&self.value, &self.origin) {
            (Value::Array(items), _) => items.iter().for_each(|item| item.scalars(found)),
            (Value::Table(entries), _) => {
                entries
                    .values()
                    .for_each(|entry| entry.value.scalars(found));
            }
            (_, Origin::File(at)) => found.push(at.clone()),
            (_, Origin::Variable { .. }) => {}
        }
    }
}

impl Value {
    /// What kind of value this is, with its article.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::String(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Boolean(_) => "a boolean",
            Value::Datetime => "a date",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
        }
    }
}

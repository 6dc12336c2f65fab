//! The process environment as an argument, and the keys of the file that it overrides:
//! `DAMOOV_PROXY__STORE__PATH`, `DAMOOV_PROXY__INSTANCE__0__KEY__FILE`.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::report::{Problem, Problems};
use super::tree::{self, KeyValue, Node, Origin, Table, Value};

const PREFIX: &str = "DAMOOV_PROXY__";

/// No key of the file lies deeper.
const MAX_DEPTH: usize = 8;

/// Environment variables, by name. Collect `std::env::vars_os()` into it.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl FromIterator<(OsString, OsString)> for Environment {
    fn from_iter<I: IntoIterator<Item = (OsString, OsString)>>(variables: I) -> Environment {
        let named = |(name, value): (OsString, _)| Some((name.into_string().ok()?, value));
        Environment(variables.into_iter().filter_map(named).collect())
    }
}

impl Environment {
    /// The variable's value; `None` if it is not set.
    pub(super) fn get(&self, name: &str) -> Option<&OsString> {
        self.0.get(name)
    }

    /// Puts the overrides into the tree as if the file said so.
    pub(super) fn override_file(&self, file: &mut Node, problems: &Problems) {
        let mut overrides: Vec<_> = self
            .0
            .iter()
            .filter_map(|(name, value)| Some((name, segments(name)?, value)))
            .collect();
        // Elements are appended one by one: 2 must come before 10.
        overrides.sort_by_key(|(_, path, _)| {
            path.iter()
                .map(|s| (s.parse().unwrap_or(0), s.clone()))
                .collect::<Vec<(usize, String)>>()
        });

        for (name, path, value) in overrides {
            let origin = Origin::Variable {
                name: name.as_str().into(),
                text: value.to_string_lossy().into(),
            };
            let outcome = match value.to_str() {
                None => Err("expected UTF-8 text".to_owned()),
                Some(_) if path.len() > MAX_DEPTH => Err("no key has this name".to_owned()),
                Some(_) if path.starts_with(&["upstream".into(), "hosts".into()]) => {
                    Err("`upstream.hosts` can be set in the file only".to_owned())
                }
                Some(text) => place(file, &path, read(text, &origin), &origin),
            };
            if let Err(label) = outcome {
                problems.add(Problem {
                    at: origin,
                    title: "invalid override".to_owned(),
                    label,
                    help: None,
                });
            }
        }
    }
}

/// The path that an override's name spells; `None` for other variables.
fn segments(name: &str) -> Option<Vec<String>> {
    let path = name.strip_prefix(PREFIX)?.to_ascii_lowercase();
    Some(path.split("__").map(str::to_owned).collect())
}

/// The text as TOML, else as a string.
fn read(text: &str, origin: &Origin) -> Node {
    tree::parse_value(text, origin).unwrap_or_else(|| Node {
        value: Value::String(text.to_owned()),
        origin: origin.clone(),
    })
}

/// Sets what lies at `path` below `node`, making tables and elements on the way. A scalar in the
/// way gives way: `DAMOOV_PROXY__LISTEN__UNIX` replaces `listen = "127.0.0.1:8080"`.
fn place(node: &mut Node, path: &[String], new: Node, origin: &Origin) -> Result<(), String> {
    let Some((segment, rest)) = path.split_first() else {
        *node = new;
        return Ok(());
    };
    match &mut node.value {
        Value::Array(items) => {
            let index = segment.parse().unwrap_or(usize::MAX);
            if index == items.len() {
                items.push(empty(rest, origin));
            }
            let length = items.len();
            let item = items.get_mut(index).ok_or_else(|| {
                format!("expected an index from 0 to {length}, found `{segment}`")
            })?;
            place(item, rest, new, origin)
        }
        Value::Table(entries) => {
            // A secret has one source: the override's replaces the file's.
            if matches!(segment.as_str(), "env" | "file") {
                entries.retain(|name, _| !matches!(name.as_str(), "env" | "file"));
            }
            let entry = entries.entry(segment.clone()).or_insert_with(|| KeyValue {
                key: origin.clone(),
                value: empty(rest, origin),
            });
            place(&mut entry.value, rest, new, origin)
        }
        _ => {
            *node = empty(path, origin);
            place(node, path, new, origin)
        }
    }
}

/// What `path` can be placed in.
fn empty(path: &[String], origin: &Origin) -> Node {
    let is_index = path.first().is_some_and(|s| s.parse::<usize>().is_ok());
    Node {
        value: if is_index {
            Value::Array(Vec::new())
        } else {
            Value::Table(Table::new())
        },
        origin: origin.clone(),
    }
}

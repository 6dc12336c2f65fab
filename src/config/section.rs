//! Reads one table of the tree key by key. Problems are collected and reading goes on, so that one
//! run reports all problems of a file.

use std::collections::BTreeMap;

use super::report::{Problem, Problems, dotted};
use super::tree::{KeyValue, Node, Origin, Table, Value};

/// A table that is being read. Its reader asks for every valid key; a key that is left over at the
/// end is unknown.
pub(super) struct Section<'p> {
    /// Dotted, without indices; empty at the top.
    path: String,
    origin: Origin,
    /// What has not been asked for yet.
    entries: Table,
    /// Where the keys are written that were asked for and found.
    found: BTreeMap<&'static str, Origin>,
    problems: &'p Problems,
}

impl<'p> Section<'p> {
    /// Reads the top of a tree.
    pub(super) fn read_root<T>(
        root: Node,
        problems: &'p Problems,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let entries = match root.value {
            Value::Table(entries) => entries,
            _ => Table::new(),
        };
        Section::read(String::new(), root.origin, entries, problems, read)
    }

    fn read<T>(
        path: String,
        origin: Origin,
        entries: Table,
        problems: &'p Problems,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let mut section = Section {
            path,
            origin,
            entries,
            found: BTreeMap::new(),
            problems,
        };
        let read = read(&mut section);
        for (key, entry) in section.entries {
            problems.add_unknown(entry.key, &section.path, key);
        }
        read
    }

    /// The value of `key` as `read` returns it. `None` if the key is absent, or if `read` refuses the
    /// value: its error says what would be valid, and is reported.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Node) -> Result<T, String>,
    ) -> Option<T> {
        let node = self.take(key)?;
        self.show(&node);
        self.check(key, &node, read)
    }

    /// Like [`Section::get`] for a key that must be there.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Node) -> Result<T, String>,
    ) -> Option<T> {
        self.demand(key);
        self.get(key, read)
    }

    /// Like [`Section::get`], for a value that no report may show.
    pub(super) fn secret<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Node) -> Result<T, String>,
    ) -> Option<T> {
        let node = self.take(key)?;
        self.show_source(&node);
        self.check(key, &node, read)
    }

    /// Like [`Section::get`], for a value that no report may show if it `may_hide` a secret.
    pub(super) fn get_masked_if<T>(
        &mut self,
        key: &'static str,
        may_hide: impl Fn(&str) -> bool,
        read: impl Fn(&Node) -> Result<T, String>,
    ) -> Option<T> {
        let node = self.take(key)?;
        if !node.text().is_some_and(may_hide) {
            self.show(&node);
        }
        self.check(key, &node, read)
    }

    /// Like [`Section::secret`] for a key that must be there.
    pub(super) fn require_secret<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Node) -> Result<T, String>,
    ) -> Option<T> {
        self.demand(key);
        self.secret(key, read)
    }

    /// A list, each element as `read` returns it; elements that it refuses are reported and left out.
    /// Empty if the key is absent.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Node) -> Result<T, String>,
    ) -> Vec<T> {
        let items = self.items(key, "a list");
        items.iter().for_each(|item| self.show(item));
        let read = items.iter().filter_map(|item| self.check(key, item, &read));
        read.collect()
    }

    /// Like [`Section::list`], for values that no report may show.
    pub(super) fn secrets<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Node) -> Result<T, String>,
    ) -> Vec<T> {
        let items = self.items(key, "a list");
        items.iter().for_each(|item| self.show_source(item));
        let read = items.iter().filter_map(|item| self.check(key, item, &read));
        read.collect()
    }

    /// The table `key`; an empty one when it is absent.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let node = self.take(key).unwrap_or_else(|| Node {
            value: Value::Table(Table::new()),
            origin: self.origin.clone(),
        });
        self.open(key, node, read)
    }

    /// The table `key`, if it is there.
    pub(super) fn optional_table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<T> {
        let node = self.take(key)?;
        Some(self.open(key, node, read))
    }

    /// A list of tables; those for which `read` returns `None` are left out.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'_>) -> Option<T>,
    ) -> Vec<T> {
        let items = self.items(key, "a list of tables");
        let read = items
            .into_iter()
            .filter_map(|item| self.open(key, item, &mut read));
        read.collect()
    }

    /// The value of `key`: a single value or a list of at least one, each a table or something
    /// else. `of` reads the tables, `plain` the others. `None` if the key is absent.
    pub(super) fn one_or_many<T>(
        &mut self,
        key: &'static str,
        of: impl Fn(&mut Section<'_>) -> Option<T>,
        plain: impl Fn(&Node) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let node = self.take(key)?;
        let items = match node.value {
            Value::Array(items) => items,
            _ => vec![node],
        };
        if items.is_empty() {
            self.refuse(key, "expected at least one");
        }
        let read = items.into_iter().filter_map(|item| match item.value {
            Value::Table(_) => self.open(key, item, &of),
            _ => {
                self.show(&item);
                self.check(key, &item, &plain)
            }
        });
        Some(read.collect())
    }

    /// The value of `key`, which must be there: a table, which `of` reads, or something else, which
    /// `plain` reads.
    pub(super) fn require_either<T>(
        &mut self,
        key: &'static str,
        of: impl FnOnce(&mut Section<'_>) -> Option<T>,
        plain: impl Fn(&Node) -> Result<T, String>,
    ) -> Option<T> {
        self.demand(key);
        let node = self.take(key)?;
        match node.value {
            Value::Table(_) => self.open(key, node, of),
            _ => {
                self.show(&node);
                self.check(key, &node, plain)
            }
        }
    }

    /// Every key that was not asked for, as `read` understands name and value. For tables whose
    /// keys are the user's.
    pub(super) fn rest<T>(
        &mut self,
        read_key: impl Fn(&str) -> Result<String, String>,
        read: impl Fn(&Node) -> Result<T, String>,
    ) -> Vec<(String, T)> {
        let entries = std::mem::take(&mut self.entries);
        let read = entries.into_iter().filter_map(|(key, entry)| {
            self.show(&entry.value);
            let value = self.check(&key, &entry.value, &read);
            let name = read_key(&key).map_err(|label| {
                self.report(
                    entry.key,
                    format!("invalid key `{}`", dotted(&self.path, &key)),
                    label,
                );
            });
            Some((name.ok()?, value?))
        });
        read.collect()
    }

    /// Refuses keys of features that this version does not have.
    pub(super) fn refuse_later(&mut self, keys: &[&str]) {
        for key in keys {
            if let Some(entry) = self.entries.remove(*key) {
                let title = format!("`{}` is not in this version", dotted(&self.path, key));
                let label = "remove it: a later version will understand it".to_owned();
                self.report(entry.key, title, label);
            }
        }
    }

    /// Notes that the value of `key`, already read, cannot stand.
    pub(super) fn refuse(&self, key: &'static str, label: impl Into<String>) {
        let at = self.found.get(key).unwrap_or(&self.origin).clone();
        self.report(
            at,
            format!("invalid `{}`", dotted(&self.path, key)),
            label.into(),
        );
    }

    /// How many elements the list `key`, not asked for yet, has; 1 for what is no list.
    pub(super) fn count(&self, key: &str) -> usize {
        self.entries
            .get(key)
            .map_or(0, |entry| match &entry.value.value {
                Value::Array(items) => items.len(),
                _ => 1,
            })
    }

    /// Whether `key`, already asked for, is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.found.contains_key(key)
    }

    /// Notes it when `key`, not asked for yet, is missing.
    pub(super) fn demand(&self, key: &'static str) {
        if !self.entries.contains_key(key) {
            self.refuse_missing(
                &format!("`{}`", dotted(&self.path, key)),
                format!("this table needs `{key} = …`"),
            );
        }
    }

    /// Notes that something is missing from this table.
    pub(super) fn refuse_missing(&self, what: &str, label: impl Into<String>) {
        self.report(
            self.origin.clone(),
            format!("{what} is missing"),
            label.into(),
        );
    }

    fn take(&mut self, key: &'static str) -> Option<Node> {
        self.problems.accept(&self.path, key);
        let KeyValue { value, .. } = self.entries.remove(key)?;
        self.found.insert(key, value.origin.clone());
        Some(value)
    }

    fn items(&mut self, key: &'static str, expected: &str) -> Vec<Node> {
        let Some(node) = self.take(key) else {
            return Vec::new();
        };
        match node.value {
            Value::Array(items) => items,
            other => {
                self.refuse(key, format!("expected {expected}, found {}", other.kind()));
                Vec::new()
            }
        }
    }

    fn open<T>(&self, key: &str, node: Node, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let path = dotted(&self.path, key);
        let entries = match node.value {
            Value::Table(entries) => entries,
            other => {
                let label = format!("expected a table, found {}", other.kind());
                self.report(node.origin, format!("invalid `{path}`"), label);
                // Only what is wrong is worth a word, not all that is therefore missing.
                let unheard = Problems::default();
                return Section::read(path, Origin::File(0..0), Table::new(), &unheard, read);
            }
        };
        Section::read(path, node.origin, entries, self.problems, read)
    }

    fn check<T>(
        &self,
        key: &str,
        node: &Node,
        read: impl Fn(&Node) -> Result<T, String>,
    ) -> Option<T> {
        let invalid = |label| {
            let title = format!("invalid `{}`", dotted(&self.path, key));
            self.report(node.origin.clone(), title, label);
        };
        read(node).map_err(invalid).ok()
    }

    fn report(&self, at: Origin, title: String, label: String) {
        self.problems.add(Problem {
            at,
            title,
            label,
            help: None,
        });
    }

    /// Lets snippets show a scalar. A table or list that does not belong there may hold anything.
    fn show(&self, node: &Node) {
        if !matches!(node.value, Value::Array(_) | Value::Table(_)) {
            self.problems.show(&node.origin);
        }
    }

    /// Lets snippets show where a secret comes from.
    fn show_source(&self, node: &Node) {
        if let Value::Table(entries) = &node.value {
            for source in ["env", "file"].iter().filter_map(|name| entries.get(*name)) {
                self.show(&source.value);
            }
        }
    }
}

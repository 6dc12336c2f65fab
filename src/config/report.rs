//! What is wrong with a configuration, in the form of a compiler's messages: every problem with its
//! place and what would be valid, and no secret.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use super::tree::{Origin, SyntaxError};

/// All that is wrong with the content of a file, in its order; at least one problem. For people by
/// `Display`, in several lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    drawn: String,
    findings: Vec<Finding>,
}

/// One problem, for a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong, with the key's name, and what would be valid.
    pub message: String,
    /// What to do, if there is something to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Where it was written.
    #[serde(flatten)]
    pub place: Place,
}

/// Where a problem was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Place {
    /// In the file.
    File {
        /// Its path.
        file: String,
        /// From 1 on.
        line: usize,
        /// In characters, from 1 on.
        column: usize,
    },
    /// In the environment.
    Environment {
        /// The variable's name.
        variable: String,
    },
}

impl Report {
    /// The problems one by one.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// `text`: what may be shown of the file.
    fn new(problems: &[Problem], path: &str, text: &str) -> Report {
        let drawn = problems.iter().take(DRAWN);
        let mut drawn: Vec<_> = drawn.map(|problem| draw(problem, path, text)).collect();
        if problems.len() > DRAWN {
            drawn.push(format!("… and {} more", problems.len() - DRAWN));
        }
        let finding = |problem: &Problem| Finding {
            message: format!("{}: {}", problem.title, problem.label),
            help: problem.help.clone(),
            place: Place::of(&problem.at, path, text),
        };
        Report {
            drawn: drawn.join("\n\n"),
            findings: problems.iter().map(finding).collect(),
        }
    }
}

/// In the form of a compiler's messages.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.drawn)
    }
}

impl Place {
    fn of(origin: &Origin, path: &str, text: &str) -> Place {
        match origin {
            Origin::File(range) => {
                let before = &text[..within(text, range).start];
                let line = before.rfind('\n').map_or(before, |end| &before[end + 1..]);
                Place::File {
                    file: path.to_owned(),
                    line: before.matches('\n').count() + 1,
                    column: line.chars().count() + 1,
                }
            }
            Origin::Variable { name, .. } => Place::Environment {
                variable: name.to_string(),
            },
        }
    }
}

/// Something that is wrong.
#[derive(Debug)]
pub(super) struct Problem {
    /// Where it was written.
    pub(super) at: Origin,
    /// What is wrong, with the key's name.
    pub(super) title: String,
    /// What would be valid.
    pub(super) label: String,
    /// What to do, if there is something to say.
    pub(super) help: Option<String>,
}

/// Collects problems while a configuration is read, and what may be shown of it.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: RefCell<Vec<Problem>>,
    unknown: RefCell<Vec<UnknownKey>>,
    /// Every key asked for, with its section's path.
    accepted: RefCell<BTreeSet<(String, &'static str)>>,
    /// Scalars that are no secrets.
    shown: RefCell<HashSet<Range<usize>>>,
}

#[derive(Debug)]
struct UnknownKey {
    at: Origin,
    section: String,
    key: String,
}

impl Problems {
    /// Notes a problem.
    pub(super) fn add(&self, problem: Problem) {
        self.found.borrow_mut().push(problem);
    }

    /// Notes a key that nobody asked for.
    pub(super) fn add_unknown(&self, at: Origin, section: &str, key: String) {
        self.unknown.borrow_mut().push(UnknownKey {
            at,
            section: section.to_owned(),
            key,
        });
    }

    /// Notes that `key` is valid in `section`.
    pub(super) fn accept(&self, section: &str, key: &'static str) {
        let accepted = (section.to_owned(), key);
        self.accepted.borrow_mut().insert(accepted);
    }

    /// Lets snippets show what stands there. Every scalar else is masked: a secret may turn up
    /// under a misspelt key.
    pub(super) fn show(&self, at: &Origin) {
        if let Origin::File(range) = at {
            self.shown.borrow_mut().insert(range.clone());
        }
    }

    /// The dotted names of every key asked for.
    #[cfg(test)]
    pub(super) fn accepted_names(&self) -> BTreeSet<String> {
        let accepted = self.accepted.borrow();
        accepted.iter().map(|(s, key)| dotted(s, key)).collect()
    }

    /// All problems, in the order of the file `path` that contains `text`; `None` if there are none. Of
    /// `scalars`, only those shown can be read.
    pub(super) fn render(self, path: &str, text: &str, scalars: &[Range<usize>]) -> Option<Report> {
        let unknown = self.unknown.take();
        let mut found = self.found.take();
        found.extend(unknown.into_iter().map(|key| self.explain(key)));
        if found.is_empty() {
            return None;
        }
        found.sort_by_key(|problem| match &problem.at {
            Origin::File(range) => (range.start, String::new()),
            Origin::Variable { name, .. } => (usize::MAX, name.to_string()),
        });
        let shown = self.shown.borrow();
        let secret = scalars.iter().filter(|scalar| !shown.contains(scalar));
        let secret = secret.cloned().chain(comments(text, scalars));
        let text = mask(text, secret);
        Some(Report::new(&found, path, &text))
    }

    fn explain(&self, unknown: UnknownKey) -> Problem {
        let UnknownKey { at, section, key } = unknown;
        let accepted = self.accepted.borrow();
        let here: Vec<_> = accepted
            .iter()
            .filter(|(of, _)| *of == section)
            .map(|(_, key)| *key)
            .collect();
        let elsewhere = accepted.iter().find(|(_, name)| *name == key);
        let label = match (nearest(&key, &here), elsewhere) {
            (Some(name), _) => format!("did you mean `{name}`?"),
            (None, Some((of, _))) if of.is_empty() => {
                format!("`{key}` belongs at the top, before any [section]")
            }
            (None, Some((of, _))) => format!("`{key}` belongs in [{of}]"),
            (None, None) => "unknown here".to_owned(),
        };
        Problem {
            at,
            title: format!("unknown key `{}`", dotted(&section, &key)),
            label,
            help: Some(format!("valid keys here: {}", here.join(", "))),
        }
    }
}

/// So many problems are drawn: a file that is something else altogether has thousands.
const DRAWN: usize = 20;

/// Of a file that is no TOML. `errors`: at least one.
pub(super) fn syntax_errors(errors: Vec<SyntaxError>, path: &str, text: &str) -> Report {
    let problem = |error: SyntaxError| Problem {
        at: Origin::File(error.at),
        title: "not valid TOML".to_owned(),
        label: error.message,
        help: None,
    };
    let problems: Vec<_> = errors.into_iter().map(problem).collect();
    Report::new(&problems, path, &mask_lines(text))
}

/// The name of `key` in the section at `path`.
pub(super) fn dotted(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        _ => format!("{path}.{key}"),
    }
}

/// The candidate that differs by few enough letters to be what was meant.
fn nearest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

fn draw(problem: &Problem, path: &str, text: &str) -> String {
    let title = Level::ERROR.primary_title(&problem.title);
    let mut group: Group<'_> = match &problem.at {
        Origin::File(range) => title.element(
            Snippet::source(text).path(path).annotation(
                AnnotationKind::Primary
                    .span(within(text, range))
                    .label(&problem.label),
            ),
        ),
        Origin::Variable { name, .. } => title.element(
            Level::NOTE.message(format!("environment variable {name}: {}", problem.label)),
        ),
    };
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(help));
    }
    Renderer::plain().render(&[group])
}

/// The range, cut to characters that `text` has.
fn within(text: &str, range: &Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(range.start);
    start..text.ceil_char_boundary(range.end).max(start)
}

/// The text with these ranges made unreadable, every byte at its place.
fn mask(text: &str, secrets: impl Iterator<Item = Range<usize>>) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for range in secrets {
        for byte in &mut bytes[range] {
            if !matches!(byte, b'\n' | b'\r') {
                *byte = b'*';
            }
        }
    }
    String::from_utf8(bytes).expect("scalars begin and end between characters")
}

/// Where the comments are of a text whose values are `scalars`: some were settings once.
fn comments(text: &str, scalars: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut comments: Vec<Range<usize>> = Vec::new();
    for (start, _) in text.match_indices('#') {
        let is_in_comment = comments.last().is_some_and(|last| start < last.end);
        if !is_in_comment && !scalars.iter().any(|scalar| scalar.contains(&start)) {
            let line = &text[start..];
            let end = start + line.find('\n').unwrap_or(line.len());
            comments.push(start + 1..end);
        }
    }
    comments
}

/// The text of a file that cannot be parsed, so that nobody knows where its secrets stand: a line
/// keeps its `[section]` or `key =`, and a value that is not quoted where nothing speaks of a secret.
fn mask_lines(text: &str) -> String {
    let mut start = 0;
    let mut secrets = Vec::new();
    for line in text.split_inclusive('\n') {
        let end = start + line.len();
        secrets.push(start + readable(line)..end);
        start = end;
    }
    mask(text, secrets.into_iter())
}

/// How many bytes at the line's beginning hold no secret for sure. A value is shown only if it looks like a
/// number, a word, a duration, or an address and a port: a URL may have a password in it, and so may a comment.
fn readable(line: &str) -> usize {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let name_and_rest = line.trim_start().trim_start_matches('[');
    let rest = name_and_rest.trim_start_matches(bare);
    // A line of a list may look like a key, as base64 does with its final `=`, but no key is as
    // long as an encoded key.
    if name_and_rest.len() - rest.len() > 32 {
        return 0;
    }
    let rest = rest.trim_start();
    match rest.strip_prefix('=') {
        Some(value) => {
            let names_secret = ["key", "password"]
                .iter()
                .any(|word| name_and_rest.contains(word));
            let is_address = |c: char| c.is_ascii_digit() || matches!(c, '.' | ':');
            let value = value.trim();
            match value.chars().all(bare) || value.chars().all(is_address) {
                true if !names_secret => line.len(),
                _ => line.len() - rest.len() + 1,
            }
        }
        // The end of a `[section]`.
        None if rest.trim_end().trim_matches(']').is_empty() => line.len(),
        None => 0,
    }
}

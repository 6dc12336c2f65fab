//! The crate as its files use each other: the tree of its modules, and where each path leads.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::slice;

use super::paths::{self, Module, Written};
use super::tokens::tokens;

/// A path of the code that begins with `crate` or `super`.
#[derive(Clone, Debug, PartialEq)]
pub struct Use {
    pub file: String,
    pub line: usize,
    /// The room that it stands in, and the one that it names: a module of the crate's root with all
    /// below it. `None` is the root itself.
    pub rooms: (Option<String>, Option<String>),
    /// The file in which what it names really stands.
    pub to: String,
}

impl Use {
    /// The rooms, if they are two.
    pub fn arrow(&self) -> Option<(&str, &str)> {
        let (from, to) = (self.rooms.0.as_deref()?, self.rooms.1.as_deref()?);
        (from != to).then_some((from, to))
    }

    /// The files, if they are two and neither holds a module of the other: a module and those in it
    /// are one thing that is told in parts.
    pub fn files(&self) -> Option<(&str, &str)> {
        let holds = |one: &str, other: &str| {
            let folder = one.strip_suffix(".rs").unwrap_or(one);
            one == "lib.rs" || other.starts_with(&format!("{folder}/"))
        };
        let (from, to) = (&*self.file, &*self.to);
        (from != to && !holds(from, to) && !holds(to, from)).then_some((from, to))
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}", self.file, self.line)
    }
}

/// Reads the crate whose `lib.rs` and `main.rs` lie in `folder`.
pub fn read(folder: &Path) -> Vec<Use> {
    read_with(&|file| {
        fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("src/{file}: {error}"))
    })
}

/// Reads the crate whose files have these texts.
fn read_with(text: &dyn Fn(&str) -> String) -> Vec<Use> {
    let mut code = Code::default();
    code.add(text, "lib.rs", Vec::new());
    code.add(text, "main.rs", vec![MAIN.to_owned()]);
    code.uses()
}

/// `main.rs` is a crate of its own: a room that names the library by its name.
const MAIN: &str = "main";
const LIBRARY: &str = "damoov_proxy";

#[derive(Default)]
struct Code {
    /// Where each module's items stand.
    files: BTreeMap<Module, String>,
    paths: Vec<Written>,
    /// What a module calls by a name of its own, and where that comes from.
    imports: BTreeMap<(Module, String), Vec<String>>,
}

impl Code {
    fn add(&mut self, text: &dyn Fn(&str) -> String, file: &str, module: Module) {
        // A module may be declared twice, with another visibility for each feature.
        if self.files.contains_key(&module) {
            return;
        }
        let said = paths::read(&tokens(&text(file)), &module);
        for module in said.here {
            self.files.insert(module, file.to_owned());
        }
        for path in &said.paths {
            if let Some(name) = &path.name {
                let key = (path.module.clone(), name.clone());
                self.imports.insert(key, path.segments.clone());
            }
        }
        self.paths.extend(said.paths);
        for module in said.elsewhere {
            self.add(text, &format!("{}.rs", module.join("/")), module);
        }
    }

    fn uses(&self) -> Vec<Use> {
        let uses = self.paths.iter().filter_map(|path| {
            let first = path.segments[0].as_str();
            if !matches!(first, "crate" | "super" | LIBRARY) {
                return None;
            }
            let (module, segments) = (&path.module, &path.segments);
            let written = self.resolve(module, segments, Names::AsWritten)?;
            let real = self.resolve(module, segments, Names::Followed(10))?;
            Some(Use {
                file: self.files[module].clone(),
                line: path.line,
                rooms: (module.first().cloned(), written.first().cloned()),
                to: self.files[&real].clone(),
            })
        });
        uses.collect()
    }

    /// The module that holds what the path names, looked at from `module`.
    fn resolve(&self, module: &Module, segments: &[String], names: Names) -> Option<Module> {
        let below = |at: &Module, name| [at, slice::from_ref(name)].concat();
        let (first, mut rest) = segments.split_first()?;
        let mut at = match first.as_str() {
            "crate" | LIBRARY => Vec::new(),
            "self" => module.clone(),
            "super" => above(module)?,
            _ if self.files.contains_key(&below(module, first)) => {
                rest = segments;
                module.clone()
            }
            _ => return None,
        };
        while let Some((segment, behind)) = rest.split_first() {
            if segment == "super" {
                at = above(&at)?;
            } else if self.files.contains_key(&below(&at, segment)) {
                at = below(&at, segment);
            } else {
                let followed = self.follow(&at, segment, names);
                return Some(followed.unwrap_or(at));
            }
            rest = behind;
        }
        Some(at)
    }

    /// Where a module has this name from, if a `use` brought it.
    fn follow(&self, module: &Module, name: &str, names: Names) -> Option<Module> {
        let Names::Followed(steps) = names else {
            return None;
        };
        let path = self.imports.get(&(module.clone(), name.to_owned()))?;
        let steps = steps.checked_sub(1)?;
        self.resolve(module, path, Names::Followed(steps))
    }
}

#[derive(Clone, Copy)]
enum Names {
    AsWritten,
    /// Through so many `use`s at most.
    Followed(u8),
}

fn above(module: &Module) -> Option<Module> {
    let (_, above) = module.split_last()?;
    Some(above.to_vec())
}

#[cfg(test)]
mod tests {
    use super::{Use, read_with};

    fn uses(files: &[(&str, &str)]) -> Vec<Use> {
        let text = |file: &str| {
            let found = files.iter().find(|(name, _)| *name == file);
            found.map_or("", |(_, text)| text).to_owned()
        };
        read_with(&text)
    }

    fn arrows(files: &[(&str, &str)]) -> Vec<String> {
        let arrow = |found: &Use| {
            let (from, to) = found.arrow()?;
            Some(format!("{found} {from} → {to}"))
        };
        uses(files).iter().filter_map(arrow).collect()
    }

    fn files(files: &[(&str, &str)]) -> Vec<String> {
        let edge = |found: &Use| {
            let (from, to) = found.files()?;
            Some(format!("{from} → {to}"))
        };
        uses(files).iter().filter_map(edge).collect()
    }

    #[test]
    fn an_arrow_goes_from_room_to_room() {
        let code = [
            ("lib.rs", "mod a; mod b; mod c { pub struct C; }"),
            ("main.rs", "use damoov_proxy::a;"),
            ("a.rs", "mod d;\nuse crate::b::B;"),
            (
                "a/d.rs",
                "\nuse super::super::c::C; use super::E; use crate::F;",
            ),
            ("b.rs", "#[cfg(test)] mod tests;"),
            ("b/tests.rs", "use crate::a;"),
        ];
        assert_eq!(
            arrows(&code),
            [
                "src/a.rs:2 a → b",
                "src/a/d.rs:2 a → c",
                "src/main.rs:1 main → a",
            ]
        );
    }

    #[test]
    fn a_name_is_followed_to_the_file_that_it_stands_in() {
        let code = [
            ("lib.rs", "mod a;"),
            (
                "a.rs",
                "mod b; mod c; pub use b::{B, x::Y as Z}; use self::c::C;",
            ),
            ("a/b.rs", "pub mod x; use super::C; use super::A;"),
            ("a/b/x.rs", "use super::X; use super::super::c::c;"),
            ("a/c.rs", "use crate::a::{B, Z}; use super::b;"),
        ];
        assert_eq!(
            files(&code),
            [
                "a/b.rs → a/c.rs",
                "a/b/x.rs → a/c.rs",
                "a/c.rs → a/b.rs",
                "a/c.rs → a/b/x.rs",
                "a/c.rs → a/b.rs",
            ]
        );
    }
}

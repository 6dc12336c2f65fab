//! What one file says of others: the modules that it declares, and its paths.

use super::tokens::Token;

/// A module's path from the crate's root.
pub type Module = Vec<String>;

/// What a file says.
#[derive(Default)]
pub struct Said {
    /// The modules whose items stand in this file.
    pub here: Vec<Module>,
    /// The modules that have a file of their own.
    pub elsewhere: Vec<Module>,
    /// Every path that begins with `crate` or `super`, and every `use` of whatever it begins with.
    pub paths: Vec<Written>,
}

/// A path as it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    pub line: usize,
    /// The module that it stands in.
    pub module: Module,
    pub segments: Vec<String>,
    /// What a `use` calls it.
    pub name: Option<String>,
}

/// Reads the file that holds `module`.
pub fn read(tokens: &[Token<'_>], module: &Module) -> Said {
    let mut said = Said::default();
    said.here.push(module.clone());
    // The modules that are open, each with the depth at which its brace stands.
    let mut open = vec![(0, module.clone())];
    let mut depth = 0;
    let mut reader = Reader { tokens, at: 0 };
    while let Some(token) = reader.token(0) {
        let module = open[open.len() - 1].1.clone();
        match token.text {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if open.len() > 1 && open[open.len() - 1].0 == depth {
                    open.pop();
                }
            }
            "mod" if reader.text(2) == ";" || reader.text(2) == "{" => {
                let module = [module, vec![reader.text(1).to_owned()]].concat();
                if reader.text(2) == "{" {
                    said.here.push(module.clone());
                    open.push((depth, module));
                } else {
                    said.elsewhere.push(module);
                }
                reader.at += 2;
                continue;
            }
            "use" if reader.text(1) != "<" => {
                reader.at += 1;
                reader.leaves(&module, Vec::new(), &mut said.paths);
                continue;
            }
            "crate" | "super" if reader.text(1) == "::" => {
                let path = reader.path(&module);
                said.paths.push(path);
                continue;
            }
            _ => {}
        }
        reader.at += 1;
    }
    said
}

struct Reader<'t> {
    tokens: &'t [Token<'t>],
    at: usize,
}

impl<'t> Reader<'t> {
    fn token(&self, ahead: usize) -> Option<&Token<'t>> {
        self.tokens.get(self.at + ahead)
    }

    fn text(&self, ahead: usize) -> &'t str {
        self.token(ahead).map_or("", |token| token.text)
    }

    /// A path outside of `use`, to its last segment: `a::b::<C>::d` is `a::b`.
    fn path(&mut self, module: &Module) -> Written {
        let line = self.tokens[self.at].line;
        let mut segments = vec![self.text(0).to_owned()];
        self.at += 1;
        while self.text(0) == "::" && is_word(self.text(1)) {
            segments.push(self.text(1).to_owned());
            self.at += 2;
        }
        Written {
            line,
            module: module.clone(),
            segments,
            name: None,
        }
    }

    /// What a `use` names behind `before`, group by group; stops behind it.
    fn leaves(&mut self, module: &Module, before: Vec<String>, paths: &mut Vec<Written>) {
        let mut segments = before.clone();
        let (mut name, mut at) = (None, 0);
        while let Some(&Token { text, line }) = self.token(0) {
            self.at += 1;
            match text {
                "::" => {}
                "{" => {
                    self.leaves(module, std::mem::take(&mut segments), paths);
                    continue;
                }
                "as" => {
                    name = Some(self.text(0).to_owned());
                    self.at += 1;
                }
                "," | "}" | ";" => {
                    if segments.len() > before.len() {
                        // `a::{self}` is `a`.
                        segments.pop_if(|last| last == "self");
                        paths.push(Written {
                            line: at,
                            module: module.clone(),
                            name: name.take().or_else(|| segments.last().cloned()),
                            segments,
                        });
                    }
                    segments = before.clone();
                    if text != "," {
                        return;
                    }
                }
                _ => {
                    segments.push(text.to_owned());
                    at = line;
                }
            }
        }
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::{Module, read};
    use crate::house::tokens::tokens;

    fn module(path: &str) -> Module {
        path.split("::").map(str::to_owned).collect()
    }

    /// The paths of a file that holds `a::b`, with the modules that they stand in and their lines.
    fn paths(source: &str) -> Vec<String> {
        let said = read(&tokens(source), &module("a::b"));
        let paths = said.paths.iter().map(|path| {
            let (module, segments) = (path.module.join("::"), path.segments.join("::"));
            let name = path.name.as_ref().map(|name| format!(" as {name}"));
            format!(
                "{} {module}: {segments}{}",
                path.line,
                name.unwrap_or_default()
            )
        });
        paths.collect()
    }

    #[test]
    fn paths_are_read_wherever_they_stand() {
        for (source, expected) in [
            ("fn x() -> crate::c::D { }", "1 a::b: crate::c::D"),
            ("super::super::c::d::<E>(f)", "1 a::b: super::super::c::d"),
            ("<crate::C as D>::e", "1 a::b: crate::C"),
            (
                "macro_rules! c { () => { $crate::d::e!() } }",
                "1 a::b: crate::d::e",
            ),
            ("pub(in crate::a) fn c() { }", "1 a::b: crate::a"),
            (
                "
#[c(crate::d)] struct E;",
                "2 a::b: crate::d",
            ),
        ] {
            assert_eq!(paths(source), [expected], "{source}");
        }
        let none = "pub(crate) fn a(self, b: B::crate_) { self::c(); x::y() } // crate::z";
        assert_eq!(paths(none), [""; 0]);
    }

    #[test]
    fn a_use_names_each_leaf_of_its_groups() {
        for (source, expected) in [
            ("use crate::c;", &["1 a::b: crate::c as c"][..]),
            (
                "pub use crate::c::{D, E as F,};",
                &["1 a::b: crate::c::D as D", "1 a::b: crate::c::E as F"],
            ),
            (
                "pub(crate) use super::{
  c::{D, e::{self, F}},
  G,
};",
                &[
                    "2 a::b: super::c::D as D",
                    "2 a::b: super::c::e as e",
                    "2 a::b: super::c::e::F as F",
                    "3 a::b: super::G as G",
                ],
            ),
            (
                "use {crate::c::*, super::super::d}; use e::F;",
                &[
                    "1 a::b: crate::c::* as *",
                    "1 a::b: super::super::d as d",
                    "1 a::b: e::F as F",
                ],
            ),
            (
                "fn x() -> impl Y + use<'_, Z> { use crate::c; }",
                &["1 a::b: crate::c as c"],
            ),
        ] {
            assert_eq!(paths(source), expected, "{source}");
        }
    }

    #[test]
    fn a_path_stands_in_the_module_that_is_open() {
        let source = "mod c { fn x() { { super::d } } mod e { use super::f; } } super::g; mod h;";
        assert_eq!(
            paths(source),
            [
                "1 a::b::c: super::d",
                "1 a::b::c::e: super::f as f",
                "1 a::b: super::g",
            ]
        );
        let said = read(&tokens(source), &module("a::b"));
        assert_eq!(said.here, ["a::b", "a::b::c", "a::b::c::e"].map(module));
        assert_eq!(said.elsewhere, [module("a::b::h")]);
    }
}

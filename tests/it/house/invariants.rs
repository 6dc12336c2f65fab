//! The tests that lib.rs names for its invariants.
//!
//! A path names a test, with `*` the module's tests, with `…` those whose names begin or end so:
//! `a::b::c`, `a::*`, `a::b::c_…`, and behind one of these `…_d` and `…::e`, which begin as it does.

use std::fs;
use std::path::Path;

/// The paths in backticks behind each `**I1**`, with the invariant's number.
pub fn tests_named(lib: &str) -> Vec<(usize, String)> {
    let docs = lib.lines().filter_map(|line| line.strip_prefix("//!"));
    let chapter: Vec<_> = docs
        .skip_while(|line| line.trim() != "# Invariants")
        .collect();
    let mut named: Vec<(usize, String)> = Vec::new();
    for invariant in chapter.join(" ").split("**I").skip(1) {
        let Some((number, text)) = invariant.split_once("**") else {
            continue;
        };
        let number = number
            .parse()
            .unwrap_or_else(|_| panic!("**I{number}** is no number"));
        for path in text.split('`').skip(1).step_by(2) {
            let before = named.last().map_or("", |(_, path)| path);
            let full = match path.strip_prefix('…') {
                Some(end) => {
                    let (module, _) = before.rsplit_once("::").unwrap_or_default();
                    let end = end
                        .strip_prefix("::")
                        .map_or(format!("…{end}"), str::to_owned);
                    format!("{module}::{end}")
                }
                None => path.to_owned(),
            };
            if full.contains("::") {
                named.push((number, full));
            }
        }
    }
    named
}

/// Whether the tests of the integration binary, or of the crate, have one that the path names.
pub fn exists(root: &Path, path: &str) -> bool {
    let file = |folder: &str, module: &str| {
        let file = root
            .join(folder)
            .join(format!("{}.rs", module.replace("::", "/")));
        fs::read_to_string(file).ok()
    };
    let Some((module, name)) = path.rsplit_once("::") else {
        return false;
    };
    let Some(text) = file("tests/it", module) else {
        // A room of the crate, with tests of its own.
        let has_tests = |text: String| text.contains("#[test]");
        return [path, &format!("{path}::tests")]
            .iter()
            .any(|module| file("src", module).is_some_and(has_tests));
    };
    let mut names = text
        .split("fn ")
        .skip(1)
        .filter_map(|text| text.split_once('(').map(|(name, _)| name));
    match name {
        "*" => text.contains("#[test]") || text.contains("#[tokio::test"),
        _ => names.any(
            |found| match (name.strip_prefix('…'), name.strip_suffix('…')) {
                (Some(end), _) => found.ends_with(end),
                (_, Some(start)) => found.starts_with(start),
                _ => found == name,
            },
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::tests_named;

    #[test]
    fn paths_in_backticks_are_the_tests_of_the_invariant_before_them() {
        let lib = "//! `a::b`\n//! # Invariants\n//!\n//! - **I1** `x` is. `a::b::c_…`,\n//!   `…_d`\n\
                   //! - **I2** More. `e::*`, `…::f`\nmod a;\n";
        let named = tests_named(lib);
        let named: Vec<_> = named.iter().map(|(n, path)| (*n, &**path)).collect();
        assert_eq!(
            named,
            [(1, "a::b::c_…"), (1, "a::b::…_d"), (2, "e::*"), (2, "e::f")]
        );
    }
}

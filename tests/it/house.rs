//! The house that lib.rs describes is the one that stands: the arrows between rooms, how many floors
//! there are, no circles of files, and the tests of the invariants.

mod code;
mod graph;
mod invariants;
mod paths;
mod plan;
mod tokens;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use code::Use;
use graph::Graph;
use plan::Plan;

/// The most rooms that stand upon each other.
const FLOORS: usize = 9;

/// The most letters of a test's name, and of any function's.
const NAME: usize = 70;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

static CODE: LazyLock<Vec<Use>> = LazyLock::new(|| code::read(&folder("src")));

fn rooms() -> Graph<'static> {
    CODE.iter().filter_map(Use::arrow).collect()
}

fn lib() -> String {
    fs::read_to_string(folder("src/lib.rs")).unwrap()
}

/// The Rust files below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
    let mut files: Vec<_> = files
        .into_iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    files.extend(folders.iter().flat_map(|folder| files_below(folder)));
    files
}

/// What a use connects.
type Ends = fn(&'static Use) -> Option<(&'static str, &'static str)>;

/// An arrow with the places in the code that it comes from, one a line.
fn places(arrow: (&str, &str), ends: Ends) -> String {
    let uses = CODE.iter().filter(|found| ends(found) == Some(arrow));
    let lines: BTreeSet<_> = uses.map(|found| format!("    {found}\n")).collect();
    let (from, to) = arrow;
    format!("  {from} → {to}\n{}", String::from_iter(lines))
}

/// The same for each arrow of a chain.
fn places_along(chain: &[&str], ends: Ends) -> String {
    let arrows = chain.windows(2).map(|pair| (pair[0], pair[1]));
    arrows.map(|arrow| places(arrow, ends)).collect()
}

fn places_of_circles(circles: &[Vec<&str>], ends: Ends) -> String {
    let circles = circles.iter().map(|circle| places_along(circle, ends));
    circles.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_arrows_of_lib_rs_are_those_of_the_code() {
    let (rooms, lib) = (rooms(), lib());
    let circles = places_of_circles(&rooms.circles(), Use::arrow);
    assert!(
        circles.is_empty(),
        "rooms use each other in circles:\n{circles}"
    );
    let drawn = plan::draw(&rooms);
    let plan = Plan::read(&lib).unwrap_or_else(|error| panic!("{error}\n\n{drawn}"));
    let named = plan.arrows();
    let mut errors = String::new();
    for arrow in rooms.without(&named).arrows() {
        errors += &format!("lib.rs does not name\n{}", places(arrow, Use::arrow));
    }
    for (from, to) in named.without(&rooms).arrows() {
        errors += &format!("the code has no arrow {from} → {to}\n");
    }
    for (from, to) in plan.not_down() {
        errors += &format!("{from} → {to} does not lead down in lib.rs\n");
    }
    assert!(errors.is_empty(), "{errors}lib.rs is right with\n\n{drawn}");
}

#[test]
fn the_house_has_few_floors() {
    let chain = rooms().longest_chain();
    assert!(
        chain.len() <= FLOORS,
        "{} rooms stand upon each other, at most {FLOORS} should: {}\n{}",
        chain.len(),
        chain.join(" → "),
        places_along(&chain, Use::arrow)
    );
}

#[test]
fn files_use_each_other_in_no_circle() {
    let files: Graph<'_> = CODE.iter().filter_map(Use::files).collect();
    let circles = places_of_circles(&files.circles(), Use::files);
    assert!(
        circles.is_empty(),
        "files use each other in circles:\n{circles}"
    );
}

#[test]
fn in_credentials_the_vault_and_the_guards_use_what_is_below_them_only() {
    let below = |file: &str, part: &str| file.starts_with(&format!("credentials/{part}"));
    let upwards = CODE.iter().filter_map(Use::files).filter(|(from, to)| {
        let from_vault = below(from, "vault");
        let from_guards = below(from, "guards");
        let above = ["renewal", "engine", "provider"];
        from_vault && below(to, "guards")
            || (from_vault || from_guards) && above.iter().any(|part| below(to, part))
    });
    let upwards: BTreeSet<_> = upwards.collect();
    assert!(upwards.is_empty(), "{upwards:#?}");
    let files = CODE.iter().filter_map(Use::files);
    let down = files.filter(|(from, to)| below(from, "guards") && below(to, "vault"));
    assert!(down.count() > 0, "no file of these names is read");
}

#[test]
fn every_invariant_names_tests_that_there_are() {
    let lib = lib();
    let named = invariants::tests_named(&lib);
    for number in 1..=10 {
        let tests = named.iter().filter(|(invariant, _)| *invariant == number);
        assert!(tests.count() > 0, "I{number} names no test");
    }
    let missing: Vec<_> = named
        .iter()
        .filter(|(_, path)| !invariants::exists(&folder(""), path))
        .collect();
    assert!(missing.is_empty(), "there are no such tests: {missing:#?}");
}

#[test]
fn names_of_functions_are_short_enough_to_be_read_at_once() {
    let files = [files_below(&folder("src")), files_below(&folder("tests"))].concat();
    assert!(files.len() > 300, "{} files", files.len());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for name in text.split("fn ").skip(1) {
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_');
            let name = &name[..end.unwrap_or(name.len())];
            let length = name.len();
            assert!(length <= NAME, "{}: {name}: {length}", file.display());
        }
    }
}

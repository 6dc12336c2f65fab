//! The plan in lib.rs's documentation: a line for each room that uses others, from the top down, and
//! one for the ground floor. Lines that begin with a space go on with the one before.

use std::collections::BTreeMap;
use std::mem;

use super::graph::Graph;

/// Stands before the block that holds the plan.
const HEADING: &str = "An arrow means \"may use\"";
const ARROW: &str = " → ";
const GROUND: &str = "ground floor: ";
const WIDTH: usize = 96;

/// Each room with those that it may use, from the top down.
#[derive(Debug, PartialEq)]
pub struct Plan<'t>(Vec<(&'t str, Vec<&'t str>)>);

impl<'t> Plan<'t> {
    /// Reads the plan in the text of lib.rs.
    pub fn read(lib: &'t str) -> Result<Plan<'t>, String> {
        let docs = lib.lines().filter_map(|line| line.strip_prefix("//!"));
        let block = docs
            .map(|line| line.strip_prefix(' ').unwrap_or(line))
            .skip_while(|line| !line.starts_with(HEADING))
            .skip_while(|line| !line.starts_with("```"))
            .skip(1)
            .take_while(|line| !line.starts_with("```"));
        let mut rows: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut on_ground = false;
        for line in block {
            let names = if let Some((room, names)) = line.split_once(ARROW) {
                on_ground = false;
                rows.push((room.trim(), Vec::new()));
                names
            } else if let Some(names) = line.strip_prefix(GROUND) {
                on_ground = true;
                names
            } else {
                line
            };
            let goes_on = names.len() < line.len() || line.starts_with(' ');
            let rooms = names.trim().trim_end_matches(',').split(',').map(str::trim);
            for name in rooms {
                let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_');
                match rows.last_mut() {
                    _ if !goes_on || !is_name || name.is_empty() => return Err(odd(line)),
                    _ if on_ground => rows.push((name, Vec::new())),
                    Some((_, uses)) => uses.push(name),
                    None => return Err(odd(line)),
                }
            }
        }
        match rows.is_empty() {
            true => Err(format!("lib.rs has no block behind a line `{HEADING}`")),
            false => Ok(Plan(rows)),
        }
    }

    /// The arrows that it names.
    pub fn arrows(&self) -> Graph<'t> {
        let arrows = self.0.iter();
        arrows
            .flat_map(|(from, uses)| uses.iter().map(|to| (*from, *to)))
            .collect()
    }

    /// Its arrows that do not lead down: to rooms that stand before, or nowhere.
    pub fn not_down(&self) -> Vec<(&'t str, &'t str)> {
        let floors: BTreeMap<_, _> = self
            .0
            .iter()
            .enumerate()
            .map(|(at, row)| (row.0, at))
            .collect();
        let arrows = self.arrows();
        let leads_down = |(from, to): &(&str, &str)| floors.get(to) > floors.get(from);
        arrows.arrows().filter(|arrow| !leads_down(arrow)).collect()
    }
}

fn odd(line: &str) -> String {
    format!("`{line}` is neither `room{ARROW}room, room` nor `{GROUND}room, room`, nor more of it")
}

/// Writes the plan of arrows that form no circle.
pub fn draw(arrows: &Graph<'_>) -> String {
    let mut rooms: Vec<_> = arrows.floors().into_iter().collect();
    rooms.sort_by_key(|(room, floor)| (usize::MAX - floor, *room));
    let width = rooms.iter().map(|(room, _)| room.len()).max().unwrap_or(0);
    let mut lines = String::new();
    let mut ground = Vec::new();
    for (room, floor) in rooms {
        if floor == 1 {
            ground.push(room);
        } else {
            let names: Vec<_> = arrows.below(room).collect();
            write_row(&mut lines, &format!("{room:width$}{ARROW}"), &names);
        }
    }
    write_row(&mut lines, GROUND, &ground);
    lines
}

fn write_row(lines: &mut String, start: &str, names: &[&str]) {
    let indent = start.chars().count();
    let mut line = start.to_owned();
    for (at, name) in names.iter().enumerate() {
        let comma = if at + 1 < names.len() { "," } else { "" };
        let fits = line.chars().count() + name.len() + comma.len() <= WIDTH;
        if !fits {
            let full = mem::replace(&mut line, " ".repeat(indent));
            *lines += &format!("//! {}\n", full.trim_end());
        }
        line += &format!("{name}{comma} ");
    }
    *lines += &format!("//! {}\n", line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::{Plan, draw};

    fn lib(plan: &str) -> String {
        let plan: String = plan.lines().map(|line| format!("//! {line}\n")).collect();
        format!(
            "//! A crate.\n//!\n//! ```text\n//! a → b\n//! ```\n//! An arrow means \"may use\", down:\n//!\n//! ```text\n{plan}//! ```\n//! More.\nmod a;"
        )
    }

    #[test]
    fn a_plan_is_read() {
        let text = lib("main → a\na    → b, c,\n       d\nground floor: b, c,\n  d");
        let plan = Plan::read(&text).unwrap();
        let arrows = plan.arrows();
        let arrows: Vec<_> = arrows.arrows().collect();
        assert_eq!(arrows, [("a", "b"), ("a", "c"), ("a", "d"), ("main", "a")]);
        assert_eq!(plan.not_down(), []);
    }

    #[test]
    fn an_arrow_leads_to_a_room_that_stands_further_down() {
        let text = lib("a → c\nb → a, b, c, d\nground floor: c");
        let plan = Plan::read(&text).unwrap();
        assert_eq!(plan.not_down(), [("b", "a"), ("b", "b"), ("b", "d")]);
    }

    #[test]
    fn anything_else_is_no_plan() {
        for plan in [
            "a uses b",
            "a → b\nb, c",
            "  a, b",
            "a → b → c",
            "a → b (c)",
            "a → ",
            "",
        ] {
            assert!(Plan::read(&lib(plan)).is_err(), "{plan}");
        }
        assert!(Plan::read("//! A crate.\n").is_err());
    }

    #[test]
    fn a_plan_is_drawn_as_it_is_read() {
        let names: Vec<_> = (1..=30).map(|number| format!("room_{number}")).collect();
        let mut arrows = vec![("main", "room_1"), ("a", "b")];
        arrows.extend(names[1..].iter().map(|name| ("room_1", &**name)));
        let graph = arrows.into_iter().collect();
        let drawn = draw(&graph);
        assert!(drawn.lines().all(|line| line.chars().count() <= 100));
        let drawn = drawn.replace("//! ", "");
        assert!(
            drawn.starts_with("main    → room_1\na       → b\nroom_1  → room_10,"),
            "{drawn}"
        );
        let text = lib(&drawn);
        let plan = Plan::read(&text).unwrap();
        assert_eq!((plan.arrows(), plan.not_down()), (graph, vec![]));
    }
}

//! Arrows between named things: circles, and the longest chain.

use std::collections::{BTreeMap, BTreeSet};

/// Each name with those that it has an arrow to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph<'n>(BTreeMap<&'n str, BTreeSet<&'n str>>);

impl<'n> FromIterator<(&'n str, &'n str)> for Graph<'n> {
    fn from_iter<I: IntoIterator<Item = (&'n str, &'n str)>>(arrows: I) -> Graph<'n> {
        let mut graph = Graph::default();
        for (from, to) in arrows {
            graph.add(from);
            graph.add(to);
            graph.0.entry(from).or_default().insert(to);
        }
        graph
    }
}

impl<'n> Graph<'n> {
    /// Adds a name that may have no arrows.
    pub fn add(&mut self, name: &'n str) {
        self.0.entry(name).or_default();
    }

    pub fn names(&self) -> impl Iterator<Item = &'n str> {
        self.0.keys().copied()
    }

    pub fn arrows(&self) -> impl Iterator<Item = (&'n str, &'n str)> {
        let arrows = |(from, to): (&&'n str, &BTreeSet<&'n str>)| {
            let from = *from;
            to.clone().into_iter().map(move |to| (from, to))
        };
        self.0.iter().flat_map(arrows)
    }

    /// Those that `name` has an arrow to.
    pub fn below(&self, name: &str) -> impl Iterator<Item = &'n str> {
        self.0.get(name).into_iter().flatten().copied()
    }

    /// Without the arrows of another.
    pub fn without(&self, other: &Graph<'_>) -> Graph<'n> {
        let has = |(from, to): &(&str, &str)| other.below(from).any(|name| name == *to);
        self.arrows().filter(|arrow| !has(arrow)).collect()
    }

    /// The shortest way along arrows, both ends included.
    fn way(&self, from: &'n str, to: &str) -> Option<Vec<&'n str>> {
        let mut ways = vec![vec![from]];
        let mut seen = BTreeSet::new();
        while !ways.is_empty() {
            let mut longer = Vec::new();
            for way in ways {
                for next in self.below(way[way.len() - 1]) {
                    let way = [&way[..], &[next]].concat();
                    if next == to {
                        return Some(way);
                    }
                    if seen.insert(next) {
                        longer.push(way);
                    }
                }
            }
            ways = longer;
        }
        None
    }

    /// Circles, each begun and ended with the same name: the shortest through each name that no
    /// circle before it holds.
    pub fn circles(&self) -> Vec<Vec<&'n str>> {
        let mut circles: Vec<Vec<_>> = Vec::new();
        for name in self.names() {
            if !circles.iter().flatten().any(|other| *other == name) {
                circles.extend(self.way(name, name));
            }
        }
        circles
    }

    /// The floor of each name, if there is no circle: 1 without arrows, else one above the highest
    /// of those that it has arrows to.
    pub fn floors(&self) -> BTreeMap<&'n str, usize> {
        let mut floors = BTreeMap::new();
        while floors.len() < self.0.len() {
            let known = floors.len();
            for name in self.names() {
                let below: Option<Vec<usize>> = self
                    .below(name)
                    .map(|below| floors.get(below).copied())
                    .collect();
                if let Some(below) = below {
                    floors.insert(name, 1 + below.into_iter().max().unwrap_or(0));
                }
            }
            assert!(known < floors.len(), "there is a circle");
        }
        floors
    }

    /// The longest chain of arrows, if there is no circle.
    pub fn longest_chain(&self) -> Vec<&'n str> {
        let floors = self.floors();
        let highest =
            |names: &mut dyn Iterator<Item = &'n str>| names.max_by_key(|name| floors[name]);
        let mut chain = Vec::from_iter(highest(&mut self.names()));
        while let Some(next) = chain.last().and_then(|last| highest(&mut self.below(last))) {
            chain.push(next);
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::Graph;

    fn graph<'n>(arrows: &[(&'n str, &'n str)]) -> Graph<'n> {
        arrows.iter().copied().collect()
    }

    #[test]
    fn circles_are_found_with_their_shortest_way() {
        let arrows = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "b"), ("d", "e")];
        assert_eq!(graph(&arrows).circles(), [["b", "c", "d", "b"]]);
        let shorter = [&arrows[..], &[("c", "b")]].concat();
        assert_eq!(
            graph(&shorter).circles(),
            [&["b", "c", "b"][..], &["d", "b", "c", "d"]]
        );
        let cut = graph(&arrows).without(&graph(&[("d", "b"), ("x", "y")]));
        assert_eq!(cut.circles(), Vec::<Vec<&str>>::new());
    }

    #[test]
    fn a_name_stands_above_the_highest_that_it_has_an_arrow_to() {
        let graph = graph(&[
            ("a", "b"),
            ("b", "c"),
            ("a", "c"),
            ("d", "c"),
            ("e", "d"),
            ("f", "e"),
        ]);
        let floors = graph.floors();
        let floors: Vec<_> = ["a", "b", "c", "d", "e", "f"]
            .map(|name| floors[name])
            .into();
        assert_eq!(floors, [3, 2, 1, 2, 3, 4]);
        assert_eq!(graph.longest_chain(), ["f", "e", "d", "c"]);
    }
}

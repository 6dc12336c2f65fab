//! What the README lists is what there is: routes, settings, metrics and commands.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use damoov_proxy::damoov::routes::Table;

use crate::harness::{SCORES, captured, damoov, proxy};

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// What follows the heading, to the next one of any level.
fn chapter(heading: &str) -> String {
    let readme = file("README.md");
    let mut in_it = false;
    let lines = readme.lines().filter(|line| {
        if line.starts_with('#') && !line.starts_with("#!") {
            in_it = line.trim_start_matches('#').trim() == heading;
            return false;
        }
        in_it
    });
    let text: Vec<_> = lines.collect();
    assert!(!text.is_empty(), "there is no chapter {heading}");
    text.join("\n")
}

/// What stands in backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The rows of a chapter's tables, as their cells.
fn rows(chapter: &str) -> impl Iterator<Item = Vec<&str>> {
    chapter
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| ---"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
}

#[test]
fn its_table_of_routes_is_the_built_in_one() {
    let table = Table::new(Vec::new(), None);
    let mut rows: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for route in table.routes() {
        let methods: Vec<_> = route.methods.iter().map(|m| format!("{m} ")).collect();
        let path = format!("`{}{}`", methods.concat(), route.path);
        let row = (route.host.clone(), route.credential.to_string());
        rows.entry(row).or_default().insert(path);
    }
    let mut lines = "| host | credential | paths |\n| --- | --- | --- |\n".to_owned();
    for ((host, credential), paths) in rows {
        let paths: Vec<_> = paths.into_iter().collect();
        lines += &format!("| {host} | `{credential}` | {} |\n", paths.join(", "));
    }
    let chapter = chapter("Hosts, routes, credentials");
    assert!(chapter.contains(&lines), "the table to paste:\n\n{lines}");
}

#[test]
fn its_table_of_settings_has_every_key_of_the_full_example() {
    let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in file("config/damoov-proxy.toml").lines() {
        let line = line.strip_prefix('#').unwrap_or(line);
        if line.starts_with('[') {
            section = line.to_owned();
        } else if let Some((key, _)) = line.split_once(" = ")
            && key
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b"_0123456789".contains(&b))
        {
            keys.entry(section.clone())
                .or_default()
                .insert(key.to_owned());
        }
    }
    // Its keys are hosts.
    keys.entry("[upstream]".to_owned())
        .or_default()
        .insert("hosts".to_owned());
    keys.remove("[upstream.hosts]");
    let chapter = chapter("Configuration");
    let mut listed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows(&chapter).filter(|row| row[0] != "table") {
        let section = row[0].trim_matches('`').to_owned();
        let keys = code(row[1]).map(str::to_owned);
        listed.entry(section).or_default().extend(keys);
    }
    assert!(listed.len() > 8, "{listed:?}");
    assert_eq!(listed, keys);
}

#[tokio::test]
async fn its_table_of_metrics_has_every_one_that_is_served() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    damoov.handle().expire(None);
    proxy.get(1, SCORES).await;
    let metrics = proxy.status("/metrics").await.text();
    let served: BTreeSet<_> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            match kind {
                "info" => format!("{name}_info"),
                "counter" if !name.ends_with("_total") => format!("{name}_total"),
                _ => name.to_owned(),
            }
        })
        .filter(|name| name.starts_with("damoov_proxy_"))
        .collect();
    let chapter = chapter("Metrics");
    let listed: BTreeSet<_> = rows(&chapter)
        .flat_map(|row| code(row[0]).map(str::to_owned).collect::<Vec<_>>())
        .map(|name| name.replace('…', "damoov_proxy"))
        .filter(|name| name.starts_with("damoov_proxy_"))
        .collect();
    assert!(listed.len() > 10, "{listed:?}");
    assert_eq!(listed, served);
}

#[tokio::test]
async fn its_chapter_on_the_command_line_has_every_command() {
    let chapter = chapter("Command line");
    for parent in [&[][..], &["tokens"]] {
        let mut help = Command::new(env!("CARGO_BIN_EXE_damoov-proxy"));
        help.args(parent).arg("--help");
        let help = String::from_utf8(captured(help).await.stdout).unwrap();
        let commands: Vec<_> = help
            .lines()
            .skip_while(|line| *line != "Commands:")
            .skip(1)
            .take_while(|line| !line.is_empty())
            .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next())
            .filter(|command| *command != "help")
            .collect();
        assert!(commands.len() > 3, "{help}");
        for command in commands {
            let is_named = |line: &str| {
                let mut words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
                words.any(|word| word == command)
            };
            assert!(chapter.lines().any(is_named), "{command} is not in it");
        }
    }
}

//! `config/grafana/dashboard.json`: every expression finds series, and the file is one that Grafana imports.

use std::collections::BTreeSet;
use std::fs;

use damoov_proxy::simulator::{Action, Fault, On};
use serde_json::Value;

use super::config;
use super::server::{WINDOW, watch, with_short_windows};
use crate::harness::{SCORES, damoov, eventually, proxy};

fn dashboard() -> Value {
    let text = fs::read_to_string(config("grafana/dashboard.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn each<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    value[name].as_array().into_iter().flatten()
}

/// Every expression with its variables, as a panel, an annotation or a variable asks.
fn expressions(dashboard: &Value) -> Vec<String> {
    let panels = each(dashboard, "panels").flat_map(|panel| each(panel, "targets"));
    let annotations = each(&dashboard["annotations"], "list");
    let asked = panels
        .chain(annotations)
        .map(|asks| asks["expr"].as_str().unwrap().to_owned());
    let variables = each(&dashboard["templating"], "list")
        .filter(|variable| variable["type"] == "query")
        .map(|variable| {
            // The series whose labels are listed.
            let query = variable["query"]["query"].as_str().unwrap();
            let series = query.strip_prefix("label_values(").unwrap();
            series.rsplit_once(',').unwrap().0.to_owned()
        });
    asked.chain(variables).collect()
}

#[tokio::test]
async fn every_expression_of_the_dashboard_finds_series() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let watched = watch("dashboard", &proxy).await;
    damoov
        .handle()
        .add_fault(Fault::new(On::Data, Action::status(500)));
    for _ in 0..5 {
        proxy.get(1, SCORES).await;
    }
    // One alert is shown.
    watched.fires("DamoovProxyApiErrors").await;
    let expressions = expressions(&dashboard());
    assert!(expressions.len() > 40);
    for expression in expressions {
        let asked = expression
            .replace("[$__rate_interval]", WINDOW)
            .replace("$job", "damoov-proxy")
            .replace("$instance", "dashboard");
        let asked = with_short_windows(&asked);
        assert!(!asked.contains('$'), "{asked}");
        let what = format!("{asked} finds series");
        eventually(&what, async || {
            proxy.get(1, SCORES).await;
            !watched.finds(&asked).await.is_empty()
        })
        .await;
    }
}

#[test]
fn its_data_source_is_a_variable_and_no_panel_covers_another() {
    let dashboard = dashboard();
    let variables: Vec<_> = each(&dashboard["templating"], "list").collect();
    assert_eq!(
        (&variables[0]["type"], &variables[0]["name"]),
        (&"datasource".into(), &"datasource".into())
    );
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in each(&dashboard, "panels") {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(x + w <= 24, "{panel}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(
                cells.insert(cell),
                "{} covers another panel",
                panel["title"]
            );
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(
            panel["description"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{panel}"
        );
        for asks in each(panel, "targets").chain([panel]) {
            assert_eq!(asks["datasource"]["uid"], "${datasource}", "{panel}");
        }
    }
}

#[test]
fn the_first_row_of_the_dashboard_says_whether_something_is_wrong() {
    let dashboard = dashboard();
    let rows = each(&dashboard, "panels").filter(|panel| panel["type"] == "row");
    let titles: Vec<_> = rows.map(|row| row["title"].as_str().unwrap()).collect();
    let first = ["Is something wrong?", "Who is hurt?"];
    assert_eq!(titles[..2], first);
}

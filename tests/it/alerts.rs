//! What `config/` holds for Prometheus and Grafana, in the real Prometheus: each alert fires by a fault and
//! ends with it, in time, and every expression finds series.

// The server of Prometheus that all tests of this binary share.
mod server;
// Each alert made to fire and to end: by faults of Damoov, of the store, of the process.
mod damoov_faults;
mod process_faults;
mod store_faults;
// After how long each alert fires, by promtool.
mod timings;
// What Grafana shows.
mod dashboard;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use self::server::prometheus;
use crate::harness::programs;

/// The faults, where each alert must stand.
const FAULTS: [&str; 3] = [
    include_str!("alerts/damoov_faults.rs"),
    include_str!("alerts/process_faults.rs"),
    include_str!("alerts/store_faults.rs"),
];

/// A file of `config/`.
fn config(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config")
        .join(name)
}

/// The alerts as Prometheus has read them.
async fn alerts() -> Vec<Value> {
    let groups = prometheus().await.api("rules", "type=alert").await;
    let groups = groups["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    rules.cloned().collect()
}

#[test]
fn promtool_finds_nothing_in_the_rules() {
    let mut check = programs::promtool();
    check
        .arg("check")
        .arg("rules")
        .arg("--lint=all")
        .arg("--lint-fatal");
    let output = check.arg(config("prometheus/alerts.yml")).output();
    let output = output.unwrap_or_else(|error| panic!("promtool: {error}; {}", programs::HINT));
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{said}");
}

#[tokio::test]
async fn each_alert_has_a_fault_and_says_what_whom_and_where_to_read_on() {
    let alerts = alerts().await;
    assert!(alerts.len() > 20);
    let readme = fs::read_to_string(config("../README.md")).unwrap();
    for alert in &alerts {
        let name = alert["name"].as_str().unwrap();
        let quoted = format!("\"{name}\"");
        assert!(
            FAULTS.iter().any(|faults| faults.contains(&quoted)),
            "{name} never fires"
        );
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}: {severity}"
        );
        let annotations = alert["annotations"].as_object().unwrap();
        let says: BTreeSet<_> = annotations.keys().map(String::as_str).collect();
        assert_eq!(
            says,
            BTreeSet::from(["description", "runbook_url", "summary"]),
            "{name}"
        );
        let anchor = name.to_lowercase();
        assert_eq!(annotations["runbook_url"], format!("README.md#{anchor}"));
        assert!(
            readme.contains(&format!("<a id=\"{anchor}\"></a>")),
            "README.md has no {anchor}"
        );
    }
}

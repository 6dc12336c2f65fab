//! `/metrics`, as the tools of others read it.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;

use damoov_proxy::damoov::routes::Table;
use damoov_proxy::metrics::{Bounds, Metrics};
use http::Request;

use crate::harness::{ECHO, Proxy, SCORES, damoov, programs, proxy};

/// What Debian's promtool has against the metrics of this proxy.
async fn objections(proxy: &Proxy) -> String {
    let metrics = proxy.status("/metrics").await;
    assert_eq!(
        metrics.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let mut promtool = programs::promtool()
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool: {error}; {}", programs::HINT));
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(metrics.content()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[tokio::test]
async fn promtool_finds_nothing_before_traffic_and_after_it() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    assert_eq!(objections(&proxy).await, "");
    proxy.get(1, SCORES).await;
    damoov.handle().expire(None);
    proxy.get(1, SCORES).await;
    proxy.get(1, "/nowhere").await;
    proxy.get(1, ECHO).await;
    assert_eq!(objections(&proxy).await, "");
}

#[tokio::test]
async fn every_series_of_an_alert_is_there_from_the_first_scrape() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let metrics = proxy.status("/metrics").await.text();
    for (family, series) in [
        ("requests_total{route=\"none\"", 18),
        ("requests_total{route=\"/indicators/v3\"", 18),
        ("request_duration_seconds_count{route=\"/indicators/v3\"", 1),
        (
            "upstream_duration_seconds_count{host=\"api.telematicssdk.com\"",
            1,
        ),
        ("token_lookups_total{", 4),
        ("renewals_total{grant=\"refresh\"", 25),
        ("renewals_total{grant=\"login\"", 25),
        ("renewal_duration_seconds_count{", 2),
        ("renewals_joined_total ", 1),
        ("replays_total{", 4),
        ("auth_answers_unreadable_total{endpoint=\"login\"", 6),
        ("login_blocked_seconds ", 1),
        ("login_budget_next_seconds ", 1),
        ("principals_contested ", 1),
        ("logins_suspended ", 1),
        ("requests_in_flight ", 1),
        ("replay_memory_bytes ", 1),
        ("live_connections ", 1),
        ("access_events_lost_total ", 1),
        ("log_lines_lost_total{", 3),
    ] {
        let at_zero = |line: &&str| {
            line.strip_prefix("damoov_proxy_")
                .is_some_and(|line| line.starts_with(family))
                && matches!(line.rsplit(' ').next(), Some("0" | "0.0"))
        };
        let found = metrics.lines().filter(at_zero).count();
        assert_eq!(found, series, "{family} in\n{metrics}");
    }
    let failed = "store_operations_total{operation=\"commit\",result=\"failed\"} 0";
    assert!(metrics.contains(failed), "{metrics}");
    for (name, value) in [
        ("ready", 1.0),
        ("login_budget_limit", 4.0),
        ("login_budget_remaining", 4.0),
    ] {
        assert_eq!(proxy.metric(name, "").await, value, "{name}");
    }
}

#[tokio::test]
async fn open_metrics_is_for_those_that_ask_for_it() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let url = format!("http://{}/metrics", proxy.status_address());
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4";
    let request = Request::get(url).header("Accept", accept);
    let request = request.body(Default::default()).unwrap();
    let answer = proxy.client().send(request).await.unwrap();
    assert_eq!(
        answer.header("content-type"),
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let text = answer.text();
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    for line in [
        "# TYPE damoov_proxy_replays counter",
        "# TYPE process_cpu_seconds counter",
        "# UNIT process_cpu_seconds seconds",
        "# TYPE damoov_proxy_build info",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    let classic = proxy.status("/metrics").await.text();
    assert!(!classic.contains("# EOF") && !classic.contains("# UNIT"));
}

#[tokio::test]
async fn the_process_is_measured_as_prometheus_own_clients_do() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let metrics = proxy.status("/metrics").await.text();
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        let line = line.unwrap_or_else(|| panic!("{name} is not in\n{metrics}"));
        line.trim().parse::<f64>().unwrap()
    };
    let resident = proxy.resident() as f64;
    let told = value("process_resident_memory_bytes ");
    assert!((told / resident - 1.0).abs() < 0.3, "{told} of {resident}");
    assert!(value("process_virtual_memory_bytes ") >= told);
    assert!(value("process_open_fds ") >= 10.0);
    assert!(value("process_max_fds ") >= value("process_open_fds "));
    assert!(value("process_threads ") >= 3.0);
    assert!(value("process_cpu_seconds_total ") < 60.0);
    let now = jiff::Timestamp::now().as_second() as f64;
    let started = value("process_start_time_seconds ");
    assert!((now - 60.0..=now + 2.0).contains(&started), "{started}");
}

#[tokio::test]
async fn there_are_no_more_series_than_the_readme_says() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let text = proxy.status("/metrics").await.text();
    let at_first = text.lines().filter(|line| !line.starts_with('#')).count();
    let table = Table::new(Vec::new(), None);
    let labels: BTreeSet<_> = table.routes().map(|route| route.label()).collect();
    let hosts: BTreeSet<_> = table.hosts().collect();
    let most = |routes, hosts| {
        let bounds = Bounds { routes, hosts };
        Metrics::most_series(bounds)
    };
    // Requests without a route have a label of their own.
    let (routes, hosts) = (labels.len() + 1, hosts.len());
    let (all, none) = (most(routes, hosts), most(0, 0));
    assert!(at_first < all, "{at_first}");
    // Rounded up, so that a further metric seldom changes the sentence.
    let (few, many) = (at_first.next_multiple_of(100), all.next_multiple_of(1000));
    let sentence = format!(
        "A new process has fewer than {few} series, and never more than {many}, which would take a request \
         of each method, status class and outcome on each route; a `[[route]]` adds up to {}, and another \
         host {}.",
        most(1, 0) - none,
        most(0, 1) - none
    );
    let readme = include_str!("../../README.md").split_whitespace();
    let readme = readme.collect::<Vec<_>>().join(" ");
    assert!(
        readme.contains(&sentence),
        "README.md does not say: {sentence}"
    );
}

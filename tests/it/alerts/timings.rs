//! After how long each alert fires and ends, by `promtool test rules` on the file as it stands: what the real
//! server cannot be waited for.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use super::config;
use crate::harness::{captured, programs};

/// Samples of a minute.
const PER_MINUTE: usize = 2;
/// When the fault begins, when it ends, and when the series end; in minutes.
const BEGINS: usize = 60;
const ENDS: usize = 200;
const OVER: usize = 300;
/// What a window, the next scrape and the next evaluation may take.
const SLACK: usize = 3;

/// An alert, and the series that it looks at.
struct Timing {
    alert: &'static str,
    series: Vec<Series>,
    /// Minutes from the fault until it fires, at least.
    after: usize,
    /// Minutes of its longest window.
    window: usize,
}

/// A series with and without the fault.
enum Series {
    Gauge(&'static str, [f64; 2]),
    /// Grows by this with each sample.
    Counter(&'static str, [f64; 2]),
}

use Series::{Counter, Gauge};

#[rustfmt::skip]
fn timings() -> Vec<Timing> {
    let gauge = |alert, name, values, after| Timing {
        alert, series: vec![Gauge(name, values)], after, window: 0,
    };
    let counter = |alert, name, after, window| Timing {
        alert, series: vec![Counter(name, [0.0, 1.0])], after, window,
    };
    let several = |alert, after, window, series| Timing { alert, series, after, window };
    vec![
        gauge("DamoovProxyDown", "up", [1.0, 0.0], 2),
        gauge("DamoovProxyNotReady", "damoov_proxy_ready", [1.0, 0.0], 2),
        gauge("DamoovProxyLoginsBlocked", "damoov_proxy_login_blocked_seconds", [0.0, 60.0], 1),
        gauge("DamoovProxyLoginsSuspended", "damoov_proxy_logins_suspended", [0.0, 1.0], 1),
        gauge("DamoovProxyPrincipalsContested", "damoov_proxy_principals_contested", [0.0, 2.0], 15),
        gauge("DamoovProxyStoreAway", "damoov_proxy_store_away", [0.0, 1.0], 1),
        gauge("DamoovProxyOutboxWaits", "damoov_proxy_store_outbox_pairs", [0.0, 3.0], 10),
        gauge("DamoovProxyNoStandby", "damoov_proxy_store_standby", [1.0, 0.0], 15),
        gauge("DamoovProxyClockOffset", "damoov_proxy_store_clock_offset_seconds", [2.0, -2.5], 10),
        gauge("DamoovProxyConfigRefused", "damoov_proxy_config_last_reload_successful", [1.0, 0.0], 1),
        gauge("DamoovProxyRestartNeeded", "damoov_proxy_config_restart_needed", [0.0, 1.0], 60),
        counter("DamoovProxyReplaysRejected", "damoov_proxy_replays_total{result='rejected'}", 15, 10),
        counter("DamoovProxyConnectionsUsedUp", "damoov_proxy_answers_cut_total{reason='gave_way'}", 10, 10),
        counter("DamoovProxyLoginsRejected",
            "damoov_proxy_renewals_total{grant='login',result='rejected'}", 5, 15),
        counter("DamoovProxyKnownUsersLogIn",
            "damoov_proxy_renewals_total{grant='login',result='ok',trigger='rejected'}", 0, 60),
        counter("DamoovProxyAuthAnswersUnreadable",
            "damoov_proxy_auth_answers_unreadable_total{endpoint='login',reason='not_json'}", 0, 15),
        counter("DamoovProxyOldPairsRejected", "damoov_proxy_old_pairs_rejected_total", 0, 60),
        counter("DamoovProxyStoreFailing",
            "damoov_proxy_store_operations_total{operation='commit',result='failed'}", 5, 5),
        counter("DamoovProxyRecordsUnreadable",
            "damoov_proxy_store_operations_total{operation='load',result='unknown_key'}", 0, 15),
        counter("DamoovProxyStoreWentBack", "damoov_proxy_store_went_back_total", 0, 60),
        counter("DamoovProxyLogLinesLost", "damoov_proxy_log_lines_lost_total{target='audit'}", 0, 5),
        several("DamoovProxyUpstreamFailing", 5, 5, vec![
                Counter("damoov_proxy_requests_total{outcome='forwarded',status_class='2xx'}", [94.0, 94.0]),
                Counter("damoov_proxy_requests_total{outcome='upstream_error',status_class='5xx'}", [4.0, 6.0]),
        ]),
        several("DamoovProxyApiErrors", 10, 5, vec![
                Counter("damoov_proxy_requests_total{outcome='forwarded',status_class='2xx'}", [94.0, 94.0]),
                Counter("damoov_proxy_requests_total{outcome='replayed',status_class='5xx'}", [4.0, 6.0]),
        ]),
        several("DamoovProxyLoginsRefused", 15, 5, vec![
                Counter("damoov_proxy_renewals_total{grant='login',result='refused'}", [0.0, 1.0]),
                Gauge("damoov_proxy_login_blocked_seconds", [0.0, 0.0]),
                Gauge("damoov_proxy_logins_suspended", [0.0, 0.0]),
        ]),
        several("DamoovProxyRenewalsFailing", 10, 5, vec![
                Counter("damoov_proxy_renewals_total{grant='refresh',result='ok'}", [2.0, 1.0]),
                Counter("damoov_proxy_renewals_total{grant='refresh',result='failed'}", [1.0, 2.0]),
        ]),
    ]
}

impl Series {
    /// Its name with its labels, and those of a target of this name.
    fn full_name(&self, target: &str) -> String {
        let (Gauge(name, _) | Counter(name, _)) = self;
        let target = format!("job=\"damoov-proxy\",instance=\"{target}\"");
        let name = name.replace('\'', "\"");
        match name.strip_suffix('}') {
            Some(labelled) => format!("{labelled},{target}}}"),
            None => format!("{name}{{{target}}}"),
        }
    }

    fn values(&self) -> String {
        let mut sum = 0.0;
        let values = (0..OVER * PER_MINUTE).map(|sample| {
            let minute = sample / PER_MINUTE;
            let fault = usize::from((BEGINS..ENDS).contains(&minute));
            match self {
                Gauge(_, values) => values[fault].to_string(),
                Counter(_, steps) => {
                    sum += steps[fault];
                    sum.to_string()
                }
            }
        });
        values.collect::<Vec<_>>().join(" ")
    }
}

impl Timing {
    /// The minutes at which it is looked at, and whether it fires then.
    fn looks(&self) -> Vec<(usize, bool)> {
        let mut looks = vec![(BEGINS - 1, false)];
        if self.after > 0 {
            looks.push((BEGINS + self.after - 1, false));
        }
        looks.push((BEGINS + self.after + SLACK, true));
        looks.push((ENDS - 1, true));
        looks.push((ENDS + self.window + SLACK, false));
        looks
    }

    /// The series of a target that has the name of the alert.
    fn write_series(&self, tests: &mut String) {
        for series in &self.series {
            let (name, values) = (series.full_name(self.alert), series.values());
            writeln!(
                tests,
                "      - series: '{name}'\n        values: '{values}'"
            )
            .unwrap();
        }
    }

    /// What is expected of that target.
    fn write_looks(&self, tests: &mut String) {
        let alert = self.alert;
        for (minute, fires) in self.looks() {
            let firing = format!(
                "ALERTS{{alertname=\"{alert}\",instance=\"{alert}\",alertstate=\"firing\"}}"
            );
            let value = u8::from(fires);
            writeln!(tests, "      - expr: 'count({firing}) or vector(0)'").unwrap();
            writeln!(tests, "        eval_time: {minute}m").unwrap();
            writeln!(
                tests,
                "        exp_samples: [{{ labels: '{{}}', value: {value} }}]"
            )
            .unwrap();
        }
    }
}

#[tokio::test]
async fn each_alert_fires_after_its_time_and_ends_after_its_window() {
    let rules = config("prometheus/alerts.yml");
    let text = fs::read_to_string(&rules).unwrap();
    let written = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let written: BTreeSet<_> = written.collect();
    let timed: BTreeSet<_> = timings().iter().map(|timing| timing.alert).collect();
    assert_eq!(timed, written);

    let mut tests = format!(
        "rule_files: ['{}']\nevaluation_interval: 30s\ntests:\n",
        rules.display()
    );
    // One run for all of them: each run evaluates every rule.
    tests += "  - interval: 30s\n    input_series:\n";
    let timings = timings();
    timings
        .iter()
        .for_each(|timing| timing.write_series(&mut tests));
    tests += "    promql_expr_test:\n";
    timings
        .iter()
        .for_each(|timing| timing.write_looks(&mut tests));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("timings.yml");
    fs::write(&file, tests).unwrap();
    let mut promtool = programs::promtool();
    promtool.arg("test").arg("rules").arg(&file);
    let output = captured(promtool).await;
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{said}");
}

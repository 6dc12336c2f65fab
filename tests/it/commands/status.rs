//! The status listener: `/livez`, `/readyz` and `/metrics`.

use damoov_proxy::simulator::LoginLimit;

use crate::harness::{ECHO, ECHO_HOST, SCORES, damoov, damoov_with, proxy, user};

#[tokio::test]
async fn the_status_listener_tells_health_and_every_metric() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    for path in ["/livez", "/readyz", "/startupz"] {
        assert_eq!(proxy.status(path).await.status, 200, "{path}");
    }
    proxy.get(1, SCORES).await;
    damoov.handle().expire(None);
    proxy.get(1, SCORES).await;
    let metrics = proxy.status("/metrics").await.text();
    for name in [
        "requests_total{",
        "request_duration_seconds_bucket{",
        "requests_in_flight ",
        "token_lookups_total{freshness=\"fresh\"}",
        "token_lookups_total{freshness=\"absent\"}",
        "renewals_total{grant=\"login\",trigger=\"missing\",result=\"ok\"} 1",
        "renewals_total{grant=\"refresh\",trigger=\"rejected\",result=\"ok\"} 1",
        "renewal_duration_seconds_bucket{",
        "renewals_joined_total ",
        "replays_total{result=\"ok\"} 1",
        "login_budget_remaining ",
        "login_blocked_seconds 0",
        "principals_contested 0",
        "store_operations_total{",
        "tokens_cached 1",
        "tokens_stored 1",
        "replay_memory_bytes 0",
        "upstream_connections ",
        "live_connections 0",
        "access_events_lost_total 0",
        "build_info{",
    ] {
        let line = format!("\ndamoov_proxy_{name}");
        assert!(metrics.contains(&line), "{name} is not in\n{metrics}");
    }
    let scores = "requests_total{route=\"/indicators/v3\",method=\"GET\",status_class=\"2xx\"";
    for outcome in ["forwarded", "replayed"] {
        let line = format!("{scores},outcome=\"{outcome}\"}} 1");
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
    let names_a_user = metrics.contains(&user(1).to_string());
    assert!(!names_a_user, "{metrics}");
}

#[tokio::test]
async fn what_is_damoovs_fault_is_degraded_and_ready() {
    let damoov = damoov_with(|settings| {
        settings.login_limit = Some(LoginLimit {
            calls: 1,
            ..LoginLimit::default()
        });
    })
    .await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let proxy = proxy(&damoov).redirect(ECHO_HOST, &nowhere).start().await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    let healthy = proxy.status("/readyz").await.text();
    assert_eq!(healthy, r#"{"ok":true,"reasons":[],"degraded":[]}"#);
    assert_eq!(proxy.get(2, SCORES).await.status, 503);
    assert_eq!(proxy.get(1, ECHO).await.status, 502);
    let ready = proxy.status("/readyz").await;
    assert_eq!(ready.status, 200);
    let said: serde_json::Value = serde_json::from_slice(ready.content()).unwrap();
    let codes: Vec<_> = said["degraded"].as_array().unwrap().iter().collect();
    let codes: Vec<_> = codes.iter().map(|one| one["code"].as_str()).collect();
    assert_eq!(codes, [Some("login_blocked"), Some("upstream_unreachable")]);
    let since = said["degraded"][0]["since"].as_str().unwrap();
    assert!(since.parse::<jiff::Timestamp>().is_ok(), "{since}");
    assert_eq!(proxy.metric("ready", "").await, 1.0);
}

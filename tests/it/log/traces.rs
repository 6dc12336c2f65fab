//! Traces of callers: `traceparent` and `tracestate` go on as they came, and the access line names the trace.

use http::Request;
use serde_json::Value;

use super::objects;
use crate::harness::{ECHO, Scene, eventually, user};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const STATE: &str = "vendor=opaque , other=%41";

/// Asks as user 1 with these `traceparent` lines.
async fn ask(scene: &Scene, traceparents: &[&str]) -> u16 {
    let mut request = Request::get(ECHO)
        .header("DeviceToken", user(1).to_string())
        .header("tracestate", STATE);
    for traceparent in traceparents {
        request = request.header("Traceparent", *traceparent);
    }
    scene.proxy.send(request).await.status.as_u16()
}

/// The access lines, once there are as many.
async fn access_lines(scene: &Scene, count: usize) -> Vec<Value> {
    let lines = || {
        let log = scene.proxy.log();
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        let mut lines = objects(whole);
        lines.retain(|line| line["target"] == "access");
        lines
    };
    eventually("access lines", async || lines().len() >= count).await;
    lines()
}

#[tokio::test]
async fn a_traceparent_passes_unchanged_and_a_valid_one_is_logged() {
    let scene = Scene::new().await;
    let cases: [(&[&str], Option<&str>); 8] = [
        (&[], None),
        (&[VALID], Some(TRACE)),
        (&[VALID, VALID], None),
        (
            &["cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            None,
        ),
        (
            &["00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"],
            None,
        ),
        (
            &["00-00000000000000000000000000000000-b7ad6b7169203331-01"],
            None,
        ),
        (
            &["00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"],
            None,
        ),
        (&["nonsense\"} and more"], None),
    ];
    for (traceparents, _) in &cases {
        assert_eq!(ask(&scene, traceparents).await, 200);
        let heard = scene.heard().headers;
        let passed: Vec<_> = heard.get_all("traceparent").iter().collect();
        assert_eq!(passed, *traceparents);
        assert_eq!(heard["tracestate"], STATE);
    }
    let lines = access_lines(&scene, cases.len()).await;
    let logged: Vec<_> = lines.iter().map(|line| line["trace_id"].as_str()).collect();
    let expected: Vec<_> = cases.iter().map(|(_, logged)| *logged).collect();
    assert_eq!(logged, expected);
    assert!(!scene.proxy.log().contains("b7ad6b7169203331"));
}

#[tokio::test]
async fn a_replay_is_part_of_the_same_trace() {
    let scene = Scene::new().await;
    assert_eq!(ask(&scene, &[VALID]).await, 200);
    scene.damoov.handle().expire(None);
    assert_eq!(ask(&scene, &[VALID]).await, 200);
    let mut requests = scene.damoov.handle().requests();
    requests.retain(|request| request.target.starts_with(ECHO));
    assert_eq!(requests.len(), 3, "{requests:?}");
    assert!(
        requests
            .iter()
            .all(|heard| heard.headers["traceparent"] == VALID)
    );
    let lines = access_lines(&scene, 2).await;
    assert_eq!(lines[1]["replayed"], true);
    assert_eq!(lines[1]["trace_id"], TRACE);
}

#[tokio::test]
async fn a_refused_request_names_its_trace_as_well() {
    let scene = Scene::new().await;
    let request = Request::get("/nowhere").header("traceparent", VALID);
    assert_eq!(scene.proxy.send(request).await.status, 404);
    let lines = access_lines(&scene, 1).await;
    assert_eq!(
        (&lines[0]["code"], &lines[0]["trace_id"]),
        (&"route_unknown".into(), &TRACE.into())
    );
}

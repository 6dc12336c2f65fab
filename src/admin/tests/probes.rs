//! What probes are answered, by whom, and in which state.

use super::*;

async fn answered(scene: &Scene, method: Method, path: &str) -> Response<Bytes> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "pod-7.example:9091");
    asked(scene, Serves::Health, request).await
}

async fn get(status: &Scene, path: &str) -> (u16, serde_json::Value) {
    let answer = answered(status, Method::GET, path).await;
    let json = serde_json::from_slice(answer.body()).unwrap_or_default();
    (answer.status().as_u16(), json)
}

#[tokio::test]
async fn a_store_that_cannot_be_written_is_not_ready_and_says_why() {
    let full = store::Error::Unwritable("disk full".to_owned());
    let status = scene(Some(Still {
        unwritable: Some(full),
        ..Still::default()
    }));
    let (code, said) = get(&status, "/readyz").await;
    assert_eq!((code, &said["ok"]), (503, &false.into()));
    assert_eq!(said["reasons"][0]["code"], "store_unwritable");
    let why = said["reasons"][0]["message"].as_str().unwrap();
    assert!(why.contains("disk full"), "{why}");
    assert_eq!(get(&status, "/livez").await.0, 200);
    assert_eq!(get(&status, "/startupz").await.0, 200);
}

#[tokio::test]
async fn before_the_store_is_open_it_is_starting_and_alive() {
    let status = scene(None);
    for path in ["/readyz", "/startupz"] {
        let (code, said) = get(&status, path).await;
        assert_eq!(
            (code, &said["reasons"][0]["code"]),
            (503, &"starting".into())
        );
    }
    assert_eq!(get(&status, "/livez").await.0, 200);
    assert!(status.engine.set(well().unwrap()).is_ok());
    assert_eq!(get(&status, "/readyz").await.0, 200);
    assert_eq!(get(&status, "/startupz").await.0, 200);
}

#[tokio::test]
async fn while_requests_drain_it_is_not_ready() {
    let status = scene(well());
    for stage_of_the_end in [Stage::Leaving, Stage::Draining, Stage::Stopping] {
        status.stage.send_replace(stage_of_the_end);
        let (code, said) = get(&status, "/readyz").await;
        assert_eq!(
            (code, &said["reasons"][0]["code"]),
            (503, &"draining".into())
        );
        assert_eq!(get(&status, "/livez").await.0, 200);
    }
}

#[tokio::test]
async fn what_does_not_keep_it_from_serving_is_degraded_since_it_was_seen_first() {
    let blocked = (Code::LoginBlocked, "for 60 s".to_owned());
    let status = scene(Some(Still {
        conditions: vec![blocked],
        ..Still::default()
    }));
    let (code, first) = get(&status, "/readyz").await;
    assert_eq!((code, &first["ok"]), (200, &true.into()));
    assert_eq!(first["reasons"], serde_json::json!([]));
    assert_eq!(first["degraded"][0]["code"], "login_blocked");
    assert_eq!(first["degraded"][0]["message"], "for 60 s");
    let since = first["degraded"][0]["since"].as_str().unwrap();
    assert!(since.parse::<jiff::Timestamp>().is_ok(), "{since}");
    assert_eq!(get(&status, "/readyz").await.1, first);
}

#[tokio::test]
async fn a_store_that_is_away_is_degraded_since_then_and_never_unready() {
    let away = store::Away {
        since: std::time::SystemTime::UNIX_EPOCH,
        why: "no route to db1".to_owned(),
    };
    let status = scene(Some(Still {
        away: Some(away),
        ..Still::default()
    }));
    let (code, said) = get(&status, "/readyz").await;
    assert_eq!((code, &said["ok"]), (200, &true.into()));
    assert_eq!(said["degraded"][0]["code"], "store_away");
    assert_eq!(said["degraded"][0]["since"], "1970-01-01T00:00:00Z");
    let message = said["degraded"][0]["message"].as_str().unwrap();
    assert!(message.contains("no route to db1"), "{message}");
}

#[tokio::test]
async fn nothing_but_get_and_head_and_nothing_but_its_own_paths() {
    let status = scene(well());
    for method in [Method::POST, Method::DELETE, Method::TRACE] {
        for path in ["/livez", "/startupz", "/readyz", "/metrics"] {
            let answer = answered(&status, method.clone(), path).await;
            assert_eq!(answer.status(), 405);
            assert_eq!(answer.headers()[header::ALLOW], "GET, HEAD");
            let said: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
            assert_eq!(said["Errors"][0]["Key"], "method_unknown");
        }
        assert_eq!(answered(&status, method, "/trips").await.status(), 404);
    }
    assert_eq!(
        answered(&status, Method::HEAD, "/livez").await.status(),
        200
    );
    assert_eq!(get(&status, "/trips").await.0, 404);
    assert_eq!(get(&status, "/livez/../metrics").await.0, 404);
}

#[tokio::test]
async fn probes_answer_any_host_and_metrics_those_that_are_served() {
    let (address, _stage) = listening().await;
    for (head, expected) in [
        (
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\n",
            "damoov_proxy_build_info",
        ),
        (
            "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n",
            "misdirected",
        ),
        (
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n",
            "origin_forbidden",
        ),
        (
            "GET /readyz HTTP/1.1\r\nHost: evil.example\r\n",
            "HTTP/1.1 200 OK",
        ),
        ("GET /livez HTTP/1.0\r\n", "HTTP/1.0 200 OK"),
        (
            "HEAD /readyz HTTP/1.1\r\nHost: pod-7\r\n",
            "HTTP/1.1 200 OK",
        ),
    ] {
        let answer = exchange(address, head).await;
        assert!(answer.contains(expected), "{answer}");
        let has_no_content = answer.ends_with("\r\n\r\n");
        assert_eq!(has_no_content, head.starts_with("HEAD"), "{answer}");
    }
}

//! Every fault does what it says, and only that.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// Whether an answer is spoilt as asked.
type Check = fn(&Answered) -> bool;

#[tokio::test]
async fn a_lost_answer_has_rotated_the_pair() {
    for lost in [Lost::Reset, Lost::Half, Lost::Hang] {
        let (simulator, client) = start(unlimited()).await;
        let pair = client.log_in(USER).await;
        let fault = Fault::new(On::Refresh, Action::Lose(lost)).times(1);
        simulator.handle().add_fault(fault);
        match lost {
            Lost::Hang => {
                let mut call = Box::pin(client.refresh(&pair));
                // The rotation is counted before the hang begins.
                while simulator.handle().counts().total.refreshes.lost == 0 {
                    let turn = tokio::time::timeout(Duration::from_millis(1), &mut call);
                    assert!(turn.await.is_err(), "no answer ever comes");
                }
            }
            Lost::Reset | Lost::Half => {
                let error = client.refresh(&pair).await.unwrap_err();
                let cut = if lost == Lost::Reset { "reset" } else { "body" };
                assert!(error.contains(cut), "{error}");
            }
        }
        assert_eq!(client.refresh(&pair).await.unwrap().status, 401, "{lost:?}");
        let counted = simulator.handle().counts_of(&user(USER)).refreshes;
        assert_eq!(
            (counted.lost, counted.rejected, counted.issued()),
            (1, 1, 1)
        );
        simulator.shutdown().await;
    }
}

#[tokio::test]
async fn a_reset_connection_has_rotated_nothing() {
    let (simulator, client) = start(unlimited()).await;
    let pair = client.log_in(USER).await;
    simulator
        .handle()
        .add_fault(Fault::new(On::Refresh, Action::Reset).times(2));
    for _ in 0..2 {
        assert!(client.refresh(&pair).await.is_err());
    }
    assert_eq!(client.refresh(&pair).await.unwrap().status, 200);
    assert_eq!(
        simulator.handle().counts_of(&user(USER)).refreshes.failed,
        2
    );
    simulator.shutdown().await;
}

#[tokio::test]
async fn every_kind_of_garbage_is_what_it_says() {
    let (simulator, client) = start(unlimited()).await;
    let kinds: [(Value, Check); 14] = [
        (json!("html"), |a| a.content.starts_with(b"<!doctype")),
        (json!("empty"), |a| a.content.is_empty()),
        (json!("cut_json"), |a| {
            a.content.starts_with(b"{") && a.try_json().is_none()
        }),
        (json!("result_null"), |a| a.json()["Result"].is_null()),
        (json!({"other_status": 500}), |a| a.json()["Status"] == 500),
        (json!("no_refresh_token"), |a| {
            a.json()["Result"].get("RefreshToken").is_none()
        }),
        (json!("huge"), |a| a.content.len() > 10_000_000),
        (json!({"expires_in": 0}), |a| a.expires_in() == 0),
        (json!({"expires_in": -1}), |a| a.expires_in() == -1),
        (json!({"expires_in": 1e18}), |a| a.expires_in() == 1e18),
        (json!({"expires_in": "86400"}), |a| {
            a.expires_in() == "86400"
        }),
        (json!({"expires_in": null}), |a| a.expires_in().is_null()),
        (json!({"expires_in": 1.5}), |a| a.expires_in() == 1.5),
        (json!("other_user"), |a| {
            let claims = a
                .access()
                .split('.')
                .nth(1)
                .map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
            !String::from_utf8(claims.unwrap())
                .unwrap()
                .contains(&USER.replace('-', ""))
        }),
    ];
    for (kind, as_it_says) in kinds {
        let fault = json!({"on": "auth", "action": {"garbage": kind}, "times": 1});
        let added = client
            .control(Method::POST, "/faults", &fault.to_string())
            .await;
        assert_eq!(added.status, 200, "{}", added.text());
        let answered = client
            .login(&client::login_body(USER), Some(INSTANCE_ID))
            .await
            .unwrap();
        assert_eq!(answered.status, 200);
        assert!(as_it_says(&answered), "{kind}");
    }
    assert_eq!(client.log_in(USER).await.status, 200, "each was used up");
    simulator.shutdown().await;
}

#[tokio::test]
async fn any_status_strikes_only_the_calls_it_was_asked_for() {
    let (simulator, client) = start(unlimited()).await;
    let mine = client.log_in(USER).await.access();
    let theirs = client.log_in(OTHER).await.access();
    let status = Action::Status(Status {
        code: 503,
        retry_after: Some(9),
        content: None,
    });
    let fault = Fault::new(On::Path("/Trips".to_owned()), status).of(user(USER));
    simulator.handle().add_fault(fault);
    for _ in 0..3 {
        let struck = client.get("/trips/get/v1", &mine).await;
        assert_eq!(
            (struck.status, &struck.headers[RETRY_AFTER]),
            (
                StatusCode::SERVICE_UNAVAILABLE.as_u16(),
                &"9".parse().unwrap()
            )
        );
        assert_eq!(struck.json()["Status"], 503);
    }
    assert_eq!(client.get("/trips/get/v1", &theirs).await.status, 200);
    assert_eq!(client.get("/indicators/v3/x", &mine).await.status, 200);
    simulator.handle().clear_faults();
    assert_eq!(client.get("/trips/get/v1", &mine).await.status, 200);

    simulator
        .handle()
        .add_fault(Fault::new(On::Data, Action::status(401)));
    assert_eq!(client.get("/trips/get/v1", &mine).await.status, 401);
    client.log_in(USER).await;
    assert_eq!(simulator.handle().counts_of(&user(USER)).unauthorized, 1);
    simulator.shutdown().await;
}

#[tokio::test]
async fn an_in_band_401_is_a_short_200() {
    let (simulator, client) = start(unlimited()).await;
    let token = client.log_in(USER).await.access();
    simulator
        .handle()
        .add_fault(Fault::new(On::Data, Action::InBand(401)).times(1));
    let answered = client.get("/trips/get/v1", &token).await;
    assert_eq!(
        (answered.status, &answered.json()["Status"]),
        (200, &json!(401))
    );
    assert!(answered.content.len() <= 512);
    assert_eq!(answered.headers["content-type"], "application/json");
    assert_eq!(simulator.handle().counts_of(&user(USER)).unauthorized, 1);
    simulator.shutdown().await;
}

#[tokio::test]
async fn an_early_401_comes_before_the_content_does() {
    for early in [Early::Close, Early::KeepReading] {
        let (simulator, client) = start(unlimited()).await;
        let token = client.log_in(USER).await.access();
        simulator
            .handle()
            .add_fault(Fault::new(On::Data, Action::Early(early)).times(1));
        let (sender, content) = client::slow_content();
        let request = client::request(Method::POST, "/mobilesdk/stage/echo")
            .header("authorization", format!("Bearer {token}"))
            .body(content)
            .unwrap();
        let answered = client.send(request).await.unwrap();
        assert_eq!(answered.status, 401, "nothing of the content was sent yet");
        drop(sender);
        simulator.shutdown().await;
    }
}

#[tokio::test]
async fn delays_add_up() {
    let (simulator, client) = start(unlimited()).await;
    for millis in [30, 50] {
        let delay = Action::Delay(Delay::Millis(millis));
        simulator
            .handle()
            .add_fault(Fault::new(On::Login, delay).times(1));
    }
    let before = tokio::time::Instant::now();
    client.log_in(USER).await;
    assert!(before.elapsed() >= Duration::from_millis(80));
    assert!(simulator.handle().faults().is_empty());
    simulator.shutdown().await;
}

#[tokio::test]
async fn a_large_answer_can_be_cut_in_its_middle() {
    let (simulator, client) = start(unlimited()).await;
    let token = client.log_in(USER).await.access();
    simulator
        .handle()
        .add_fault(Fault::new(On::Data, Action::Lose(Lost::Half)));
    for kind in ["bytes", "chunked"] {
        let request = client::request(Method::GET, &format!("/mobilesdk/stage/{kind}/1000000"))
            .header("authorization", format!("Bearer {token}"))
            .body(client::content(""));
        let error = client.send(request.unwrap()).await.unwrap_err();
        assert!(error.contains("body"), "{error}");
    }
    simulator.shutdown().await;
}

#[tokio::test]
async fn after_an_early_401_the_connection_closes_or_reads_on() {
    for (early, answers) in [(Early::Close, 1), (Early::KeepReading, 2)] {
        let (simulator, client) = start(unlimited()).await;
        let token = client.log_in(USER).await.access();
        let handle = simulator.handle();
        handle.add_fault(Fault::new(On::Data, Action::Early(early)).times(1));
        let head = format!(
            "POST /mobilesdk/stage/sink HTTP/1.1\r\nHost: simulated\r\n\
             Authorization: Bearer {token}\r\nContent-Length: 500000\r\n\r\n"
        );
        let mut stream = TcpStream::connect(simulator.addr()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("Title") {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "answered");
        }
        let rest = "d".repeat(500_000)
            + "GET /_control HTTP/1.1\r\nHost: simulated\r\nConnection: close\r\n\r\n";
        // Where the connection was closed, either of these fails.
        let _ = stream.write_all(rest.as_bytes()).await;
        let _ = stream.read_to_end(&mut seen).await;
        let seen = String::from_utf8_lossy(&seen);
        assert_eq!(seen.matches("HTTP/1.1 ").count(), answers, "{early:?}");
        simulator.shutdown().await;
    }
}

/// The names that `T` has in JSON, as serde lists them to somebody who gets one wrong.
fn names<T: serde::de::DeserializeOwned>() -> Vec<String> {
    let error = serde_json::from_str::<T>("\"no such name\"").err();
    let said = error.expect("no fault has this name").to_string();
    let quoted = said.split('`').skip(1).step_by(2).skip(1);
    quoted.map(str::to_owned).collect()
}

#[test]
fn the_manual_has_every_fault() {
    let (_, faults) = MANUAL.split_once("# Faults").unwrap();
    let (faults, _) = faults.split_once("# Counts").unwrap();
    let kinds = [
        names::<Action>(),
        names::<Early>(),
        names::<Delay>(),
        names::<Lost>(),
        names::<Garbage>(),
    ];
    for kind in kinds {
        assert!(kind.len() > 1, "{kind:?}");
        for name in kind {
            let is_there = [format!("\"{name}\""), format!("`{name}`")]
                .iter()
                .any(|name| faults.contains(name));
            assert!(is_there, "{name} has no row in MANUAL.md");
        }
    }
}

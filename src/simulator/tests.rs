//! The facts of damoov-api.md and every fault, over real sockets. [`client`] is what calls.

mod client;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::clock::Clock;
use crate::principal::{DeviceToken, Principal};
use client::{Answered, Client};

const USER: &str = "6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11";
const OTHER: &str = "7f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b22";

fn user(text: &str) -> Principal {
    Principal::User(DeviceToken::parse(text).unwrap())
}

fn unlimited() -> Settings {
    Settings {
        login_limit: None,
        ..Settings::default()
    }
}

async fn start(settings: Settings) -> (Simulator, Client) {
    let simulator = Simulator::start(settings).await.unwrap();
    let client = Client::of(simulator.addr());
    (simulator, client)
}

#[tokio::test]
async fn both_forms_of_login_are_understood_with_exactly_their_spelling() {
    let (simulator, client) = start(unlimited()).await;
    let email = ACCOUNT_EMAIL;
    let forms = [
        (
            json!({"LoginFields": format!("{{\"Devicetoken\":\"{USER}\"}}"), "Password": INSTANCE_KEY}),
            200,
        ),
        (
            json!({"LoginFields": format!("{{\"DeviceToken\":\"{USER}\"}}"), "Password": INSTANCE_KEY}),
            401,
        ),
        (
            json!({"LoginFields": format!("{{\"devicetoken\":\"{USER}\"}}"), "Password": INSTANCE_KEY}),
            401,
        ),
        (
            json!({"loginFields": {"DeviceToken": USER}, "password": INSTANCE_KEY}),
            200,
        ),
        (
            json!({"loginFields": {"Devicetoken": USER}, "password": INSTANCE_KEY}),
            401,
        ),
        (
            json!({"LoginFields": format!("{{\"Devicetoken\":\"{USER}\"}}"), "Password": "wrong"}),
            401,
        ),
        (
            json!({"LoginFields": format!("{{\"email\":\"{email}\"}}"), "Password": ACCOUNT_PASSWORD}),
            200,
        ),
        (
            json!({"loginFields": {"Email": email}, "password": ACCOUNT_PASSWORD}),
            200,
        ),
        (
            json!({"LoginFields": format!("{{\"email\":\"{email}\"}}"), "Password": "wrong"}),
            401,
        ),
    ];
    for (body, status) in forms {
        let answered = client.login(&body, Some(INSTANCE_ID)).await.unwrap();
        assert_eq!(answered.status, status, "{body}");
        assert_eq!(answered.json()["Status"], status);
        match status {
            200 => assert!(answered.json()["Result"]["AccessToken"]["Token"].is_string()),
            _ => assert_eq!(answered.json()["Errors"], json!([]), "no useful message"),
        }
    }
    let body = client::login_body(USER);
    for instance in [None, Some("22222222-2222-4222-8222-222222222222")] {
        assert_eq!(client.login(&body, instance).await.unwrap().status, 401);
    }
    let counted = simulator.handle().counts_of(&user(USER)).logins;
    assert_eq!((counted.ok, counted.rejected), (2, 3));
    simulator.shutdown().await;
}

#[tokio::test]
async fn a_token_has_the_claims_the_size_and_the_lifetime_of_the_real_one() {
    let (simulator, client) = start(unlimited()).await;
    let answered = client.log_in(USER).await;
    let token = answered.access();
    assert!((800..1300).contains(&token.len()), "{}", token.len());
    let claims: Value = {
        let part = token.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    assert_eq!(claims["DeviceToken"], USER.replace('-', ""));
    assert_eq!(claims["InstanceId"], INSTANCE_ID.replace('-', ""));
    assert_eq!(claims["IsAdmin"], "False");
    assert_eq!(claims["iss"], "webApi");
    let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(life, 86_400);
    assert_eq!(
        answered.json()["Result"]["AccessToken"]["ExpiresIn"],
        86_400
    );
    simulator.shutdown().await;
}

#[tokio::test]
async fn a_login_revokes_both_tokens_issued_before() {
    let (simulator, client) = start(unlimited()).await;
    let before = client.log_in(USER).await;
    let other = client.log_in(OTHER).await;
    let after = client.log_in(USER).await;
    assert_eq!(
        client
            .get("/indicators/v3/Scores/safety", &before.access())
            .await
            .status,
        401
    );
    assert_eq!(client.refresh(&before).await.unwrap().status, 401);
    assert_eq!(
        client
            .get("/indicators/v3/Scores/safety", &after.access())
            .await
            .status,
        200
    );
    assert_eq!(
        client
            .get("/indicators/v3/Scores/safety", &other.access())
            .await
            .status,
        200
    );
    simulator.shutdown().await;
}

#[tokio::test]
async fn the_sixth_login_of_a_minute_starts_an_hour_of_429() {
    let (simulator, client) = start(Settings::default()).await;
    for _ in 0..5 {
        client.log_in(USER).await;
    }
    let body = client::login_body(USER);
    for _ in 0..2 {
        let limited = client.login(&body, Some(INSTANCE_ID)).await.unwrap();
        assert_eq!(limited.status, 429);
        let wait: u64 = limited.headers[RETRY_AFTER]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!((3590..=3600).contains(&wait), "{wait}");
    }
    let counts = simulator.handle().counts();
    assert_eq!(
        (counts.total.logins.ok, counts.total.logins.limited),
        (5, 2)
    );
    assert_eq!((counts.blocks_tripped, counts.login_calls.len()), (1, 7));
    assert_eq!(counts.login_calls[6].outcome, Outcome::Limited);
    simulator.shutdown().await;
}

#[tokio::test]
async fn a_block_ends_by_the_clock_of_the_simulator() {
    let clock = Clock::scaled(3600);
    let hour = Duration::from_secs(3600);
    let limit = LoginLimit {
        calls: 1,
        per: hour,
        block: hour,
        ..LoginLimit::default()
    };
    let settings = Settings {
        clock,
        login_limit: Some(limit),
        ..Settings::default()
    };
    let (simulator, client) = start(settings).await;
    client.log_in(USER).await;
    let limited = client
        .login(&client::login_body(USER), Some(INSTANCE_ID))
        .await
        .unwrap();
    assert_eq!(limited.status, 429);
    clock.sleep(hour).await;
    client.log_in(USER).await;
    simulator.shutdown().await;
}

#[tokio::test]
async fn a_silent_limit_answers_429_without_retry_after() {
    let limit = LoginLimit {
        calls: 0,
        retry_after: RetryAfter::Silent,
        ..LoginLimit::default()
    };
    let (simulator, client) = start(Settings {
        login_limit: Some(limit),
        ..Settings::default()
    })
    .await;
    let limited = client
        .login(&client::login_body(USER), Some(INSTANCE_ID))
        .await
        .unwrap();
    assert_eq!(limited.status, 429);
    assert!(!limited.headers.contains_key(RETRY_AFTER));
    simulator.shutdown().await;
}

#[tokio::test]
async fn a_refresh_rotates_both_tokens_and_the_old_pair_is_dead_at_once() {
    for (dead, status) in [
        (DeadRefreshToken::BadRequest, 400),
        (DeadRefreshToken::Unauthorized, 401),
    ] {
        let refresh = Refresh {
            dead,
            ..Refresh::default()
        };
        let (simulator, client) = start(Settings {
            refresh,
            ..unlimited()
        })
        .await;
        let first = client.log_in(USER).await;
        let second = client.refresh(&first).await.unwrap();
        assert_eq!(second.status, 200);
        assert_ne!(
            (first.access(), first.refresh_token()),
            (second.access(), second.refresh_token())
        );
        assert_eq!(client.refresh(&first).await.unwrap().status, status);
        assert_eq!(
            client.get("/indicators/v3/x", &first.access()).await.status,
            200,
            "until its exp"
        );
        let third = client.refresh(&second).await.unwrap();
        assert_eq!(
            third.status, 200,
            "a rejected re-send does not harm the new pair"
        );
        let counted = simulator.handle().counts_of(&user(USER)).refreshes;
        assert_eq!((counted.ok, counted.rejected), (2, 1));
        simulator.shutdown().await;
    }
}

#[tokio::test]
async fn a_refresh_needs_both_tokens_of_the_same_user_but_no_living_jwt() {
    let (simulator, client) = start(unlimited()).await;
    let (mine, theirs) = (client.log_in(USER).await, client.log_in(OTHER).await);
    for body in [
        json!({"RefreshToken": mine.refresh_token()}),
        json!({"AccessToken": mine.access()}),
    ] {
        assert_eq!(
            client
                .post("/v1/Auth/RefreshToken", &body)
                .await
                .unwrap()
                .status,
            400
        );
    }
    let mixed = json!({"AccessToken": theirs.access(), "RefreshToken": mine.refresh_token()});
    assert_eq!(
        client
            .post("/v1/Auth/RefreshToken", &mixed)
            .await
            .unwrap()
            .status,
        401
    );
    assert_eq!(simulator.handle().expire(None), 2);
    assert_eq!(client.refresh(&mine).await.unwrap().status, 200);
    simulator.shutdown().await;
}

#[tokio::test]
async fn within_the_grace_period_the_same_pair_gets_the_same_new_pair() {
    let clock = Clock::scaled(1000);
    let refresh = Refresh {
        grace: Duration::from_secs(300),
        previous_token: PreviousToken::Revoked,
        ..Refresh::default()
    };
    let (simulator, client) = start(Settings {
        clock,
        refresh,
        ..unlimited()
    })
    .await;
    let first = client.log_in(USER).await;
    let second = client.refresh(&first).await.unwrap();
    let again = client.refresh(&first).await.unwrap();
    assert_eq!(second.json(), again.json());
    assert_eq!(
        client.get("/indicators/v3/x", &first.access()).await.status,
        401,
        "revoked"
    );
    clock.sleep(Duration::from_secs(300)).await;
    assert_eq!(client.refresh(&first).await.unwrap().status, 401);
    simulator.shutdown().await;
}

#[tokio::test]
async fn a_jwt_and_a_refresh_token_die_of_age() {
    let clock = Clock::scaled(1000);
    let lifetimes = Lifetimes {
        after_login: Duration::from_secs(200),
        refresh_token: Duration::from_secs(200),
        ..Lifetimes::default()
    };
    let (simulator, client) = start(Settings {
        clock,
        lifetimes,
        ..unlimited()
    })
    .await;
    let pair = client.log_in(USER).await;
    clock.sleep(Duration::from_secs(200)).await;
    assert_eq!(
        client.get("/indicators/v3/x", &pair.access()).await.status,
        401
    );
    assert_eq!(client.refresh(&pair).await.unwrap().status, 401);
    simulator.shutdown().await;
}

#[tokio::test]
async fn a_registration_issues_tokens_where_asked_and_is_not_idempotent() {
    let settings = Settings {
        known_users: KnownUsers::Only(Vec::new()),
        ..unlimited()
    };
    let (simulator, client) = start(settings).await;
    assert_eq!(
        client
            .login(&client::login_body(USER), Some(INSTANCE_ID))
            .await
            .unwrap()
            .status,
        401
    );

    let body = json!({"CustomToken": USER, "CreateAccessToken": true});
    let registered = client.register(&body, INSTANCE_KEY).await;
    assert_eq!(registered.status, 200);
    assert_eq!(registered.json()["Result"]["DeviceToken"], USER);
    assert_eq!(
        registered.json()["Result"]["AccessToken"]["ExpiresIn"],
        432_000
    );
    assert_eq!(
        client
            .get("/indicators/v3/x", &registered.access())
            .await
            .status,
        200
    );
    assert_eq!(client.refresh(&registered).await.unwrap().status, 200);
    assert_eq!(client.register(&body, INSTANCE_KEY).await.status, 422);
    assert_eq!(client.register(&json!({}), "wrong").await.status, 401);
    assert_eq!(
        client
            .register(&json!({"CustomToken": "x"}), INSTANCE_KEY)
            .await
            .status,
        422
    );

    let without = client.register(&json!({}), INSTANCE_KEY).await;
    assert!(without.json()["Result"]["DeviceToken"].is_string());
    assert!(without.json()["Result"].get("AccessToken").is_none());
    client.log_in(USER).await;
    simulator.shutdown().await;
}

#[tokio::test]
async fn older_behaviours_of_the_api_are_settings() {
    let settings = Settings {
        registration: Registration {
            credentials: RegistrationCredentials::Always,
            shape: RegistrationShape::Bare,
        },
        expires_in: ExpiresIn::Text,
        rejected_users: vec!["7f1c".to_owned()],
        ..unlimited()
    };
    let (simulator, client) = start(settings).await;
    let registered = client
        .register(&json!({"CustomToken": USER}), INSTANCE_KEY)
        .await;
    assert_eq!(registered.json()["DeviceToken"], USER);
    assert_eq!(registered.json()["AccessToken"]["ExpiresIn"], "432000");
    assert_eq!(
        client
            .login(&client::login_body(OTHER), Some(INSTANCE_ID))
            .await
            .unwrap()
            .status,
        401
    );
    simulator.shutdown().await;
}

#[tokio::test]
async fn each_endpoint_wants_its_kind_of_token() {
    let (simulator, client) = start(unlimited()).await;
    let user = client.log_in(USER).await.access();
    let admin = client.log_in_account().await.access();
    // Path, status for a user's token, status for an account's.
    let table = [
        (
            "/indicators/v3/Scores/safety?StartDate=2026-06-01&EndDate=2026-06-30",
            200,
            403,
        ),
        ("/indicators/v3/Scores/safety?StartDate=yesterday", 422, 403),
        (
            "/indicators/v3/Scores/safety?StartDate=2026-06-02&EndDate=2026-06-01",
            422,
            403,
        ),
        ("/indicators/admin/v3/Scores/safety", 403, 200),
        ("/trips/get/v1/", 200, 403),
        ("/trips/get/v1/no-such-trip", 404, 403),
        ("/trips/get/admin/v1", 403, 200),
        ("/statistics/v1/statistics/individual/daily", 200, 403),
        ("/statistics/v1/statistics/consolidated/daily", 403, 200),
        ("/v1/Management/users", 200, 200),
        ("/v1/Management/users/GetFilteredPage", 403, 200),
        (
            "/v1/Instances/11111111-1111-4111-8111-111111111111",
            403,
            200,
        ),
        ("/v1/instances", 404, 404),
        ("/v1/companies", 403, 200),
        ("/v1/Applications", 403, 200),
        ("/v1/applications", 403, 200),
        ("/auth/permissions", 403, 200),
        ("/v1/Permissions/all", 403, 200),
        ("/realtime/api/v1/devices", 200, 200),
        ("/mobilesdk/stage/x", 200, 403),
        ("/api/rewarding/x", 200, 403),
        ("/mobilesdkx", 404, 404),
        ("/nowhere", 404, 404),
    ];
    for (path, as_user, as_admin) in table {
        assert_eq!(client.get(path, &user).await.status, as_user, "user {path}");
        assert_eq!(
            client.get(path, &admin).await.status,
            as_admin,
            "account {path}"
        );
        let nobody = client.get(path, "never.issued.this").await;
        let expected = if as_user == 404 && as_admin == 404 {
            404
        } else {
            401
        };
        assert_eq!(nobody.status, expected, "nobody {path}");
        let status = if path.starts_with("/realtime") || path.contains("ermissions") {
            "status"
        } else {
            "Status"
        };
        assert_eq!(nobody.json()[status], expected, "{path}");
    }
    let unknown = client
        .get("/v1/Instances/11111111-1111-4111-8111-111111111111", &admin)
        .await;
    assert_eq!(unknown.json()["Result"], Value::Null);
    assert!(client.get("/auth/permissions", &admin).await.json()["result"].is_object());
    simulator.shutdown().await;
}

#[tokio::test]
async fn an_answer_says_whose_token_came_with_what_and_a_test_finds_it_again() {
    let (simulator, client) = start(unlimited()).await;
    let token = client.log_in(USER).await.access();
    let target = "/mobilesdk/stage/echo/a%20b?x=%41&&y";
    let request = client::request(Method::PUT, target)
        .header("authorization", format!("Bearer {token}"))
        .header("devicetoken", OTHER)
        .header("x-test-id", "7")
        .body(client::content("abc"))
        .unwrap();
    let answered = client.send(request).await.unwrap();
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(answered.headers["x-sim-device-token"], USER);
    assert_eq!(answered.headers["x-sim-method"], "PUT");
    assert_eq!(answered.headers["x-sim-target"], target);
    assert_eq!(answered.headers["x-sim-content-length"], "3");
    assert_eq!(answered.headers["x-sim-content-sha256"], sha256);
    assert_eq!(answered.json()["Result"]["Sim"]["DeviceToken"], USER);
    assert_eq!(simulator.handle().counts_of(&user(USER)).wrong_tokens, 1);

    let recorded = simulator.handle().requests_of("7");
    assert_eq!(recorded.len(), 1);
    assert_eq!(
        (recorded[0].method.as_str(), recorded[0].target.as_str()),
        ("PUT", target)
    );
    assert_eq!(recorded[0].content, Some(Bytes::from("abc")));
    assert_eq!(recorded[0].headers["devicetoken"], OTHER);
    let listed = client
        .control(Method::GET, "/requests?test_id=7", "")
        .await
        .json();
    assert_eq!(listed[0]["content_sha256"], sha256);
    assert_eq!(
        client
            .control(Method::GET, "/requests?test_id=8", "")
            .await
            .json(),
        json!([])
    );
    simulator.shutdown().await;
}

#[tokio::test]
async fn large_answers_and_uploads_stream() {
    let (simulator, client) = start(unlimited()).await;
    let token = client.log_in(USER).await.access();
    for length in [0, 1, 65_536, 3_000_000] {
        let sized = client
            .get(&format!("/mobilesdk/stage/bytes/{length}"), &token)
            .await;
        assert_eq!(sized.content.len(), length);
        assert_eq!(sized.headers["content-length"], length.to_string());
        let chunked = client
            .get(&format!("/mobilesdk/stage/chunked/{length}"), &token)
            .await;
        assert_eq!(chunked.content.len(), length);
        assert!(!chunked.headers.contains_key("content-length"));
    }
    let upload = client::request(Method::POST, "/mobilesdk/stage/sink")
        .header("authorization", format!("Bearer {token}"))
        .body(client::content(vec![b'u'; 6 << 20]))
        .unwrap();
    let answered = client.send(upload).await.unwrap();
    assert_eq!(answered.json()["Result"]["Sim"]["ContentLength"], 6 << 20);
    simulator.shutdown().await;
}

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
    let kinds: [(Value, fn(&Answered) -> bool); 14] = [
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
async fn refreshes_under_way_at_once_are_counted() {
    let (simulator, client) = start(unlimited()).await;
    let pair = client.log_in(USER).await;
    simulator
        .handle()
        .add_fault(Fault::new(On::Refresh, Action::Lose(Lost::Hang)));
    let mut calls: Vec<_> = (0..3).map(|_| Box::pin(client.refresh(&pair))).collect();
    while simulator.handle().counts_of(&user(USER)).refreshes.all() < 3 {
        for call in &mut calls {
            assert!(
                tokio::time::timeout(Duration::from_millis(1), call)
                    .await
                    .is_err()
            );
        }
    }
    assert_eq!(
        simulator.handle().counts_of(&user(USER)).refreshes_at_once,
        3
    );
    simulator.shutdown().await;
}

#[tokio::test]
async fn the_control_api_steers_one_or_all() {
    let (simulator, client) = start(unlimited()).await;
    let (mine, theirs) = (client.log_in(USER).await, client.log_in(OTHER).await);
    let post = async |command: &str| client.control(Method::POST, command, "").await.json();
    assert_eq!(
        post(&format!("/expire?principal={USER}")).await,
        json!({"expired": 1})
    );
    assert_eq!(
        client.get("/trips/get/v1", &mine.access()).await.status,
        401
    );
    assert_eq!(
        client.get("/trips/get/v1", &theirs.access()).await.status,
        200
    );
    assert_eq!(post("/revoke-refresh-tokens").await, json!({"revoked": 2}));
    assert_eq!(client.refresh(&theirs).await.unwrap().status, 401);
    assert_eq!(
        client.get("/trips/get/v1", &theirs.access()).await.status,
        200
    );

    let issued = post(&format!("/issue?principal={USER}")).await;
    let token = issued["access_token"].as_str().unwrap().to_owned();
    assert_eq!(client.get("/trips/get/v1", &token).await.status, 200);
    assert_eq!(post("/revoke").await, json!({"revoked": 1}));
    assert_eq!(client.get("/trips/get/v1", &token).await.status, 401);

    let counts = client.control(Method::GET, "/counts", "").await.json();
    assert_eq!(counts["total"]["logins"]["ok"], 2);
    assert_eq!(
        counts["principals"][format!("user:{USER}")]["unauthorized"],
        2
    );
    post("/reset").await;
    assert_eq!(simulator.handle().counts().total, Count::default());

    let refused = client
        .control(
            Method::POST,
            "/faults",
            r#"{"on":"nowhere","action":"reset"}"#,
        )
        .await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.text().contains("a path like /trips"),
        "{}",
        refused.text()
    );
    assert_eq!(client.control(Method::GET, "/what", "").await.status, 404);
    assert_eq!(
        client
            .control(Method::POST, "/expire?principal=x", "")
            .await
            .status,
        400
    );
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
async fn a_thousand_calls_at_once_are_all_answered() {
    let (simulator, client) = start(unlimited()).await;
    let token = client.log_in(USER).await.access();
    let calls = (0..1000).map(|_| client.get("/indicators/v3/x", &token));
    for answered in futures_util::future::join_all(calls).await {
        assert_eq!(answered.status, 200);
    }
    assert_eq!(simulator.handle().counts_of(&user(USER)).data_calls, 1000);
    simulator.shutdown().await;
}

#[tokio::test]
async fn with_tls_the_protocol_is_chosen_by_alpn() {
    for (offered, version) in [
        ("h2", http::Version::HTTP_2),
        ("http/1.1", http::Version::HTTP_11),
    ] {
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], private.unwrap())
            .unwrap();
        let settings = Settings {
            tls: Some(Arc::new(tls)),
            ..unlimited()
        };
        let simulator = Simulator::start(settings).await.unwrap();
        assert!(simulator.base_url().starts_with("https://127.0.0.1:"));

        let mut roots = rustls::RootCertStore::empty();
        roots.add(key.cert.der().clone()).unwrap();
        let mut trusting = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        trusting.alpn_protocols = vec![offered.into()];
        let seen = client::version_over_tls(simulator.addr(), trusting).await;
        assert_eq!(seen, version);
        simulator.shutdown().await;
    }
}

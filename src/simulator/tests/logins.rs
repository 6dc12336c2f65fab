//! Logins: their forms, what they revoke, and the limit on them.

use super::*;

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
